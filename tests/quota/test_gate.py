"""The limiter's reaction to the quota that the server reports: laws, exact moments, and a noisy neighbour."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import pairwise

import aiohttp
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from do_images_async import ImagesAPI
from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.limiter import RateLimiter
from do_images_async._quota.protocols import Permit, Report
from do_images_async.errors import QuotaWaitError, RateLimitError
from do_images_async.testing import ImagesEmulator, Quota
from tests.conftest import ONCE
from tests.support.counting import MODELS, Tally, run_against
from tests.support.limiters import is_spent
from tests.support.neighbours import (
    Pauses,
    SharedServer,
    neighbours_bursts,
    neighbours_calls,
    neighbours_even_calls,
)
from tests.support.simulation import HOUR, MINUTE, Limit, Server
from tests.support.slow import RUN_SLOW, examples, fewer
from tests.support.virtual_time import SECOND, clock, let_run, run_virtually

law = settings(derandomize=True, deadline=None, database=None, max_examples=examples(120))

PLENTY = TokenBucket(1000, per=60, margin=0)


def limiter_of(*buckets: TokenBucket) -> RateLimiter:
    return RateLimiter(*(buckets or (PLENTY,)), clock=clock, slow_start=False)


def seconds() -> float:
    return asyncio.get_running_loop().time()


async def take(limiter: RateLimiter, number: int) -> list[Permit]:
    return [await limiter.acquire(max_wait=0) for _ in range(number)]


def refused(retry_after: float | None = None, reset_in: float | None = None) -> Report:
    """Return the report of a 429, for a burst or for the hour."""
    remaining = None if retry_after is None else 500
    return Report(remaining=remaining, refused=True, retry_after=retry_after, reset_in=reset_in)


# The last word.


@attrs.define
class LastWord:
    """The requests allowed by the newest-sent request that was answered, counted anew at every step."""

    flying: dict[int, int] = attrs.field(factory=dict[int, int])
    """Serial of each request in flight: how many of those before it were over when it went."""
    serial: int = 0
    over: int = 0
    heard_of: int = 0
    most: int | None = None
    probe_at: int = 0

    def may_send(self, now: int) -> bool:
        if self.most is None or self.serial < self.most:
            return True
        return not self.flying and now >= self.probe_at

    def send(self) -> None:
        self.serial += 1
        self.flying[self.serial] = self.over

    def answer(self, serial: int, remaining: int, now: int, reset_in: int) -> None:
        over = self.flying.pop(serial)
        self.over += 1
        if serial < self.heard_of:
            return
        # It was counted with those that were over when it went. All others may come on top.
        self.heard_of, self.most = serial, over + 1 + remaining
        self.probe_at = now + (reset_in + 1) * SECOND


@law
@given(
    st.lists(
        st.one_of(
            st.just(("send", 0, 0)),
            st.just(("send", 0, 0)),
            st.tuples(st.just("answer"), st.integers(0, 20), st.integers(0, 6)),
            st.tuples(st.just("wait"), st.integers(1, 8), st.just(0)),
        ),
        max_size=50,
    )
)
def test_it_grants_by_the_last_word_however_the_answers_are_ordered(
    moves: list[tuple[str, int, int]],
) -> None:
    async def main() -> None:
        now = 0
        limiter = RateLimiter(PLENTY, clock=lambda: now, slow_start=False)
        word = LastWord()
        permits: dict[int, Permit] = {}
        for move, amount, remaining in moves:
            if move == "wait":
                now += amount * SECOND
            elif move == "answer" and permits:
                serial = sorted(permits)[amount % len(permits)]
                permits.pop(serial).settle(Report(remaining=remaining, reset_in=5.0))
                word.answer(serial, remaining, now, reset_in=5)
            elif move == "send":
                may = word.may_send(now)
                try:
                    permit = await limiter.acquire(max_wait=0)
                except QuotaWaitError:
                    assert not may
                else:
                    assert may
                    word.send()
                    permits[word.serial] = permit

    run_virtually(main())


def test_an_answer_to_an_older_request_changes_nothing() -> None:
    async def main() -> None:
        limiter = limiter_of()
        old, new = await take(limiter, 2)
        new.settle(Report(remaining=3, reset_in=50))
        old.settle(Report(remaining=900, reset_in=50))
        assert len(await take(limiter, 2)) == 2  # the older one may not be in the three
        assert await is_spent(limiter)

    run_virtually(main())


def test_a_limiter_that_starts_anew_heeds_what_was_spent_before() -> None:
    async def main() -> None:
        limiter = limiter_of()
        (first,) = await take(limiter, 1)
        first.settle(Report(remaining=0, counted=1000, reset_in=30))
        probe = asyncio.create_task(limiter.acquire())
        late = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(30.5)
        assert not probe.done()
        await asyncio.sleep(1)
        assert (probe.done(), late.done()) == (True, False)
        probe.result().settle(Report(remaining=10, counted=990))
        await late

    run_virtually(main())


# A refusal.


@pytest.mark.parametrize(
    ("word", "opens"),
    [
        pytest.param(refused(retry_after=30.0, reset_in=900), 30, id="retry-after, of a burst"),
        pytest.param(refused(reset_in=900.0), 901, id="ratelimit-reset, of the hour"),
        pytest.param(refused(), 1, id="nothing"),
        pytest.param(refused(retry_after=0.0, reset_in=900), 1, id="retry-after: 0"),
    ],
)
def test_a_refusal_closes_for_everybody_and_one_probe_goes_first(word: Report, opens: float) -> None:
    async def main() -> None:
        limiter = limiter_of(TokenBucket(1000, per=3600))
        permits = await take(limiter, 4)
        for permit in permits:
            permit.settle(word)  # all four belong to one closing
        late = [asyncio.create_task(limiter.acquire()) for _ in range(20)]
        await asyncio.sleep(opens - 0.01)
        assert not any(caller.done() for caller in late)
        await asyncio.sleep(1.1)  # sister processes come at other moments
        assert [caller.done() for caller in late] == [True, *[False] * 19]
        await asyncio.sleep(100)
        assert sum(caller.done() for caller in late) == 1
        for caller in late:
            caller.cancel()

    run_virtually(main())


def test_it_opens_by_one_more_with_every_success() -> None:
    async def main() -> None:
        limiter = limiter_of()
        (permit,) = await take(limiter, 1)
        permit.settle(refused(reset_in=1.0))
        callers = [asyncio.create_task(limiter.acquire()) for _ in range(40)]
        await asyncio.sleep(4)
        under_way: list[int] = []
        for caller in callers:
            under_way.append(limiter.stats().in_flight)
            (await caller).settle(Report())
            await let_run()
        # Each success lets one more go besides its own successor, until there is nobody left to go.
        assert under_way == [*range(1, 21), *range(20, 0, -1)]

    run_virtually(main())


@pytest.mark.parametrize("retry_after", [None, 0.0], ids=["nothing", "retry-after: 0"])
def test_refusals_that_name_no_time_double_the_pause(retry_after: float | None) -> None:
    """A `retry-after` of 0 is less than a second, rounded down."""

    async def main() -> None:
        limiter = limiter_of()
        pauses: list[float] = []
        for _ in range(5):
            begin = seconds()
            permit = await limiter.acquire()
            pauses.append(seconds() - begin)
            permit.settle(Report(refused=True, retry_after=retry_after))
        # With up to a tenth more, at most a second, so that sister processes do not come together.
        assert [least <= pause <= least * 1.1 for least, pause in zip((1, 2, 4, 8), pauses[1:], strict=True)]

    run_virtually(main())


# What a 429 says, and what it does not.


async def wait_for_permit(limiter: RateLimiter) -> float:
    begin = seconds()
    permit = await limiter.acquire()
    permit.settle(Report())
    return seconds() - begin


@pytest.mark.parametrize("several", [1, 20], ids=["one call at a time", "several of one burst"])
def test_row_86_a_burst_refused_with_remaining_0_closes_for_retry_after_and_takes_no_tokens(
    several: int,
) -> None:
    async def main() -> None:
        limiter = RateLimiter(clock=clock, slow_start=False)
        for permit in await take(limiter, several):
            permit.settle(Report(remaining=0, counted=5000, refused=True, retry_after=2.0, reset_in=3000.0))
        await limiter.acquire(max_wait=10)
        assert 2 <= seconds() <= 3.1
        assert limiter.stats().available == (249 - several, 4999 - several)

    run_virtually(main())


@pytest.mark.parametrize(
    ("report", "longest"),
    [
        pytest.param(Report(remaining=4000, refused=True, reset_in=3599.0), 2, id="the minute's, no word"),
        pytest.param(Report(remaining=0, refused=True, reset_in=3599.0), 62, id="the minute's or the hour's"),
        pytest.param(Report(remaining=0, refused=True), 2, id="a reset in the past"),
        pytest.param(Report(remaining=0, counted=5000, reset_in=3599.0), 62, id="a success with remaining 0"),
        pytest.param(Report(remaining=0, counted=5000), 2, id="a success, a reset in the past"),
        pytest.param(Report(refused=True, retry_after=1e9), 3606, id="years"),
        pytest.param(Report(refused=True, remaining=0, retry_after=1e9), 3606, id="years, remaining 0"),
        pytest.param(Report(refused=True, remaining=0, reset_in=1e9), 62, id="a reset in years"),
        pytest.param(Report(remaining=3, counted=4997, reset_in=4200.0), 62, id="a remaining that jumps"),
    ],
)
def test_row_87_no_single_word_silences_it_for_longer_than_its_window(report: Report, longest: float) -> None:
    async def main() -> None:
        limiter = RateLimiter(clock=clock)
        for number in range(20):
            permit = await limiter.acquire()
            permit.settle(Report(remaining=4999 - number, counted=number + 1))
        (permit,) = await take(limiter, 1)
        permit.settle(report)
        assert max([await wait_for_permit(limiter) for _ in range(5)]) <= longest

    run_virtually(main())


def test_an_hour_that_is_spent_is_probed_after_one_minute_then_two_then_four() -> None:
    async def main() -> None:
        limiter = RateLimiter(clock=clock)
        pauses: list[float] = []
        while seconds() < 3000:
            begin = seconds()
            permit = await limiter.acquire()
            pauses.append(round((seconds() - begin) / 61))
            permit.settle(Report(remaining=0, counted=5000, refused=True, reset_in=3000 - seconds()))
        assert pauses == [0, 1, 2, 4, 8, 16, 18]

    run_virtually(main())


def test_a_server_that_always_says_remaining_0_is_believed_only_until_it_is_disproved() -> None:
    async def main() -> None:
        limiter = RateLimiter(clock=clock)
        for _ in range(100):
            (await limiter.acquire()).settle(Report(remaining=0, counted=5000, reset_in=3000.0))
        assert seconds() < 130

    run_virtually(main())


# A cold start.


def test_without_a_memory_one_request_goes_first_and_then_twice_as_many_after_each_round_trip() -> None:
    async def main() -> None:
        limiter = RateLimiter(TokenBucket(10_000, per=60), clock=clock)
        for _ in range(2):
            callers = [asyncio.create_task(limiter.acquire()) for _ in range(1000)]
            widths: list[int] = []
            for _ in range(10):
                await let_run()
                going = [caller for caller in callers if caller.done()]
                widths.append(len(going))
                callers = [caller for caller in callers if not caller.done()]
                await asyncio.sleep(0.1)
                for caller in going:
                    caller.result().settle(Report())
            assert widths[:8] == [1, 2, 4, 8, 16, 32, 64, 128]
            assert len(callers) == 0
            await asyncio.sleep(62)  # and so again after a long silence

    run_virtually(main())


@pytest.mark.parametrize(("spent", "refusals"), [(250, 2), (240, 16)])
def test_a_first_burst_into_a_spent_minute_costs_a_few_refusals(spent: int, refusals: int) -> None:
    server = Server((MINUTE, HOUR))

    async def main() -> None:
        for _ in range(spent):  # by a previous run
            server.count(seconds())
        limiter = RateLimiter(clock=clock)

        async def call() -> None:
            while True:
                permit = await limiter.acquire()
                await asyncio.sleep(0.1)
                report = server.count(seconds()).report
                permit.settle(report)
                if not report.refused:
                    return

        await asyncio.gather(*(call() for _ in range(200)))

    run_virtually(main())
    assert 0 < server.refused <= refusals


def test_who_takes_several_permits_before_a_response_does_not_wait_for_ever() -> None:
    async def main() -> None:
        limiter = RateLimiter(clock=clock)
        for _ in range(3):
            await limiter.acquire()
        assert seconds() == 4

    run_virtually(main())


def test_a_call_that_must_not_wait_is_not_held_by_a_slow_start() -> None:
    async def main() -> None:
        limiter = RateLimiter(clock=clock)
        assert len(await take(limiter, 250)) == 250

    run_virtually(main())


# A permit for a block.


@pytest.mark.parametrize("max_wait", [0, 0.001, 0.2, 0.5, 1.0, 2.0])
def test_a_slow_start_refuses_no_call_whatever_its_max_wait(max_wait: float) -> None:
    counted = 0

    async def call(limiter: RateLimiter) -> None:
        nonlocal counted
        permit = await limiter.acquire(max_wait=max_wait)
        counted += 1
        report = Report(remaining=5000 - counted, counted=counted, reset_in=3600.0)
        await asyncio.sleep(0.5)
        permit.settle(report)

    async def main() -> None:
        limiter = RateLimiter(clock=clock)
        for _ in range(2):
            for number in (200, 50):  # the second burst meets those that the first has left
                await asyncio.gather(*(call(limiter) for _ in range(number)))
            await asyncio.sleep(70)  # it starts slowly again

    run_virtually(main())


def test_behind_others_in_a_slow_start_a_call_is_let_go_in_its_turn() -> None:
    async def main() -> None:
        limiter = RateLimiter(TokenBucket(4, per=60), clock=clock)
        await limiter.acquire()
        first = asyncio.create_task(limiter.acquire())
        await let_run()
        await limiter.acquire(max_wait=0.5)
        await first
        assert seconds() == 0.5
        await limiter.acquire(max_wait=0)
        with pytest.raises(QuotaWaitError):
            await limiter.acquire(max_wait=0)

    run_virtually(main())


@pytest.mark.parametrize("max_wait", [0, 0.5, 1.5])
def test_a_request_without_a_response_holds_the_next_one_for_a_known_time(max_wait: float) -> None:
    async def main() -> None:
        limiter = limiter_of(TokenBucket(5000, per=3600))
        (first,) = await take(limiter, 1)
        first.settle(Report(remaining=3, counted=4997, reset_in=3000.0))
        (second,) = await take(limiter, 1)
        second.lose()
        assert limiter.next_permit_in() == 2
        with pytest.raises(QuotaWaitError) as caught:
            await limiter.acquire(max_wait=max_wait)
        assert (seconds(), caught.value.wait) == (0, 2)
        await limiter.acquire(max_wait=2.5)
        assert seconds() == 2

    run_virtually(main())


@pytest.mark.parametrize("max_wait", [0, 0.5, 5.0])
def test_where_only_a_response_can_tell_the_wait_is_still_said_to_be_longer_than_allowed(
    max_wait: float,
) -> None:
    async def main() -> None:
        limiter = limiter_of()
        (permit,) = await take(limiter, 1)
        permit.settle(refused(retry_after=1.0))
        await asyncio.sleep(2)
        await limiter.acquire(max_wait=5)  # the probe, which is not answered
        with pytest.raises(QuotaWaitError) as caught:
            await limiter.acquire(max_wait=max_wait)
        assert caught.value.wait > max_wait
        assert "wait 0.0 s" not in str(caught.value)

    run_virtually(main())


def test_a_permit_is_settled_at_the_end_of_its_block_and_lost_when_that_raises() -> None:
    async def main() -> None:
        limiter = limiter_of(TokenBucket(3, per=60, margin=0))
        async with limiter.permit() as permit:
            assert limiter.stats().in_flight == 1
        with pytest.raises(ConnectionError):
            async with limiter.permit(max_wait=0):
                raise ConnectionError
        async with limiter.permit() as permit:
            permit.release()
        assert (limiter.stats().in_flight, limiter.stats().available) == (0, (1,))
        await asyncio.sleep(60)
        assert limiter.stats().available == (2,)
        await asyncio.sleep(120)
        assert limiter.stats().available == (3,)

    run_virtually(main())


# Pacing.


def test_a_refusal_that_the_own_log_cannot_explain_turns_on_even_pacing() -> None:
    async def main() -> None:
        limiter = limiter_of(TokenBucket(60, per=60, margin=0), TokenBucket(1000, per=3600))
        for permit in await take(limiter, 30):
            permit.settle(Report())
        (permit,) = await take(limiter, 1)
        permit.settle(Report(refused=True, retry_after=5.0))
        assert limiter.stats().pacing
        moments: list[float] = []
        for _ in range(25):
            permit = await limiter.acquire()
            moments.append(seconds())
            permit.settle(Report())
        # Thirty of the sixty were accepted in the minute before: one in two seconds, twice as many half a
        # minute later.
        gaps = [later - earlier for earlier, later in pairwise(moments[2:])]
        assert 1.5 <= gaps[0] <= 2.0
        assert all(0.9 * earlier <= later <= earlier for earlier, later in pairwise(gaps[:12]))
        assert gaps[-1] == pytest.approx(1.0, abs=0.15)

    run_virtually(main())


def test_when_the_others_stop_the_full_rate_is_back() -> None:
    async def main() -> None:
        limiter = limiter_of(TokenBucket(60, per=60, margin=0), TokenBucket(100_000, per=3600))
        counted = 0

        async def call(*, others: int) -> None:
            nonlocal counted
            permit = await limiter.acquire()
            counted += 1 + others
            permit.settle(Report(remaining=100_000 - counted, counted=counted))

        for _ in range(10):
            await call(others=2)
        assert limiter.stats().pacing
        assert limiter.stats().available[0] <= 60 - 28
        while limiter.stats().pacing:
            await call(others=0)
            assert seconds() < 400
        await asyncio.sleep(60)
        await take(limiter, 60)

    run_virtually(main())


def test_pacing_ends_though_the_server_tells_no_counts() -> None:
    async def main() -> None:
        limiter = limiter_of(TokenBucket(60, per=60, margin=0))
        (permit,) = await take(limiter, 1)
        permit.settle(Report(refused=True, retry_after=5.0))
        while limiter.stats().pacing:
            (await limiter.acquire()).settle(Report())
            assert seconds() < 600
        await asyncio.sleep(60)
        await take(limiter, 60)

    run_virtually(main())


def test_before_anything_is_known_of_others_half_of_what_is_left_may_be_under_way() -> None:
    async def main() -> None:
        limiter = limiter_of(TokenBucket(20, per=60, margin=0), TokenBucket(1000, per=3600))
        (first,) = await take(limiter, 1)
        first.settle(Report(remaining=999, counted=1))
        for _ in range(2):
            callers = [asyncio.create_task(limiter.acquire()) for _ in range(19)]
            await let_run()
            under_way = sum(caller.done() for caller in callers)
            for caller in callers:
                caller.cancel()
            for caller in callers[:under_way]:
                caller.result().release()
            assert under_way == (6 if seconds() < 60 else 19)
            await asyncio.sleep(61)

    run_virtually(main())


def test_caution_makes_a_first_burst_wait_for_answers_and_turns_nobody_away() -> None:
    async def main() -> None:
        limiter = limiter_of(TokenBucket(250, per=60))

        async def call(number: int) -> None:
            await asyncio.sleep(number / 500)
            permit = await limiter.acquire(max_wait=1)
            await asyncio.sleep(0.1)
            permit.settle(Report(remaining=4999 - number, counted=number + 1, reset_in=3600.0))

        await asyncio.gather(*(call(number) for number in range(250)))
        with pytest.raises(QuotaWaitError) as caught:
            await limiter.acquire(max_wait=1)
        assert caught.value.wait > 55

    run_virtually(main())


def test_requests_of_others_take_tokens_for_a_period() -> None:
    async def main() -> None:
        limiter = limiter_of(TokenBucket(50, per=60, margin=0), TokenBucket(1000, per=3600))
        first, second = await take(limiter, 2)
        first.settle(Report(remaining=999, counted=1))
        second.settle(Report(remaining=958, counted=42))  # forty are not ours
        assert limiter.stats().available[0] == 8
        await asyncio.sleep(59.9)
        assert limiter.stats().available[0] == 8
        await asyncio.sleep(0.2)
        assert limiter.stats().available[0] == 50

    run_virtually(main())


def test_what_was_spent_before_the_start_is_not_taken_for_a_burst_of_others() -> None:
    async def main() -> None:
        limiter = limiter_of(TokenBucket(50, per=60, margin=0), TokenBucket(1000, per=3600))
        for number, permit in enumerate(await take(limiter, 10)):
            permit.settle(Report(remaining=599 - number, counted=401 + number))
        assert limiter.stats().available[0] == 40
        assert not limiter.stats().pacing

    run_virtually(main())


@law
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 20))
def test_alone_it_never_sees_others(latencies: list[int], workers: int) -> None:
    """Whatever the order in which the answers come, the own requests are not taken for somebody else's."""

    async def main() -> None:
        limits = Limit(10, 4.0), Limit(60, 60.0)
        server = Server(limits)
        limiter = limiter_of(*(TokenBucket(limit.capacity, per=limit.seconds) for limit in limits))

        async def call(latency: int) -> None:
            permit = await limiter.acquire()
            await asyncio.sleep(latency / 20)
            answer = server.count(seconds())
            await asyncio.sleep(latency % 7 / 20)
            permit.settle(answer.report)

        pending = iter(latencies * 4)

        async def work() -> None:
            for latency in pending:
                await call(latency)

        await asyncio.gather(*(work() for _ in range(workers)))
        assert server.refused == 0
        assert not limiter.stats().pacing

    run_virtually(main())


