"""A memory that is empty starts slowly, in Redis and in a file: nobody knows what was spent before.

Time is virtual; see `test_redis_restored` for a server that forgets.
"""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing

import attrs
import pytest

from do_images_async import TokenBucket
from do_images_async._quota.protocols import Report
from do_images_async._quota.worker import Worker, WorkerOptions
from do_images_async.errors import QuotaWaitError
from tests.redis.test_redis_loss_laws import RedisCopy, Slow, now, virtual_clock
from tests.support.redis_servers import RedisServer, needs_redis, redis_server, shared_redis
from tests.support.virtual_file import VirtualFile
from tests.support.virtual_time import run_virtually

__all__ = ["redis_server", "shared_redis", "virtual_clock"]  # fixtures

pytestmark = needs_redis

OPTIONS = WorkerOptions(buckets=(TokenBucket(1000, per=60), TokenBucket(5000, per=3600)))
TRIP = 1.0
"""Seconds from a request to its response."""

Make = Callable[..., Worker]
Run = Callable[[Callable[[Make], Coroutine[None, None, None]]], None]


@pytest.fixture(params=[RedisCopy, VirtualFile])
def run(request: pytest.FixtureRequest, redis_server: RedisServer) -> Run:
    """Return a function that runs a test in virtual time, with a factory of workers of one empty store."""

    @asynccontextmanager
    async def makers() -> AsyncGenerator[Make]:
        async with AsyncExitStack() as stack:
            client = stack.enter_context(redis_server.client())
            store = RedisCopy(client) if request.param is RedisCopy else VirtualFile(OPTIONS.buckets, now)
            slow = Slow(stack.enter_context(closing(store)))

            def make(*, slow_start: bool = True) -> Worker:
                worker = Worker(slow, attrs.evolve(OPTIONS, slow_start=slow_start))
                stack.push_async_exit(aclosing(worker))
                return worker

            yield make

    def run(test: Callable[[Make], Coroutine[None, None, None]]) -> None:
        async def main() -> None:
            async with makers() as make:
                await test(make)

        run_virtually(main(), turn=1000)

    return run


def seconds() -> float:
    return asyncio.get_running_loop().time()


async def call(worker: Worker, report: Report | None = None) -> float:
    """Make a request, and return when it went."""
    permit = await worker.acquire()
    granted = seconds()
    await asyncio.sleep(TRIP)
    permit.settle(report)
    return granted


async def grants(*calls: Coroutine[None, None, float]) -> list[int]:
    """Return how many of some calls went in each round trip."""
    moments = sorted(await asyncio.gather(*calls))
    rounds = [0]
    for before, after in itertools.pairwise([moments[0], *moments]):
        if after - before > TRIP / 2:
            rounds.append(0)
        rounds[-1] += 1
    return rounds


def test_one_request_goes_first_and_eight_round_trips_later_any_number_may_go(run: Run) -> None:
    async def test(make: Make) -> None:
        worker = make()
        rounds = await grants(*(call(worker) for _ in range(900)))
        assert rounds == [1, 2, 4, 8, 16, 32, 64, 128, 256, 900 - 511]

    run(test)


def test_a_slow_start_is_that_of_all_workers_together(run: Run) -> None:
    async def test(make: Make) -> None:
        rounds = await grants(*(call(each) for each in [make() for _ in range(4)] for _ in range(10)))
        assert rounds[:2] == [1, 2]
        assert sum(rounds[:4]) <= 1 + 2 + 4 + 8

    run(test)


def test_a_refusal_in_a_slow_start_holds_back_the_others(run: Run) -> None:
    async def test(make: Make) -> None:
        worker = make()
        first = asyncio.create_task(call(worker, Report(refused=True, retry_after=20.0)))
        rest = await asyncio.gather(*(call(worker) for _ in range(5)))
        assert min(rest) >= await first + TRIP + 20

    run(test)


def test_who_takes_several_permits_before_a_response_does_not_wait_for_ever(run: Run) -> None:
    async def test(make: Make) -> None:
        worker = make()
        for _ in range(3):
            await worker.acquire()
        assert 4 <= seconds() < 5

    run(test)


