"""Deadlines that share one timer, in virtual time where time is long."""

from __future__ import annotations

import asyncio
import math

import pytest

from do_images_async._http.deadlines import Deadlines
from tests.support.virtual_time import VirtualLoop, run_virtually


async def limited(deadlines: Deadlines, seconds: float | None, work: float) -> float:
    """Sleep under a deadline; return the time at which it ended."""
    with deadlines.new() as deadline:
        if seconds is not None:
            deadline.start(seconds)
        await asyncio.sleep(work)
    return asyncio.get_running_loop().time()


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def test_a_deadline_ends_a_block_that_takes_too_long() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await limited(Deadlines(), 30.0, 60.0)
        assert virtual_loop().time() == pytest.approx(30.0)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # there is one

    run_virtually(main())


def test_a_block_that_ends_in_time_is_not_interrupted() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        assert await limited(deadlines, 30.0, 29.0) == pytest.approx(29.0)
        assert not len(deadlines)
        await asyncio.sleep(60.0)

    run_virtually(main())


def test_each_of_many_deadlines_expires_at_its_own_time() -> None:
    async def ended(deadlines: Deadlines, seconds: float) -> float:
        try:
            return await limited(deadlines, seconds, 1000.0)
        except TimeoutError:
            return virtual_loop().time()

    async def main() -> None:
        deadlines = Deadlines()
        limits = [30.0, 5.0, 40.0, 5.0, 1.0]
        ends = await asyncio.gather(*(ended(deadlines, seconds) for seconds in limits))
        assert ends == pytest.approx(limits)

    run_virtually(main())


def test_a_thousand_deadlines_in_a_row_set_one_timer() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        for _ in range(1000):
            with deadlines.new() as deadline:
                deadline.start(30.0)
        assert virtual_loop().timers_set == 1

    run_virtually(main())


def test_without_deadlines_no_timer_is_set_again() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        await limited(deadlines, 30.0, 1.0)
        await asyncio.sleep(31.0)
        assert not virtual_loop().pending_timers()

    run_virtually(main())


def test_an_earlier_deadline_moves_the_timer_forward() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        far = asyncio.create_task(limited(deadlines, 30.0, 1000.0))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await limited(deadlines, 2.0, 1000.0)
        assert virtual_loop().time() == pytest.approx(2.0)
        with pytest.raises(TimeoutError):
            await far
        assert virtual_loop().time() == pytest.approx(30.0)

    run_virtually(main())


def test_a_deadline_that_is_not_started_never_expires() -> None:
    async def main() -> None:
        assert await limited(Deadlines(), None, 10_000.0) == pytest.approx(10_000.0)
        assert not virtual_loop().pending_timers()

    run_virtually(main())


def test_only_the_first_start_counts() -> None:
    async def started_twice(deadlines: Deadlines) -> None:
        with deadlines.new() as deadline:
            deadline.start(3.0)
            deadline.start(300.0)
            await asyncio.sleep(1000.0)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await started_twice(Deadlines())
        assert virtual_loop().time() == pytest.approx(3.0)

    run_virtually(main())


async def test_all_deadlines_can_be_expired_at_once() -> None:
    deadlines = Deadlines()
    tasks = [asyncio.create_task(limited(deadlines, 30.0, 1000.0)) for _ in range(3)]
    tasks.append(asyncio.create_task(limited(deadlines, None, 1000.0)))
    await asyncio.sleep(0)
    assert len(deadlines) == 4
    deadlines.expire()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in results] == [TimeoutError] * 4


@pytest.mark.parametrize("expired_first", [True, False])
async def test_a_cancellation_by_another_task_stays_a_cancellation(*, expired_first: bool) -> None:
    deadlines = Deadlines()
    task = asyncio.create_task(limited(deadlines, 30.0, 1000.0))
    await asyncio.sleep(0)
    if expired_first:
        deadlines.expire()
    task.cancel()
    deadlines.expire()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_another_exception_is_not_hidden_by_the_deadline() -> None:
    async def fail() -> None:
        with deadlines.new():
            try:
                await asyncio.sleep(1000.0)
            except asyncio.CancelledError:
                raise LookupError("while it was interrupted") from None

    deadlines = Deadlines()
    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    deadlines.expire()
    with pytest.raises(LookupError):
        await task
    assert task.cancelling() == 0


def test_a_deadline_needs_a_task() -> None:
    deadline = Deadlines().new()
    with pytest.raises(RuntimeError, match="no running event loop"), deadline:
        pass
    assert deadline.when == math.inf
