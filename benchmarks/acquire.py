"""CPU of a permit: without a wait, and behind a queue of up to 10,000."""

from __future__ import annotations

import asyncio

from benchmarks.alternatives import ample_limiter
from benchmarks.measure import Result, Sample, Work, at_most, compare, ratio
from do_images_async import RateLimiter, TokenBucket
from do_images_async._quota.protocols import Permit

__all__ = ["run"]

FREE = "acquire, free"
SHORT = "acquire, 100 in the queue"
LONG = "acquire, 10,000 in the queue"
LONGEST = 10_000


class Free:
    """Permits that nobody has to wait for; what is given back is no part of the measure."""

    def __init__(self) -> None:
        self._permits: list[Permit] = []
        self._limiter = ample_limiter()

    async def __call__(self, calls: int) -> None:
        acquire, keep = self._limiter.acquire, self._permits.append
        for _ in range(calls):
            keep(await acquire())

    def give_back(self) -> None:
        for permit in self._permits:
            permit.release()
        self._permits.clear()


async def queue_of(waiters: int) -> None:
    """Let so many tasks wait at once, and grant them all, one for each token that comes back."""
    limiter = RateLimiter(TokenBucket(waiters, per=60), slow_start=False)
    held = [await limiter.acquire() for _ in range(waiters)]

    async def waiter() -> None:
        await limiter.acquire()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(waiters):
            tasks.create_task(waiter())
        await asyncio.sleep(0)
        assert limiter.stats().waiting == waiters
        for permit in held:
            permit.release()


def queues_of(waiters: int) -> Work:
    async def work(calls: int) -> None:
        for _ in range(calls // waiters):
            await queue_of(waiters)

    return work


def measure() -> dict[str, Sample]:
    free = Free()

    async def freely(calls: int) -> None:
        await free(calls)

    subjects: dict[str, Work] = {FREE: freely, SHORT: queues_of(100), LONG: queues_of(LONGEST)}
    return asyncio.run(compare(subjects, calls=LONGEST, rounds=11, between=free.give_back))


def run() -> Result:
    samples = measure()
    return Result(
        unit="µs",
        samples=samples,
        checks=(
            # This is no ratio, so a busy machine distorts it: take the best round.
            at_most("acquire without a wait, in µs, in the best round", min(samples[FREE].rounds), 2.0),
            at_most(
                "a waiter among 10,000, against one among 100", ratio(samples[LONG], samples[SHORT]), 2.0
            ),
        ),
        notes=("with a queue: the task, its future and its timeout included",),
    )
