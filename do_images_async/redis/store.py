"""One worker's exchanges with Redis: JSON there, JSON back, one atomic script."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.protocols import Ticket
from do_images_async._quota.store import Exchange, Reply
from do_images_async.errors import QuotaStoreError

__all__ = ["SCRIPT", "RedisStore"]

SCRIPT = files("do_images_async.redis").joinpath("quota.lua").read_text(encoding="utf-8")


class RedisStore:
    """The shared quota of one token, as Redis keeps it.

    Args:
        redis: the client; it stays the caller's.
        key: what every key begins with; names no token.
        buckets: the limits.
        timeout: seconds for one exchange.
    """

    def __init__(self, redis: Redis, key: str, buckets: tuple[TokenBucket, ...], timeout: float) -> None:
        parts = ("state", "leases", "held", "wants", "dues", "passes", "replies", "others", "way")
        names = [*parts, *(f"back{number}" for number in range(len(buckets)))]
        self._keys = [f"{key}:{name}" for name in names]
        self._script = redis.register_script(SCRIPT)
        self._timeout = timeout

    async def exchange(self, exchange: Exchange) -> Reply:
        """Send an exchange, for the first time or again.

        Raises:
            QuotaStoreError: Redis did not carry it out, or did not say so.
        """
        text = msgspec.json.encode(exchange)
        try:
            async with asyncio.timeout(self._timeout):
                answer: Any = await self._script(keys=self._keys, args=[text])
        except (RedisError, OSError) as error:
            raise QuotaStoreError(f"{type(error).__name__}: {error}") from None
        body = msgspec.json.decode(answer)
        if "limits" in body:
            raise ValueError(
                f"the workers of one token must agree on its buckets: others say {body['limits']} (capacity,"
                f" microseconds), this one says {msgspec.json.encode(exchange.buckets).decode()}"
            )
        return _reply(body)


def _reply(body: dict[str, Any]) -> Reply:
    # Lua has one kind of table: an empty list arrives as an object.
    wait = body.get("wait")
    finished = body.get("finished", 0)
    return Reply(
        epoch=body["epoch"],
        lost=body.get("lost", False),
        gone=body.get("gone", False),
        tickets={
            reserve: [Ticket(serial, finished) for serial in serials]
            for reserve, serials in body.get("granted", ())
        },
        wait=None if wait is None else wait / 1_000_000,
        free=tuple(body.get("free", ())),
        workers=body.get("workers", 1),
        pacing=body.get("pacing", False),
    )
