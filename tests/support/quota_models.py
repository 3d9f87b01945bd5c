"""Models for tests of the limiter: the server's log, a naive correct limiter, and wrong ones.

Nothing here shares code with `do_images_async._quota.limiter` but the mutants, which break it on purpose.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import attrs

from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.limiter import RateLimiter
from do_images_async._quota.protocols import Permit
from tests.support.virtual_time import SECOND, TICK, clock

__all__ = [
    "Exchange",
    "Limit",
    "Limiter",
    "LogAtSendTime",
    "MakeLimiter",
    "NaiveLimiter",
    "RefillingBucket",
    "SlidingLogServer",
    "Ticket",
    "forgets_the_grace",
    "log_at_send_time",
    "most_in_a_window",
    "refilling_bucket",
    "returns_a_tick_early",
    "returns_from_grant",
]


@attrs.frozen
class Limit:
    """`capacity` requests in any half-open window of `period` nanoseconds."""

    capacity: int
    period: int

    def bucket(self, *, early: int = 0) -> TokenBucket:
        """The limiter's bucket for this limit, without a margin: the edge itself is under test."""
        return TokenBucket(self.capacity, per=(self.period - early) / SECOND, margin=0)


@attrs.frozen
class Exchange:
    """A request that the server counts at one instant, anywhere from `earliest` to `latest`."""

    earliest: int
    latest: int


def most_in_a_window(exchanges: Iterable[Exchange], period: int) -> int:
    """The most requests that any window [s, s + period) can hold, each counted at its worst instant.

    A window can hold every exchange that it touches, so no choice of instants is left out: the earliest, the
    latest, and all between. An exchange is touched while earliest - period < s <= latest.
    """
    edges: list[tuple[int, int]] = []
    for exchange in exchanges:
        edges.append((exchange.earliest - period + 1, +1))
        edges.append((exchange.latest + 1, -1))
    most = touched = 0
    for _, step in sorted(edges):
        touched += step
        most = max(most, touched)
    return most


class SlidingLogServer:
    """Counts every request, the rejected ones too, on a timer of its own."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._logs: list[tuple[Limit, deque[int]]] = [(limit, deque()) for limit in limits]
        self.rejected = 0
        self.accepted = 0

    def arrive(self, now: int) -> bool:
        """Count a request that arrives now; False when a limit is passed."""
        within = True
        for limit, log in self._logs:
            while log and log[0] <= now - limit.period:
                log.popleft()
            log.append(now)
            within = within and len(log) <= limit.capacity
        self.accepted += within
        self.rejected += not within
        return within


class NaiveLimiter:
    """The rules with neither heap, queue nor timer: everything is counted anew at every step."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self.limits = limits
        self.now = 0
        self.closed_until = 0
        self.holding: set[int] = set()
        self.waiting: list[tuple[int, int, int]] = []
        self.granted = 0
        self.served_starved = 0
        self._back: list[list[int]] = [[] for _ in limits]

    def free(self) -> tuple[int, ...]:
        return tuple(
            limit.capacity - len(self.holding) - sum(moment > self.now for moment in back)
            for limit, back in zip(self.limits, self._back, strict=True)
        )

    def acquire(self, key: int, reserve: int) -> None:
        self.waiting.append((reserve, key, self.now))
        self._serve()

    def leave(self, key: int) -> None:
        """A caller is cancelled: it waits no more, or has not sent what it was granted."""
        self.waiting = [waiter for waiter in self.waiting if waiter[1] != key]
        self.holding.discard(key)
        self._serve()

    def finish(self, key: int, grace: int) -> None:
        """A request is over, and the server may count it until `grace` from now."""
        self.holding.remove(key)
        for limit, back in zip(self.limits, self._back, strict=True):
            back.append(self.now + grace + limit.period)
        self._serve()

    def close_for(self, duration: int) -> None:
        self.closed_until = max(self.closed_until, self.now + duration)

    def advance(self, duration: int) -> None:
        end = self.now + duration
        moments = {self.closed_until, end, *(moment for back in self._back for moment in back)}
        for moment in sorted(moment for moment in moments if self.now < moment <= end):
            self.now = moment
            self._serve()

    def _serve(self) -> None:
        while self.waiting:
            waiter = min(self.waiting, key=lambda waiter: waiter[0])
            if self.now < self.closed_until or min(self.free()) <= waiter[0]:
                return
            self.granted += 1
            starved = self._starved(waiter[0])
            if starved and self.granted >= self.served_starved + 8:
                self.served_starved = self.granted
                waiter = min(starved, key=lambda waiter: (waiter[2], waiter[0]))
            self.waiting.remove(waiter)
            self.holding.add(waiter[1])

    def _starved(self, reserve: int) -> list[tuple[int, int, int]]:
        """Return the waiters with a larger reserve that have waited for a whole period."""
        since = self.now - min(limit.period for limit in self.limits)
        return [waiter for waiter in self.waiting if waiter[0] > reserve and waiter[2] <= since]