# Servers that count otherwise.


def tally_of(model: str, *, says_when: bool = True, outage: tuple[float, float] = (-1.0, -1.0)) -> Tally:
    """Run thirty windows (twenty without the slow tests) of 100 requests a 10 s, by 80 callers."""
    random.seed(1)  # the limiter's own dice, for the jitter of its pauses
    limit = Limit(100, 10.0)

    async def main() -> Tally:
        limiter = RateLimiter(TokenBucket(limit.capacity, per=limit.seconds), clock=clock)
        counting = MODELS[model](limit)
        windows = 30 if RUN_SLOW else 20
        return await run_against(
            limiter, counting, limit, windows=windows, says_when=says_when, outage=outage
        )

    return run_virtually(main(), turn=1000)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("says_when", fewer([True, False]))
def test_however_a_server_counts_at_most_3_percent_are_refused_and_90_percent_used(
    model: str, *, says_when: bool
) -> None:
    tally = tally_of(model, says_when=says_when)
    assert tally.used(since=20) >= 0.9
    assert tally.refused_part() <= 0.03
    assert tally.refused_part(since=20) <= 0.03


@pytest.mark.parametrize("model", fewer(list(MODELS), 3))
@pytest.mark.parametrize("outage", fewer([(100.0, 103.0), (100.0, 115.0)]))
def test_the_full_rate_is_back_two_windows_after_refusals_that_were_passing(
    model: str, outage: tuple[float, float]
) -> None:
    assert tally_of(model, outage=outage).windows_to_recover() <= 2


