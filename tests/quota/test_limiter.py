"""The limiter by example: exact moments, cost, and the documented quotas."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import sys
from types import FrameType
from typing import Any, Self

import attrs
import pytest

from do_images_async._quota import buckets, gate
from do_images_async._quota import limiter as ratelimit
from do_images_async._quota.buckets import DOCUMENTED, TokenBucket
from do_images_async._quota.limiter import RateLimiter
from do_images_async._quota.protocols import LimiterStats, Permit
from do_images_async.errors import QuotaWaitError
from tests.support.quota_models import Exchange, Limit, RefillingBucket, SlidingLogServer, most_in_a_window
from tests.support.virtual_time import SECOND, VirtualLoop, clock, let_run, run_virtually

MINUTE = Limit(250, 60 * SECOND)
HOUR = Limit(5000, 3600 * SECOND)


def limiter_of(*buckets: TokenBucket, grace: float = 120.0) -> RateLimiter:
    return RateLimiter(*buckets, grace=grace, clock=clock, slow_start=False)


def bucket(capacity: int, per: float = 60.0) -> TokenBucket:
    return TokenBucket(capacity, per=per, margin=0)


def seconds() -> float:
    """Return the time on the running loop's clock."""
    return asyncio.get_running_loop().time()


def virtual_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def pending_timers() -> list[asyncio.TimerHandle]:
    return virtual_loop().pending_timers()


async def waiting(
    limiter: RateLimiter, *, max_wait: float | None = None, reserve: int = 0
) -> asyncio.Task[Permit]:
    """Return a task that waits in the queue."""
    task = asyncio.create_task(limiter.acquire(max_wait=max_wait, reserve=reserve))
    await let_run()
    return task


async def when_granted(limiter: RateLimiter, *, reserve: int = 0) -> float:
    """Return when a caller that comes now is granted; its request is answered at once."""
    permit = await limiter.acquire(reserve=reserve)
    permit.settle()
    return seconds()


# TokenBucket


def test_the_margin_is_a_sixtieth_and_five_seconds_at_most() -> None:
    assert [documented.period for documented in DOCUMENTED] == [61, 3605]
    assert TokenBucket(1, per=6).period == pytest.approx(6.1)
    assert TokenBucket(1, per=6, margin=0).period == 6


