"""CPU of one call of the limiter that has to wait, by the number of waiting calls."""

from __future__ import annotations

import asyncio

from benchmarks.measure import Result, Sample, at_most, compare, ratio
from do_images_async import RateLimiter, TokenBucket

CALLS = 1000


class Crowd:
    """A number of callers that wait for a limiter whose clock is moved by hand."""

    def __init__(self) -> None:
        self._now = 0
        self._waits = 0
        self._limiter = RateLimiter(
            TokenBucket(CALLS, per=60), clock=lambda: self._now, on_wait=self._note_wait
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def gather(self, waiters: int) -> None:
        for _ in range(CALLS):
            (await self._limiter.acquire()).settle()
        await self._come(waiters)

    async def work(self, calls: int) -> None:
        """Add so many callers, and serve as many: the first in the queue."""
        await self._come(calls)
        self._now += 61_000_000_000
        self._limiter.close_for(0)
        await asyncio.sleep(0)

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _come(self, callers: int) -> None:
        for _ in range(callers):
            task = asyncio.create_task(self._call())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.sleep(0)

    async def _call(self) -> None:
        (await self._limiter.acquire(max_wait=1e9)).settle()

    def _note_wait(self, _: float) -> None:
        self._waits += 1


async def measure(rounds: int) -> dict[str, Sample]:
    few, many = Crowd(), Crowd()
    await few.gather(1_000)
    await many.gather(100_000)
    samples = await compare({"1,000 wait": few.work, "100,000 wait": many.work}, calls=CALLS, rounds=rounds)
    await few.leave()
    await many.leave()
    return samples


def run(rounds: int = 15) -> Result:
    samples = asyncio.run(measure(rounds))
    few, many = samples.values()
    check = at_most("a wait behind 100,000, against one behind 1,000", ratio(many, few), 2.0)
    return Result(unit="µs", samples=samples, checks=(check,))
