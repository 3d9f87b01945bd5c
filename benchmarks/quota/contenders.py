"""The limiters, each as its documentation says to use it for both limits."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import limits.storage.memory
from aiolimiter import AsyncLimiter
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from do_images_async._quota import limiter as ratelimit
from do_images_async._quota.protocols import Permit
from tests.support.simulation import HOUR, MINUTE, Limit, Limiter, Outcome, Setting, simulate
from tests.support.virtual_loop import VirtualLoop

__all__ = ["CONTENDERS", "contend", "now_ns"]


def now_ns() -> int:
    """Return the running virtual loop's time in nanoseconds."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.now_ns()


class Ours:
    """`RateLimiter`, as every client has it, but on the loop's clock."""

    def __init__(self) -> None:
        self._limiter = ratelimit.RateLimiter(clock=now_ns)

    async def acquire(self) -> Permit:
        return await self._limiter.acquire()


class Aiolimiter:
    """Both limits, one after the other."""

    def __init__(self) -> None:
        self._minute = AsyncLimiter(MINUTE.capacity, MINUTE.seconds)
        self._hour = AsyncLimiter(HOUR.capacity, HOUR.seconds)

    async def acquire(self) -> None:
        await self._hour.acquire()
        await self._minute.acquire()


class MovingWindow:
    """Tests both limits, and hits both when they have room; else waits for the time that is named."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        # Its storage asks for the system's time.
        setattr(limits.storage.memory, "time", SimpleNamespace(time=loop.time))  # noqa: B010
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._items = (RateLimitItemPerMinute(MINUTE.capacity), RateLimitItemPerHour(HOUR.capacity))
        self._loop = loop
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        async with self._turn:
            for item in self._items:
                while not self._limiter.test(item):  # noqa: ASYNC110 (nothing tells it)
                    await asyncio.sleep(self._wait(item))
            for item in self._items:
                self._limiter.hit(item)

    def _wait(self, item: RateLimitItem) -> float:
        # At the very moment that it names there is no room yet.
        return max(self._limiter.get_window_stats(item).reset_time - self._loop.time(), 0.0) + 0.001


class RefillingBucket:
    """The textbook's token bucket: starts full, and drips `capacity` tokens a period."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buckets = [_Bucket(MINUTE), _Bucket(HOUR)]
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        async with self._turn:
            while wait := max(bucket.missing_at(self._loop.time()) for bucket in self._buckets):  # noqa: ASYNC110 (as above)
                await asyncio.sleep(wait)
            for bucket in self._buckets:
                bucket.tokens -= 1


class _Bucket:
    """One of its limits."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._rate = limit.capacity / limit.seconds
        self._seen = 0.0
        self.tokens = float(limit.capacity)

    def missing_at(self, now: float) -> float:
        """Seconds until there is a token; at least a microsecond, against what floats leave."""
        self.tokens = min(self._limit.capacity, self.tokens + (now - self._seen) * self._rate)
        self._seen = now
        return 0.0 if self.tokens >= 1 else max((1 - self.tokens) / self._rate, 1e-6)


CONTENDERS: dict[str, type[Limiter]] = {
    "do_images_async": Ours,
    "limits, moving window": MovingWindow,
    "aiolimiter": Aiolimiter,
    "textbook token bucket": RefillingBucket,
}


def contend(name: str, *, setting: Setting, keep: float) -> Outcome:
    """Run the contender of that name; see `simulate`."""
    return simulate(CONTENDERS[name], setting, keep=keep)