class Ticket(Protocol):
    def settle(self) -> None: ...
    def release(self) -> None: ...
    def lose(self) -> None: ...


class Limiter(Protocol):
    async def acquire(self, *, reserve: int = 0) -> Ticket: ...


class _NoReturn:
    """The ticket of a limiter that doesn't care how the request went."""

    def settle(self) -> None: ...
    def release(self) -> None: ...
    def lose(self) -> None: ...


class RefillingBucket:
    """The textbook's token bucket: starts full, and drips `capacity` tokens a period."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        # A level is counted in tokens times the period, which keeps it whole.
        self._levels = [limit.capacity * limit.period for limit in limits]
        self._limits = limits
        self._seen = 0
        self._turn = asyncio.Lock()

    async def acquire(self, *, reserve: int = 0) -> Ticket:
        async with self._turn:
            while wait := self._missing():  # noqa: ASYNC110 (nothing tells it)
                await asyncio.sleep(wait / SECOND)
        self._levels = [level - limit.period for level, limit in zip(self._levels, self._limits, strict=True)]
        return _NoReturn()

    def _missing(self) -> int:
        now = clock()
        elapsed, self._seen = now - self._seen, now
        self._levels = [
            min(level + elapsed * limit.capacity, limit.capacity * limit.period)
            for level, limit in zip(self._levels, self._limits, strict=True)
        ]
        return max(
            -(min(level - limit.period, 0) // limit.capacity)
            for level, limit in zip(self._levels, self._limits, strict=True)
        )


class LogAtSendTime:
    """A sliding log like the server's, but of the moments when requests left here."""

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._logs: list[deque[int]] = [deque(maxlen=limit.capacity) for limit in limits]
        self._limits = limits
        self._turn = asyncio.Lock()

    async def acquire(self, *, reserve: int = 0) -> Ticket:
        async with self._turn:
            while (wait := self._due() - clock()) > 0:  # noqa: ASYNC110 (nothing tells it)
                await asyncio.sleep(wait / SECOND)
        for log in self._logs:
            log.append(clock())
        return _NoReturn()

    def _due(self) -> int:
        return max(
            log[0] + limit.period if len(log) == limit.capacity else 0
            for log, limit in zip(self._logs, self._limits, strict=True)
        )


class _ReturnsFromGrant(RateLimiter):
    """A mutant: the tokens come back one period after the grant, not after the response."""

    async def acquire(self, *, max_wait: float | None = None, reserve: int = 0) -> Permit:
        permit = await super().acquire(max_wait=max_wait, reserve=reserve)
        permit.settle()
        return permit


def refilling_bucket(limits: Sequence[Limit], _grace: int) -> RefillingBucket:
    return RefillingBucket(limits)


def log_at_send_time(limits: Sequence[Limit], _grace: int) -> LogAtSendTime:
    return LogAtSendTime(limits)


def returns_from_grant(limits: Sequence[Limit], grace: int) -> RateLimiter:
    return _ReturnsFromGrant(
        *(limit.bucket() for limit in limits), grace=grace / SECOND, clock=clock, slow_start=False
    )


def returns_a_tick_early(limits: Sequence[Limit], grace: int) -> RateLimiter:
    """A mutant: every token is back one tick too soon. (A period of one tick can't be shortened.)"""
    buckets = (limit.bucket(early=TICK if limit.period > TICK else 0) for limit in limits)
    return RateLimiter(*buckets, grace=grace / SECOND, clock=clock, slow_start=False)


def forgets_the_grace(limits: Sequence[Limit], _grace: int) -> RateLimiter:
    """A mutant: a lost response counts as if the request could no longer reach the server."""
    return RateLimiter(*(limit.bucket() for limit in limits), grace=0, clock=clock, slow_start=False)


MakeLimiter = Callable[[Sequence[Limit], int], Limiter]
"""Limits and the grace in nanoseconds -> a limiter on the running loop's clock."""