def test_a_bucket_is_a_value() -> None:
    assert TokenBucket(2, per=1) == TokenBucket(2, per=1)
    assert len({TokenBucket(2, per=1), TokenBucket(2, per=1)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        TokenBucket(2, per=1).capacity = 3  # type: ignore[misc]


# RateLimiter: arguments, stats, repr


BAD_BUCKETS: list[dict[str, Any]] = [
    {"capacity": 0},
    {"capacity": True},
    {"capacity": 2.0},
    {"per": 0},
    {"per": math.inf},
    {"per": None},
    {"per": True},
    {"per": "60"},
    {"margin": -1},
    {"margin": math.nan},
    {"margin": True},
    {"margin": ""},
]
BAD_OPTIONS: list[dict[str, Any]] = [
    {"grace": -1},
    {"grace": math.inf},
    {"grace": math.nan},
    {"grace": None},
    {"grace": False},
    {"on_wait": 5},
    {"clock": None},
    {"clock": 5},
]


def fitting(value: object) -> type[Exception]:
    """Return the error for a value: numbers are out of range, all else is of the wrong type."""
    return ValueError if type(value) in {int, float} else TypeError


@pytest.mark.parametrize("bad", BAD_BUCKETS, ids=str)
def test_a_bucket_names_the_argument_that_it_can_not_use(bad: dict[str, Any]) -> None:
    ((name, value),) = bad.items()
    expected = TypeError if value == 2.0 else fitting(value)
    with pytest.raises(expected, match=f"^{name} must be "):
        TokenBucket(**({"capacity": 1, "per": 1} | bad))


@pytest.mark.parametrize("bad", BAD_OPTIONS, ids=str)
def test_a_limiter_names_the_argument_that_it_can_not_use(bad: dict[str, Any]) -> None:
    ((name, value),) = bad.items()
    expected = TypeError if name in {"on_wait", "clock"} else fitting(value)
    with pytest.raises(expected, match=f"^{name} must be "):
        RateLimiter(**bad)


@pytest.mark.parametrize("bad", [5, None, (1, 60), TokenBucket])
def test_a_limiter_takes_nothing_but_buckets(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^buckets must be "):
        RateLimiter(bad)


@pytest.mark.parametrize("bad", [-1, math.nan, math.inf, True, "1"])
async def test_a_wait_is_a_number_of_seconds(bad: Any) -> None:
    limiter = RateLimiter()
    with pytest.raises(fitting(bad), match=r"^max_wait must be "):
        await limiter.acquire(max_wait=bad)
    assert limiter.stats().granted == 0
    with pytest.raises(fitting(bad), match=r"^seconds must be "):
        limiter.close_for(bad)


def test_without_buckets_the_documented_quota_holds() -> None:
    assert RateLimiter().buckets == (TokenBucket(250, per=60), TokenBucket(5000, per=3600))


@pytest.mark.parametrize("reserve", [-1, 2, 3])
def test_a_reserve_leaves_room_for_a_call_in_every_bucket(reserve: int) -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(5), bucket(2))
        with pytest.raises(ValueError, match="reserve must be from 0 to 1"):
            await limiter.acquire(reserve=reserve)
        assert limiter.stats().granted == 0

    run_virtually(main())


@pytest.mark.parametrize("reserve", [True, 1.0, "1"])
def test_a_reserve_is_an_int(reserve: object) -> None:
    with pytest.raises(TypeError, match="reserve"):
        RateLimiter().check_reserve(reserve)  # type: ignore[arg-type]


def test_stats_and_repr_tell_the_moment() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(2), bucket(5, per=3600))
        assert repr(limiter) == "<RateLimiter 2/2 per 60 s, 5/5 per 3600 s; 0 in flight, 0 waiting>"
        first, second = await limiter.acquire(), await limiter.acquire()
        third = await waiting(limiter)
        assert limiter.stats() == LimiterStats(granted=2, in_flight=2, waiting=1, available=(0, 3))
        assert repr(limiter) == "<RateLimiter 0/2 per 60 s, 3/5 per 3600 s; 2 in flight, 1 waiting>"
        first.settle()
        second.release()
        (await third).lose()
        assert limiter.stats() == LimiterStats(granted=2, in_flight=0, waiting=0, available=(0, 3))
        await asyncio.sleep(60)
        assert limiter.stats().available == (1, 3)
        await asyncio.sleep(120)
        assert limiter.stats().available == (2, 3)

    run_virtually(main())


@pytest.mark.parametrize("first", ["settle", "release", "lose"])
def test_a_permit_is_reported_once(first: str) -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(2))
        permit = await limiter.acquire()
        getattr(permit, first)()
        before = limiter.stats()
        permit.settle()
        permit.release()
        permit.lose()
        assert limiter.stats() == before
        await asyncio.sleep(180)
        assert limiter.stats().available == (2,)

    run_virtually(main())


def test_next_permit_in_counts_those_in_line() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1))
        assert limiter.next_permit_in() == 0
        permit = await limiter.acquire()
        assert limiter.next_permit_in() == 60  # an answer now, at the earliest
        await asyncio.sleep(4)
        permit.settle()
        await asyncio.sleep(10)
        assert limiter.next_permit_in() == 50
        in_line = [asyncio.create_task(when_granted(limiter)) for _ in range(2)]
        await let_run()
        assert limiter.next_permit_in() == 50 + 2 * 60
        limiter.close_for(1000)
        assert limiter.next_permit_in() == 1000
        assert await asyncio.gather(*in_line) == [1014, 1074]

    run_virtually(main())


# Moments


def test_a_token_is_back_one_period_after_the_response_and_no_sooner() -> None:
    async def main() -> None:
        limiter = limiter_of(TokenBucket(1, per=60))
        permit = await limiter.acquire()
        await asyncio.sleep(7)
        permit.settle()
        assert await when_granted(limiter) == 7 + 61

    run_virtually(main())


def test_a_token_is_back_on_the_nanosecond() -> None:
    async def main() -> None:
        now = 0
        limiter = RateLimiter(bucket(1), bucket(1, per=0.1), clock=lambda: now)
        (await limiter.acquire()).settle()
        moments = {99_999_999: (0, 0), 100_000_000: (0, 1), 59_999_999_999: (0, 1), 60_000_000_000: (1, 1)}
        for now, available in moments.items():  # noqa: B007 (the clock reads it)
            assert limiter.stats().available == available

    run_virtually(main())


def test_a_closed_limiter_opens_on_the_nanosecond() -> None:
    async def main() -> None:
        now = 0
        limiter = RateLimiter(bucket(1), clock=lambda: now)
        limiter.close_for(1)
        now = 999_999_999
        with pytest.raises(QuotaWaitError):
            await limiter.acquire(max_wait=0)
        now += 1
        await limiter.acquire(max_wait=0)

    run_virtually(main())


