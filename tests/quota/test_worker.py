"""The worker's side of a shared quota, over a file on the virtual clock of its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing

import pytest

from do_images_async import TokenBucket
from do_images_async._quota.store import Exchange, Reply
from do_images_async._quota.worker import Worker, WorkerOptions
from tests.support.limiters import keep_calling
from tests.support.slow import fewer
from tests.support.virtual_file import VirtualFile
from tests.support.virtual_time import clock, run_virtually

BUCKETS = (TokenBucket(50, per=6, margin=0),)
RESERVE: int = 40


class FileStore:
    """The store of all workers: a file whose time is the loop's."""

    def __init__(self) -> None:
        self._file = VirtualFile(BUCKETS, lambda: 1_000_000_000 + clock() // 1000)

    async def exchange(self, exchange: Exchange) -> Reply:
        await asyncio.sleep(0.001)
        return self._file.exchange(exchange)

    async def aclose(self) -> None:
        self._file.close()


def count_grants(reserves: Sequence[Sequence[int]]) -> dict[int, int]:
    """Return how many permits calls with each reserve get in two minutes.

    Args:
        reserves: for each worker, the reserves of its calls; 60 calls with each.
    """
    granted: dict[int, int] = dict.fromkeys((0, RESERVE), 0)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(aclosing(FileStore()))
            options = WorkerOptions(buckets=BUCKETS)
            members = [await stack.enter_async_context(aclosing(Worker(store, options))) for _ in reserves]
            calls = [
                (member, reserve)
                for member, each in zip(members, reserves, strict=True)
                for reserve in each
                for _ in range(60)
            ]
            tasks = [
                asyncio.create_task(keep_calling(worker.acquire, reserve, granted))
                for worker, reserve in calls
            ]
            await asyncio.sleep(120)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    run_virtually(main(), turn=1000)
    return granted


@pytest.mark.parametrize(
    "reserves",
    fewer(
        [
            [(0, RESERVE), (0,), (0,)],
            [(RESERVE,), (0,)],
            [(RESERVE,), *[(0,)] * 3],
            [(RESERVE,), (RESERVE,), (0,)],
            *([(0, RESERVE)] * workers for workers in (1, 2, 4)),
        ],
    ),
)
def test_one_permit_in_eight_goes_to_calls_with_a_reserve_under_a_load_that_never_leaves_it(
    reserves: Sequence[Sequence[int]],
) -> None:
    granted = count_grants(reserves)
    total = sum(granted.values())
    assert total >= 50 * 18
    assert total / 10 <= granted[RESERVE] <= total / 7, (total, granted)


def test_a_reserve_is_kept_while_no_call_without_one_is_there() -> None:
    async def main() -> None:
        lowest = BUCKETS[0].capacity
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(aclosing(FileStore()))
            worker = await stack.enter_async_context(aclosing(Worker(store, WorkerOptions(buckets=BUCKETS))))

            async def work() -> None:
                nonlocal lowest
                while True:
                    permit = await worker.acquire(reserve=RESERVE)
                    lowest = min(lowest, *worker.stats().available)
                    await asyncio.sleep(0.1)
                    permit.settle()

            tasks = [asyncio.create_task(work()) for _ in range(60)]
            await asyncio.sleep(120)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert lowest >= RESERVE - 1

    run_virtually(main(), turn=1000)
