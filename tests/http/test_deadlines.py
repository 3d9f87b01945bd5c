"""Time limits that share one timer, in virtual time where time is long."""

from __future__ import annotations

import asyncio
import math

import pytest

from do_images_async._http.deadlines import Deadlines
from tests.support.virtual_time import VirtualLoop, run_virtually


async def limited(deadlines: Deadlines, seconds: float | None, work: float) -> float:
    """Sleep under a limit; returns when it ended."""
    with deadlines.new() as deadline:
        if seconds is not None:
            deadline.start(seconds)
        await asyncio.sleep(work)
    return asyncio.get_running_loop().time()


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def test_a_limit_ends_what_takes_too_long_at_its_moment() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await limited(Deadlines(), 30.0, 60.0)
        assert virtual_loop().time() == pytest.approx(30.0)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]  # there is one

    run_virtually(main())


def test_what_is_done_in_time_is_left_alone() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        assert await limited(deadlines, 30.0, 29.0) == pytest.approx(29.0)
        assert not len(deadlines)
        await asyncio.sleep(60.0)

    run_virtually(main())


def test_each_of_many_ends_at_its_own_moment() -> None:
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


def test_a_thousand_limits_one_after_the_other_set_one_timer() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        for _ in range(1000):
            with deadlines.new() as deadline:
                deadline.start(30.0)
        assert virtual_loop().timers_set == 1

    run_virtually(main())


def test_a_timer_that_finds_nothing_to_limit_is_the_last() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        await limited(deadlines, 30.0, 1.0)
        await asyncio.sleep(31.0)
        assert not virtual_loop().pending_timers()

    run_virtually(main())


def test_a_nearer_limit_moves_the_timer_forward() -> None:
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


def test_without_a_start_there_is_no_limit() -> None:
    async def main() -> None:
        assert await limited(Deadlines(), None, 10_000.0) == pytest.approx(10_000.0)
        assert not virtual_loop().pending_timers()

    run_virtually(main())


def test_the_first_start_counts() -> None:
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


async def test_all_can_be_ended_at_once() -> None:
    deadlines = Deadlines()
    tasks = [asyncio.create_task(limited(deadlines, 30.0, 1000.0)) for _ in range(3)]
    tasks.append(asyncio.create_task(limited(deadlines, None, 1000.0)))
    await asyncio.sleep(0)
    assert len(deadlines) == 4
    deadlines.expire()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in results] == [TimeoutError] * 4


@pytest.mark.parametrize("expired_first", [True, False])
async def test_a_cancellation_by_somebody_else_stays_one(*, expired_first: bool) -> None:
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


async def test_another_failure_is_not_hidden_by_the_limit() -> None:
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


def test_a_limit_is_for_a_task() -> None:
    deadline = Deadlines().new()
    with pytest.raises(RuntimeError, match="no running event loop"), deadline:
        pass
    assert deadline.when == math.inf