def test_a_lost_response_costs_the_grace_too() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1), grace=30)
        (await limiter.acquire()).lose()
        assert await when_granted(limiter) == 90

    run_virtually(main())


def test_callers_with_the_same_reserve_are_served_in_order() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(3))
        for _ in range(3):
            (await limiter.acquire()).settle()
        served: list[int] = []

        async def caller(number: int) -> None:
            (await limiter.acquire()).settle()
            served.append(number)

        await asyncio.gather(*map(caller, range(20)))
        assert served == list(range(20))
        assert seconds() == 7 * 60

    run_virtually(main())


def test_a_newcomer_does_not_take_what_has_just_come_back_for_another() -> None:
    async def main() -> None:
        now = 0
        limiter = RateLimiter(bucket(1), clock=lambda: now)
        (await limiter.acquire()).settle()
        first = await waiting(limiter)
        now = 60 * SECOND  # the loop's timer has yet to fire
        newcomer = await waiting(limiter)
        assert first.done()
        assert not newcomer.done()
        newcomer.cancel()

    run_virtually(main())


def test_a_timer_that_fires_early_is_set_again() -> None:
    async def main() -> None:
        limiter = RateLimiter(bucket(1), clock=lambda: clock() * 9 // 10)
        (await limiter.acquire()).settle()
        await limiter.acquire()
        assert seconds() * 0.9 == pytest.approx(60, abs=1e-6)
        assert seconds() * 0.9 >= 60

    run_virtually(main())


@pytest.mark.parametrize("reserve", [1, 40])
def test_one_permit_in_eight_goes_to_calls_with_a_reserve_under_a_load_that_never_leaves_it(
    reserve: int,
) -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(50, per=6))
        granted = dict.fromkeys((0, reserve), 0)
        first: dict[int, float] = {}

        async def work(reserve: int) -> None:
            while seconds() < 120:
                permit = await limiter.acquire(reserve=reserve)
                first.setdefault(reserve, seconds())
                granted[reserve] += seconds() < 120
                await asyncio.sleep(0.1)
                permit.settle()

        await asyncio.gather(*(work(each) for each in (0, reserve) for _ in range(60)))
        total = sum(granted.values())
        assert total >= 50 * 19
        assert total / 10 <= granted[reserve] <= total / 7
        assert first[reserve] <= 12.2  # the first tokens that come back after a period of waiting

    run_virtually(main())


def test_the_call_that_was_starved_the_longest_is_served_first_whatever_it_leaves() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(4, per=6))
        order: list[int] = []
        running = [await limiter.acquire() for _ in range(4)]

        async def call(reserve: int) -> None:
            running.append(await limiter.acquire(reserve=reserve))
            order.append(reserve)

        async with asyncio.TaskGroup() as group:
            for reserve in (3, 1, 2, *[0] * 27):
                group.create_task(call(reserve))
                await asyncio.sleep(0.1)
            await asyncio.sleep(6)
            for _ in range(30):
                running.pop().release()
                await let_run()
        assert [order.index(reserve) for reserve in (3, 1, 2)] == [3, 11, 19]
        assert len(order) == 30

    run_virtually(main())


def test_a_call_with_a_reserve_is_not_refused_while_it_may_yet_be_served_as_a_starved_one() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(2, per=6))
        held = [await limiter.acquire() for _ in range(2)]
        for _ in range(5):
            held.pop().release()
            held.append(await limiter.acquire())
        starved = asyncio.create_task(limiter.acquire(reserve=1, max_wait=7))
        await let_run()
        others = [await waiting(limiter) for _ in range(2)]
        await asyncio.sleep(6.5)
        held.pop().release()
        await let_run()
        assert starved.done()
        assert not starved.exception()
        for other in others:
            other.cancel()

    run_virtually(main())


def test_a_caller_without_reserve_passes_those_that_must_leave_one() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(3))
        permits = [await limiter.acquire() for _ in range(3)]
        bulk = [await waiting(limiter, reserve=reserve) for reserve in (2, 1)]
        interactive = await waiting(limiter)
        permits[0].release()
        await let_run()
        assert interactive.done()
        permits[1].release()
        await let_run()
        assert not any(task.done() for task in bulk)
        permits[2].release()
        await let_run()
        assert [task.done() for task in bulk] == [False, True]
        assert limiter.stats().available == (1,)
        interactive.result().release()
        bulk[1].result().release()
        await bulk[0]
        assert limiter.stats().available == (2,)

    run_virtually(main())


