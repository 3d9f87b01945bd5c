"""The exchanges of one worker with Redis: one atomic script that takes and returns JSON."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.protocols import Ticket
from do_images_async._quota.store import Exchange, Reply
from do_images_async._quota.timeouts import within
from do_images_async.errors import QuotaStoreError

__all__ = ["SCRIPT", "RedisStore"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25
"""Seconds between two attempts of one exchange."""

_TRANSIENT = (BusyLoadingError, ClusterDownError, ReadOnlyError, TryAgainError)
"""Errors of a server that starts, or during a failover; they are transient."""

_TRANSIENT_CODE = re.compile(r"(?:^|: -)(?:CLUSTERDOWN|LOADING|NOREPLICAS|READONLY|TRYAGAIN)\b")
"""The same in a message: redis-py has no class for a primary that its replicas have left, and up to Redis 6
an error in a script has the code behind the script's place."""

_REFUSED = (AuthenticationError, AuthorizationError, ResponseError)
"""Permanent errors: a wrong password, a missing permission, another node's keys, no memory."""

SCRIPT = files("do_images_async.redis").joinpath("quota.lua").read_text(encoding="utf-8")
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class RedisStore:
    """The shared quota of one token, as Redis keeps it.

    Args:
        redis: the client; it stays the caller's.
        key: what every key begins with; names no token.
        buckets: the limits.
        timeout: seconds for one exchange.

    Raises:
        ValueError: the client would send another script, because of its encoding.
    """

    def __init__(
        self, redis: Redis | RedisCluster, key: str, buckets: tuple[TokenBucket, ...], timeout: float
    ) -> None:
        parts = ("state", "leases", "held", "wants", "dues", "passes", "others", "way")
        names = [*parts, *(f"back{number}" for number in range(len(buckets)))]
        # As bytes: workers whose clients have different encodings must name the same keys.
        self._keys = [f"{key}:{name}".encode() for name in names]
        self._script = _registered(redis)
        self._timeout = timeout

    async def exchange(self, exchange: Exchange) -> Reply:
        """Send an exchange until it is answered; see `Store.exchange`.

        Exchanges are numbered: one that was carried out, and whose answer was lost with its connection, is
        not carried out again.
        """
        body = msgspec.json.decode(await self._send(msgspec.json.encode(exchange)))
        if "limits" in body:
            raise ValueError(
                f"the workers of one token must agree on its buckets: others say {body['limits']} (capacity,"
                f" microseconds), this one says {msgspec.json.encode(exchange.buckets).decode()}"
            )
        return _reply(body)

    async def _send(self, text: bytes) -> Any:
        failures: list[Exception] = [TimeoutError(f"no answer within {self._timeout:g} s")]
        try:
            return await within(self._timeout, self._try_until_answered(text, failures))
        except TimeoutError:
            raise _store_error(failures[-1], refused=_is_refusal(failures[-1])) from None

    async def _try_until_answered(self, text: bytes, failures: list[Exception]) -> Any:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._script(keys=self._keys, args=[text])
            except (RedisError, OSError) as error:
                if _is_refusal(error):
                    raise _store_error(error, refused=True) from None
                failures[:] = [error]
            except asyncio.CancelledError as cancelled:
                # redis-py may be trying again itself, also after a wrong password.
                if isinstance(cancelled.__context__, RedisError | OSError):
                    failures[:] = [cancelled.__context__]
                raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _registered(redis: Redis | RedisCluster) -> Callable[..., Awaitable[Any]]:
    with contextlib.suppress(LookupError, UnicodeError):
        script = redis.register_script(SCRIPT)
        if getattr(script, "sha", _SHA) == _SHA:  # a wrapper's need not have one
            return script
    # redis-py itself fails with such an encoding, mostly with an error that does not name it.
    raise ValueError("redis must be a client whose encoding leaves ASCII as it is, such as utf-8")


def _is_refusal(error: Exception) -> bool:
    # Some versions raise a ConnectionError from the error that it stands for.
    causes = (error, error.__cause__, error.__context__)
    return any(isinstance(each, _REFUSED) and not _is_transient(each) for each in causes)


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, _TRANSIENT) or bool(_TRANSIENT_CODE.search(str(error)))


def _store_error(error: Exception, *, refused: bool = False) -> QuotaStoreError:
    return QuotaStoreError(f"{type(error).__name__}: {error}", refused=refused)


def _reply(body: dict[str, Any]) -> Reply:
    # Lua has one kind of table: an empty list arrives as an object.
    wait, age = body.get("wait"), body.get("age")
    finished = body.get("finished", 0)
    return Reply(
        epoch=body["epoch"],
        lost=body.get("lost", False),
        gone=body.get("gone", False),
        age=None if age is None else age / 1_000_000,
        tickets={
            reserve: [Ticket(serial, finished) for serial in serials]
            for reserve, serials in body.get("granted", ())
        },
        wait=None if wait is None else wait / 1_000_000,
        free=tuple(body.get("free", ())),
        workers=body.get("workers", 1),
        pacing=body.get("pacing", False),
        serial=body.get("serial", 0),
        reserving=body.get("reserving", 1),
        opens_in=body.get("opens_in", 0) / 1_000_000,
        at_least=body.get("at_least", 0) / 1_000_000,
    )