def test_a_worker_that_dies_in_a_slow_start_holds_up_the_others_for_two_seconds(run: Run) -> None:
    async def test(make: Make) -> None:
        dead, alive = make(), make()
        await dead.acquire()
        vars(dead)["_pump"].cancel()
        rounds = await grants(*(call(alive) for _ in range(30)))
        assert rounds[0] == 1
        assert rounds[:5] == [1, 1, 2, 4, 8]
        assert seconds() < OPTIONS.lease

    run(test)


@pytest.mark.parametrize("max_wait", [0, 0.1])
def test_calls_that_can_not_wait_for_a_response_end_it(run: Run, max_wait: float) -> None:
    async def test(make: Make) -> None:
        await make().acquire()
        other = make()
        await asyncio.gather(*(other.acquire(max_wait=max_wait) for _ in range(50)))
        assert seconds() < 1

    run(test)


@pytest.mark.parametrize("max_wait", [0, 0.1, 0.2, 0.3, 0.5, 1, 2, 8])
def test_it_refuses_no_call_whatever_its_max_wait(run: Run, max_wait: float) -> None:
    async def test(make: Make) -> None:
        counted = 0

        async def call() -> None:
            nonlocal counted
            permit = await worker.acquire(max_wait=max_wait)
            counted += 1
            report = Report(remaining=5000 - counted, counted=counted, reset_in=3600.0)
            await asyncio.sleep(TRIP)
            permit.settle(report)

        worker = make()
        for number in (600, 300):  # more than half of what is left
            await asyncio.gather(*(call() for _ in range(number)))

    run(test)


def test_a_call_behind_others_is_let_go_in_its_turn(run: Run) -> None:
    async def test(make: Make) -> None:
        worker = make()
        await worker.acquire()
        first = asyncio.create_task(worker.acquire())
        await asyncio.sleep(0)
        await worker.acquire(max_wait=0.6)
        assert seconds() < 1.5
        await first

    run(test)


@pytest.mark.parametrize("max_wait", [0, 0.5, 1.5, 3])
def test_a_refused_call_would_have_waited_longer_than_it_says(run: Run, max_wait: float) -> None:
    """Only a response can tell, to the one request that may go after a refusal."""

    async def test(make: Make) -> None:
        worker = make()
        await call(worker, Report(refused=True, retry_after=1.0))
        await worker.acquire()
        begin = seconds()
        with pytest.raises(QuotaWaitError) as caught:
            await worker.acquire(max_wait=max_wait)
        assert caught.value.wait > max_wait
        assert seconds() >= begin + max_wait

    run(test)


@pytest.mark.parametrize("max_wait", [0, 0.5, 1])
def test_a_request_without_a_response_holds_the_next_one_for_a_known_time(run: Run, max_wait: float) -> None:
    async def test(make: Make) -> None:
        worker = make(slow_start=False)
        await call(worker, Report(remaining=3, counted=4997, reset_in=3000.0))
        (await worker.acquire()).lose()
        lost = seconds()
        with pytest.raises(QuotaWaitError) as caught:
            await worker.acquire(max_wait=max_wait)
        assert 1 < caught.value.wait <= 2
        assert seconds() < lost + 0.5, "at once"
        assert 1 < worker.next_permit_in() <= 2
        (await worker.acquire(max_wait=2)).release()

    run(test)


def test_calls_that_can_wait_longer_do_not_end_it(run: Run) -> None:
    async def test(make: Make) -> None:
        worker = make()
        await asyncio.gather(*(worker.acquire(max_wait=20) for _ in range(3)))
        assert seconds() >= 4

    run(test)


def test_a_worker_may_go_without(run: Run) -> None:
    async def test(make: Make) -> None:
        assert await grants(*(call(each) for each in [make(slow_start=False)] for _ in range(50))) == [50]

    run(test)


def test_a_memory_that_knows_what_was_spent_needs_none(run: Run) -> None:
    async def test(make: Make) -> None:
        await call(make(slow_start=False))
        await asyncio.sleep(600)
        assert await grants(*(call(each) for each in [make()] for _ in range(50))) == [50]

    run(test)