def test_a_free_token_is_for_the_newcomer_that_need_not_leave_it() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(2))
        await limiter.acquire()
        bulk = await waiting(limiter, reserve=1)
        permit = await limiter.acquire(max_wait=0)
        assert not bulk.done()
        permit.release()
        bulk.cancel()

    run_virtually(main())


# Cancellation


def test_a_waiter_cancelled_in_the_turn_of_its_grant_hands_the_token_on() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1))
        permit = await limiter.acquire()
        first, second = await waiting(limiter), await waiting(limiter)
        permit.release()
        first.cancel()
        await let_run()
        assert first.cancelled()
        assert second.done()
        assert limiter.stats() == LimiterStats(granted=1, in_flight=1, waiting=0, available=(0,))

    run_virtually(main())


def test_a_waiter_cancelled_before_the_grant_is_passed_over() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1))
        permit = await limiter.acquire()
        first, second = await waiting(limiter), await waiting(limiter)
        first.cancel()
        permit.release()
        await let_run()
        assert first.cancelled()
        assert second.done()

    run_virtually(main())


def test_cancelled_waiters_leave_neither_place_nor_timer() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1))
        (await limiter.acquire()).settle()
        waiters = [await waiting(limiter, reserve=0, max_wait=None) for _ in range(5)]
        assert len(pending_timers()) == 1
        for waiter in waiters:
            waiter.cancel()
        await let_run()
        assert limiter.stats().waiting == 0
        assert not pending_timers()
        assert limiter.next_permit_in() == 60

    run_virtually(main())


def test_a_callers_own_timeout_stays_a_timeout() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1))
        await limiter.acquire()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await limiter.acquire(max_wait=200)
        assert seconds() == 5
        assert limiter.stats().waiting == 0

    run_virtually(main())


# max_wait


def test_a_wait_known_to_be_longer_raises_at_once() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1))
        (await limiter.acquire()).settle()
        with pytest.raises(QuotaWaitError) as caught:
            await limiter.acquire(max_wait=59.5)
        assert seconds() == 0
        assert (caught.value.wait, caught.value.max_wait) == (60, 59.5)
        assert limiter.stats() == LimiterStats(granted=1, in_flight=0, waiting=0, available=(0,))
        assert not pending_timers()

    run_virtually(main())


def test_a_wait_that_just_fits_is_waited_for() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1))
        (await limiter.acquire()).settle()
        await limiter.acquire(max_wait=60.5)
        assert seconds() == 60

    run_virtually(main())


def test_a_wait_that_grows_too_long_raises_at_max_wait() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1))
        permit = await limiter.acquire()
        late = await waiting(limiter, max_wait=70)
        await asyncio.sleep(20)
        permit.settle()
        with pytest.raises(QuotaWaitError) as caught:
            await late
        assert seconds() == 70
        assert (caught.value.wait, caught.value.max_wait) == (80, 70)
        assert str(caught.value) == "the quota would make the call wait 80.0 s; max_wait is 70 s"
        assert limiter.stats() == LimiterStats(granted=1, in_flight=0, waiting=0, available=(0,))
        assert not pending_timers()

    run_virtually(main())


def test_a_token_costs_nothing_but_the_wait_when_max_wait_is_zero() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1))
        permit = await limiter.acquire(max_wait=0)
        with pytest.raises(QuotaWaitError):
            await limiter.acquire(max_wait=0)
        permit.release()
        await limiter.acquire(max_wait=0)
        assert seconds() == 0

    run_virtually(main())


# close_for


def test_a_closed_limiter_grants_nothing_and_then_serves_all() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(3))
        limiter.close_for(10)
        limiter.close_for(5)  # a shorter word doesn't open it
        with pytest.raises(QuotaWaitError):
            await limiter.acquire(max_wait=9)
        callers = [asyncio.create_task(when_granted(limiter)) for _ in range(5)]
        await asyncio.sleep(4)
        limiter.close_for(20)
        assert len(pending_timers()) == 1
        assert await asyncio.gather(*callers) == [24, 24, 24, 84, 84]

    run_virtually(main())


# What it costs


def test_one_timer_serves_any_number_of_waiters() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(3), bucket(10, per=100))
        callers = [asyncio.create_task(when_granted(limiter, reserve=number % 3)) for number in range(30)]
        while limiter.stats().waiting:
            assert len(pending_timers()) == 1
            assert len(asyncio.all_tasks()) == 1 + limiter.stats().waiting
            await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
            callers = [caller for caller in callers if not caller.done()]
        assert not pending_timers()

    run_virtually(main())


