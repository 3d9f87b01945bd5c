"""The exchange between one worker and the store of a shared quota: the request and the reply.

A store has one operation. Redis carries it out in Lua, SQLite in Python; the worker's side is the same.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from do_images_async._quota.policies import CONSTANTS
from do_images_async._quota.protocols import Report, Ticket

__all__ = ["Answered", "Exchange", "Reply", "Store", "microseconds"]


def microseconds(seconds: float) -> int:
    """Return whole microseconds, rounded up."""
    return -int(-seconds * 1_000_000 // 1)


@attrs.frozen(kw_only=True)
class Answered:
    """A response's report on the quota, and the request that it answers; see `Report` and `Ticket`.

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
        """Return the note of a response that came at a moment, in microseconds."""
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
    """The report and wishes of a worker; times are microseconds.

    Attributes:
        number: of the exchange; one that is sent again is not carried out again.
        epoch: the name of the store's memory at the last exchange; empty at the first.
        seen: the highest serial that this worker has heard of in this epoch; a store that knows fewer has
            lost its memory.
        joined: whether the store must know the worker, which has requests in flight.
        holds: requests in flight before this report, for a store that does not know the worker; one that
            knows it, and another number, has an older memory.
        answered, lost, unsent: what happened to requests since the last exchange.
        elsewhere: how long ago requests were answered that the store has not heard of.
        settling: how long nobody gets anything, while others report such requests.
        wants: how many permits, by the reserve that they leave.
        at_once: whether a call can't wait for responses any longer, which ends a slow start that holds it
            back.
        slow_start: whether a store with an empty memory begins with one request in flight; see `RateLimiter`.
        clock: the worker's own time.
        constants: of the gate's policies, for a store that does not decide in Python.
        jitter: a random number below 1; the higher, the longer a closing, so that workers do not all
            continue at once.
    """

    number: str
    worker: str
    epoch: str
    seen: int = 0
    new_epoch: str
    joined: bool
    holds: int
    answered: list[Answered]
    lost: int
    unsent: int
    elsewhere: list[int]
    settling: int
    wants: list[tuple[int, int]]
    at_once: bool = False
    slow_start: bool = False
    clock: int
    jitter: float
    buckets: list[tuple[int, int]]
    lease: int
    grace: int
    constants: dict[str, float] = attrs.field(factory=lambda: dict(CONSTANTS))


@attrs.frozen(kw_only=True)
class Reply:
    """The store's answer.

    Attributes:
        epoch: the name of its memory; another one when it has lost it.
        lost: it has lost its memory, or a part, and must be told what it lacks.
        gone: it has given up the worker, whose lease had ended.
        tickets: the requests that may go, by the reserve that they leave.
        wait: seconds until it is worth asking again; None when all wishes are granted.
        free: free tokens in each bucket.
        workers: how many have a lease.
        reserving: how many wait for a permit with a reserve.
        pacing: whether requests go out evenly; see `LimiterStats`.
        serial: of the request that was granted last, to any worker.
        opens_in: seconds until the next permit without a reserve may be granted, at the earliest.
        at_least: the same for the wishes that were not granted. `wait` may be longer, where a response may
            come at any moment, or shorter, where a request may prove to be unsent.
        age: if it is lost, how many seconds ago the memory that is left was written; None when none is left.
    """

    epoch: str
    lost: bool
    gone: bool
    tickets: dict[int, list[Ticket]]
    wait: float | None
    free: tuple[int, ...]
    workers: int
    pacing: bool
    serial: int = 0
    opens_in: float = 0.0
    at_least: float = 0.0
    reserving: int = 1
    age: float | None = None


class Store(Protocol):
    """The place that keeps a quota which workers share."""

    async def exchange(self, exchange: Exchange) -> Reply:
        """Carry out an exchange, for the first time or again.

        Raises:
            QuotaStoreError: it was not carried out, or the store did not say so.
            ValueError: the workers of one token do not agree on its buckets.
        """
        ...