# A noisy neighbour.


@pytest.mark.parametrize(
    ("limits", "hours"),
    [
        pytest.param(
            (MINUTE, Limit(15_000, 3600.0)), 0.4 if RUN_SLOW else 0.2, id="the minute is what is short"
        ),
        pytest.param((MINUTE, HOUR), 2.0 if RUN_SLOW else 1.2, id="the hour is what is short"),
    ],
)
@pytest.mark.parametrize("seed", fewer([1, 2]))
def test_beside_a_noisy_neighbour_it_spends_what_is_left_and_is_refused_once_a_closing(
    limits: Sequence[Limit], hours: float, seed: int
) -> None:
    random.seed(seed)  # the limiter's own dice, for the jitter of its pauses
    shared = SharedServer(limits, seed)

    async def main() -> None:
        limiter = limiter_of(*(TokenBucket(each.capacity, per=each.seconds) for each in limits))
        await shared.run([limiter], hours * 3600, callers=20)

    run_virtually(main())
    left = min(limit.capacity * hours * 3600 / limit.seconds for limit in limits) - shared.sent_by_neighbour
    assert shared.accepted >= 0.95 * left
    # Two only where the probe had been accepted, and the neighbour came between it and the next two.
    assert shared.refusals.count(1) >= 0.98 * len(shared.refusals)
    assert max(shared.refusals) <= 2