def test_the_timer_is_not_set_anew_for_those_that_come_and_go() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1))
        (await limiter.acquire()).settle()
        before = virtual_loop().timers_set
        waiters = [await waiting(limiter) for _ in range(100)]
        for waiter in waiters[50:]:
            waiter.cancel()
        await let_run()
        assert limiter.stats().waiting == 50
        assert virtual_loop().timers_set == before + 1
        for waiter in waiters:
            waiter.cancel()

    run_virtually(main())


def test_nobody_is_woken_while_only_a_response_can_help() -> None:
    async def main() -> None:
        limiter = limiter_of(bucket(1))
        permit = await limiter.acquire()
        waiter = await waiting(limiter)
        assert not pending_timers()
        permit.settle()
        assert len(pending_timers()) == 1
        await waiter
        assert not pending_timers()

    run_virtually(main())


class Work:
    """A count of the calls in and from the limiter's own code: a cost that no machine changes."""

    FILES = frozenset({ratelimit.__file__, buckets.__file__, gate.__file__, heapq.__file__})

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event in {"call", "c_call"} and frame.f_code.co_filename in self.FILES:
            self.calls += 1

    def __enter__(self) -> Self:
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


async def work_for_a_hundred(waiters: int) -> tuple[int, int, int]:
    """Return the function calls it takes to queue, serve and cancel a hundred callers while so many wait."""
    waits: list[float] = []
    limiter = RateLimiter(
        bucket(100), bucket(5000, per=3600), on_wait=waits.append, clock=clock, slow_start=False
    )
    permits = [await limiter.acquire() for _ in range(100)]
    crowd = [asyncio.create_task(limiter.acquire()) for _ in range(waiters)]
    await let_run()
    with Work() as queueing:
        late = [asyncio.create_task(limiter.acquire()) for _ in range(100)]
        await let_run()
    with Work() as serving:
        for permit in permits:
            permit.settle()
        await asyncio.sleep(60)
        await let_run()
    assert sum(task.done() for task in crowd) == 100
    with Work() as cancelling:
        for task in late:
            task.cancel()
        await let_run()
    assert limiter.stats().waiting == waiters - 100
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert limiter.stats().waiting == 0
    return queueing.calls, serving.calls, cancelling.calls


@pytest.mark.slow
def test_twenty_thousand_waiters_cost_no_more_each_than_two_hundred() -> None:
    few = run_virtually(work_for_a_hundred(200))
    many = run_virtually(work_for_a_hundred(20_000))
    assert many == few
    assert max(few) < 100 * 60


# The documented quotas


def seconds_at_best(requests: int) -> int:
    """Return the least time for so many: 250 each minute, and a pause when the hour's 5,000 are spent."""
    hours, rest = divmod(requests - 1, HOUR.capacity)
    return hours * 3600 + rest // MINUTE.capacity * 60


@pytest.mark.slow
def test_twelve_thousand_requests_are_never_rejected_and_within_three_percent_of_the_optimum() -> None:
    requests = 12_000

    async def main() -> tuple[SlidingLogServer, float]:
        limiter = RateLimiter(clock=clock)
        server = SlidingLogServer([MINUTE, HOUR])
        network = random.Random(1)

        async def request() -> None:
            permit = await limiter.acquire()
            await asyncio.sleep(network.expovariate(1 / 0.1))
            server.arrive(clock())
            await asyncio.sleep(network.expovariate(1 / 0.2))
            permit.settle()

        async with asyncio.TaskGroup() as group:
            for _ in range(requests):
                group.create_task(request())
        return server, seconds()

    server, took = run_virtually(main())
    assert (server.accepted, server.rejected) == (requests, 0)
    assert seconds_at_best(requests) == 7620  # 2.12 hours
    assert 7620 <= took <= 7620 * 1.03


def test_the_textbooks_bucket_lets_twice_the_quota_through_in_its_first_minute() -> None:
    async def main() -> tuple[SlidingLogServer, list[Exchange]]:
        limiter = RefillingBucket([MINUTE])
        server = SlidingLogServer([MINUTE])
        log: list[Exchange] = []
        while seconds() < 60:
            await limiter.acquire()
            server.arrive(clock())
            log.append(Exchange(clock(), clock()))
        return server, log

    server, log = run_virtually(main())
    assert most_in_a_window(log, MINUTE.period) >= 499
    assert server.rejected >= 249
