"""One worker's exchanges with Redis: JSON there, JSON back, one atomic script."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import Any

import attrs
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.gate import LONGEST_PAUSE
from do_images_async._quota.protocols import Report, Ticket
from do_images_async.errors import QuotaStoreError

__all__ = ["Exchange", "Reply", "Store", "microseconds"]

SCRIPT = files("do_images_async.redis").joinpath("quota.lua").read_text(encoding="utf-8")


def microseconds(seconds: float) -> int:
    """Whole microseconds, rounded up."""
    return -int(-seconds * 1_000_000 // 1)


@attrs.frozen(kw_only=True)
class Answered:
    """What one response says of the quota, and which request it answers; see `Report` and `Ticket`.

    Attributes:
        at: when it came, on the worker's clock.
    """

    at: int
    serial: int
    finished: int
    remaining: int | None
    counted: int | None
    refused: bool
    retry_after: int | None
    reset_in: int | None

    @classmethod
    def of(cls, ticket: Ticket, report: Report, at: int) -> Answered:
        return cls(
            at=at,
            serial=ticket.serial,
            finished=ticket.finished,
            remaining=report.remaining,
            counted=report.counted,
            refused=report.refused,
            retry_after=None if report.retry_after is None else microseconds(report.retry_after),
            reset_in=None if report.reset_in is None else microseconds(report.reset_in),
        )


@attrs.frozen(kw_only=True)
class Exchange:
    """What a worker tells and asks; times are microseconds.

    Attributes:
        number: of the exchange; one that is sent again is not carried out again.
        epoch: what the store's memory was called at the last exchange; empty at the first.
        joined: whether the store must know the worker, which has requests under way.
        holds: requests under way that a store which does not know the worker has to be told of.
        answered, lost, unsent: what became of requests since the last exchange.
        elsewhere: how long ago requests were answered that the store has not heard of.
        settling: how long nobody gets anything, while others tell such things.
        wants: how many permits, by the reserve that they leave.
        clock: the worker's own time.
        dice: a random number below 1; the higher, the longer a closing, lest all come back together.
    """

    number: str
    worker: str
    epoch: str
    new_epoch: str
    joined: bool
    holds: int
    answered: list[Answered]
    lost: int
    unsent: int
    elsewhere: list[int]
    settling: int
    wants: list[tuple[int, int]]
    clock: int
    dice: float
    buckets: list[tuple[int, int]]
    lease: int
    grace: int
    longest_pause: int = microseconds(LONGEST_PAUSE)


@attrs.frozen(kw_only=True)
class Reply:
    """What the store answers.

    Attributes:
        epoch: what its memory is called; another one when it has lost it.
        lost: it has lost its memory and must be told everything.
        gone: it has given up the worker, whose lease had ended.
        tickets: the requests that may go, by the reserve that they leave.
        wait: seconds until it is worth asking again; None when all wishes are granted.
        free: free tokens in each bucket.
        workers: how many have a lease.
        pacing: whether requests go out evenly; see `LimiterStats`.
    """

    epoch: str
    lost: bool
    gone: bool
    tickets: dict[int, list[Ticket]]
    wait: float | None
    free: tuple[int, ...]
    workers: int
    pacing: bool


class Store:
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