@pytest.mark.parametrize("seed", fewer([1, 2]))
def test_beside_bursts_of_half_the_quota_it_uses_92_percent_of_the_rest(seed: int) -> None:
    random.seed(seed)  # as above
    minutes, limits = 20, (MINUTE, Limit(15_000, 3600.0))
    shared = SharedServer(limits, seed, pauses=neighbours_bursts)

    async def main() -> None:
        limiter = limiter_of(*(TokenBucket(each.capacity, per=each.seconds) for each in limits))
        await shared.run([limiter], minutes * 60, callers=20)

    run_virtually(main())
    assert shared.accepted >= 0.92 * (MINUTE.capacity * minutes - shared.sent_by_neighbour)
    # More only where it had just begun, and knew nothing of the neighbour yet.
    assert shared.refusals.count(1) >= 0.9 * len(shared.refusals)


@pytest.mark.parametrize(
    ("pauses", "used", "refusals"),
    fewer(
        [
            pytest.param(neighbours_bursts, 0.92, 160, id="half, in bursts"),
            pytest.param(
                partial(neighbours_even_calls, part=0.75, on=300, off=300), 0.75, 150, id="it comes and goes"
            ),
            pytest.param(partial(neighbours_even_calls, part=0.9), 0.9, 150, id="nine tenths, evenly"),
            pytest.param(partial(neighbours_calls, part=0.75), 0.82, 170, id="three quarters, at random"),
            pytest.param(partial(neighbours_even_calls, part=0.75), 0.9, 150, id="three quarters, evenly"),
            pytest.param(partial(neighbours_even_calls, part=0.5), 0.9, 150, id="half, evenly"),
        ],
        3,
    ),
)
@pytest.mark.parametrize("seed", fewer([1, 2]))
def test_where_only_refusals_tell_of_a_neighbour_it_finds_the_rest(
    pauses: Pauses, used: float, refusals: int, seed: int
) -> None:
    random.seed(seed)  # as above
    minutes, limits = 30, (MINUTE, Limit(15_000, 3600.0))
    shared = SharedServer(limits, seed, pauses=pauses, tells=False)

    async def main() -> None:
        buckets = [TokenBucket(each.capacity, per=each.seconds) for each in limits]
        limiter = RateLimiter(*buckets, clock=clock)
        await shared.run([limiter], minutes * 60, callers=20)

    run_virtually(main())
    rest = MINUTE.capacity * minutes - shared.sent_by_neighbour
    assert shared.accepted >= used * rest
    assert sum(shared.refusals) <= refusals


