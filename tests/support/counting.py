"""Servers that count requests in different ways, as seen through the headers of a burst's refusal."""

from __future__ import annotations

import asyncio
import math
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Protocol

import attrs

from do_images_async._quota.protocols import Report
from tests.support.simulation import Limit, Limiter

__all__ = ["MODELS", "Counting", "Tally", "run_against"]


class Counting(Protocol):
    """One way to count."""

    def admit(self, now: float) -> float:
        """Count a request that comes now; return 0 when it is accepted, or seconds until one may be."""
        ...


class SlidingLog:
    """Count each request for a period, also those that are refused."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._log: deque[float] = deque()

    def admit(self, now: float) -> float:
        capacity, log = self._limit.capacity, self._log
        while log and log[0] <= now - self._limit.seconds:
            log.popleft()
        log.append(now)
        return 0.0 if len(log) <= capacity else log[len(log) - capacity] + self._limit.seconds - now


class FixedWindow:
    """Begin at zero with each period."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._window = self._count = 0

    def admit(self, now: float) -> float:
        window = int(now / self._limit.seconds)
        if window != self._window:
            self._window, self._count = window, 0
        if self._count >= self._limit.capacity:
            return (window + 1) * self._limit.seconds - now
        self._count += 1
        return 0.0


class WeightedCounter:
    """Estimate the sliding window from this period's count and the part of the last one's that overlaps."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._window = self._count = self._before = 0

    def admit(self, now: float) -> float:
        window = int(now / self._limit.seconds)
        if window != self._window:
            self._before = self._count if window == self._window + 1 else 0
            self._window, self._count = window, 0
        passed = now / self._limit.seconds - window
        excess = self._before * (1.0 - passed) + self._count + 1 - self._limit.capacity
        if excess <= 0:
            self._count += 1
            return 0.0
        until_next = (1.0 - passed) * self._limit.seconds
        if excess > self._before * (1.0 - passed):
            return until_next
        return min(excess / self._before * self._limit.seconds, until_next)


class Gcra:
    """Accept one request an interval, and so many at once after a pause; a leaky bucket when that is all."""

    def __init__(self, limit: Limit, burst: int) -> None:
        self._interval = limit.seconds / limit.capacity
        self._tolerance = (burst - 1) * self._interval
        self._arrival = 0.0

    def admit(self, now: float) -> float:
        wait = self._arrival - self._tolerance - now
        if wait > 1e-9:
            return wait
        self._arrival = max(self._arrival, now) + self._interval
        return 0.0


@attrs.define
class Both:
    """Accept what a sliding log and a limit of bursts both accept."""

    log: SlidingLog
    burst: SlidingLog

    def admit(self, now: float) -> float:
        return max(self.log.admit(now), self.burst.admit(now))


MODELS: dict[str, Callable[[Limit], Counting]] = {
    "sliding log": SlidingLog,
    "fixed window": FixedWindow,
    "weighted counter": WeightedCounter,
    "GCRA, burst of a fifth": lambda limit: Gcra(limit, limit.capacity // 5),
    "leaky bucket": lambda limit: Gcra(limit, limit.capacity),
    "sliding log, bursts of half": lambda limit: Both(
        SlidingLog(limit), SlidingLog(Limit(limit.capacity // 2, limit.seconds / 5))
    ),
}
"""By name; each is made for one limit."""


@attrs.frozen(kw_only=True)
class Tally:
    """The requests that a server has accepted and refused.

    Attributes:
        accepted, refused: when.
        limit: of the server.
        duration: seconds, from time zero.
        outage: from when until when the server has refused everything.
    """

    accepted: list[float]
    refused: list[float]
    limit: Limit
    duration: float
    outage: tuple[float, float]

    def used(self, since: float = 0.0) -> float:
        """Return the accepted part of what the limit allows from a moment on."""
        allowed = (self.duration - since) * self.limit.capacity / self.limit.seconds
        return self._accepted_between(since, self.duration) / allowed

    def refused_part(self, since: float = 0.0) -> float:
        """Return the refused part of the requests from a moment on."""
        refused = len(self.refused) - bisect_left(self.refused, since)
        return refused / max(1, refused + self._accepted_between(since, self.duration))

    def windows_to_recover(self) -> float:
        """Return how many windows after the outage one began in which 90 % of the limit were accepted."""
        end, step = self.outage[1], self.limit.seconds / 10
        moment = end
        while moment + self.limit.seconds <= self.duration:
            if self._accepted_between(moment, moment + self.limit.seconds) >= 0.9 * self.limit.capacity:
                return (moment - end) / self.limit.seconds
            moment += step
        return math.inf

    def _accepted_between(self, start: float, end: float) -> int:
        return bisect_left(self.accepted, end) - bisect_left(self.accepted, start)


async def run_against(
    limiter: Limiter,
    counting: Counting,
    limit: Limit,
    *,
    windows: int,
    callers: int = 80,
    outage: tuple[float, float] = (-1.0, -1.0),
    seed: int = 1,
    says_when: bool = True,
) -> Tally:
    """Have callers call for so many windows, each one request after the other.

    Args:
        limiter: whose permits they need; they also wait as long as a refusal says.
        counting: how the server counts.
        limit: its limit.
        windows: how long.
        callers: how many.
        outage: seconds from when until when everything is refused.
        seed: of the network's latency, a fifth of a second for both ways.
        says_when: whether a refusal has `retry-after`.
    """
    loop, dice = asyncio.get_running_loop(), random.Random(seed)
    tally = Tally(accepted=[], refused=[], limit=limit, duration=windows * limit.seconds, outage=outage)

    def answer() -> Report:
        now = loop.time()
        pause = 1.0 if outage[0] <= now < outage[1] else counting.admit(now)
        (tally.refused if pause else tally.accepted).append(now)
        after = float(math.ceil(pause)) if pause and says_when else None
        return Report(refused=pause > 0, retry_after=after)

    async def call() -> None:
        while True:
            permit = await limiter.acquire()
            await asyncio.sleep(dice.lognormvariate(-2.3, 0.5))
            report = answer()
            await asyncio.sleep(dice.lognormvariate(-2.3, 0.5))
            if permit is not None:
                permit.settle(report)
            if report.refused:
                await asyncio.sleep(report.retry_after or 1.0)

    tasks = [asyncio.create_task(call()) for _ in range(callers)]
    await asyncio.sleep(tally.duration)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return tally