@pytest.mark.slow
async def test_beside_a_noisy_neighbour_over_http() -> None:
    """The same in small, through the client and the emulator, for almost two windows of four seconds."""
    quota, duration = Quota(80, 4.0), 7.0
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(
            ImagesEmulator(quotas=(quota, Quota(100_000, 3600.0)), latency=0.005, jitter=0.01)
        )
        limiter = RateLimiter(TokenBucket(quota.limit, per=quota.seconds), TokenBucket(100_000, per=3600))
        api = await stack.enter_async_context(
            ImagesAPI(emulator.token, base_url=emulator.url, limiter=limiter, retry=ONCE)
        )
        bearer = {"Authorization": f"Bearer {emulator.token}"}
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=bearer))
        accepted, theirs = 0, 0
        refusals: list[float] = []

        async def work() -> None:
            nonlocal accepted
            while True:
                try:
                    await api.get("ubuntu-24-04-x64")
                except RateLimitError:
                    refusals.append(seconds())
                else:
                    accepted += 1

        async def neighbour() -> None:
            nonlocal theirs
            for pause in neighbours_calls(random.Random(1), quota.limit / quota.seconds):
                await asyncio.sleep(pause)
                theirs += 1
                async with session.get(f"{emulator.url}/v2/images") as response:
                    await response.read()

        tasks = [asyncio.create_task(each) for each in (neighbour(), *(work() for _ in range(10)))]
        await asyncio.sleep(duration)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    left = quota.limit * duration / quota.seconds - theirs
    assert accepted >= 0.95 * left, (accepted, left, refusals)
    # A closing lasts for a second at least.
    assert all(later - earlier >= 1 for earlier, later in pairwise(refusals)), refusals
