"""The limiter's laws, searched for counterexamples in virtual time.

Safety is judged by the server's worst case, every behaviour by a limiter too naive to be wrong, and the judge
itself by limiters that are known to be wrong.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle

import attrs
import pytest
from hypothesis import Phase, event, example, find, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from do_images_async._quota.limiter import RateLimiter
from do_images_async._quota.protocols import LimiterStats, Permit
from do_images_async.errors import QuotaWaitError
from tests.support.quota_models import (
    Exchange,
    Limit,
    Limiter,
    MakeLimiter,
    NaiveLimiter,
    forgets_the_grace,
    log_at_send_time,
    most_in_a_window,
    refilling_bucket,
    returns_a_tick_early,
    returns_from_grant,
)
from tests.support.slow import examples
from tests.support.virtual_time import SECOND, TICK, VirtualLoop, clock, let_run, run_virtually, sleep_ticks

law = settings(derandomize=True, deadline=None, database=None, max_examples=examples(200))
search = settings(derandomize=True, deadline=None, database=None, max_examples=1000, phases=[Phase.generate])


def rate_limiter(limits: Sequence[Limit], grace: int) -> RateLimiter:
    """The limiter under test, without margin."""
    return RateLimiter(
        *(limit.bucket() for limit in limits), grace=grace / SECOND, clock=clock, slow_start=False
    )


class Fate(enum.Enum):
    """The outcome of a request that was granted."""

    ANSWERED = enum.auto()
    LOST = enum.auto()
    UNSENT = enum.auto()


@attrs.frozen
class Call:
    """One request of a worker; durations in ticks."""

    pause: int
    latency: int
    fate: Fate
    reserve: int
    patience: int | None


@attrs.frozen
class Scenario:
    """Limits, the grace in ticks, and what each worker sends, one request after another."""

    limits: tuple[Limit, ...]
    grace: int
    workers: list[list[Call]]


limits_strategy = st.lists(
    st.builds(Limit, st.integers(1, 6), st.integers(1, 40).map(lambda ticks: ticks * TICK)),
    min_size=1,
    max_size=3,
).map(tuple)

# Most answers come soon, some at once, a few after several windows.
latencies = st.one_of(st.integers(0, 8), st.just(0), st.sampled_from([40, 100, 400]))

calls = st.builds(
    Call,
    pause=st.one_of(st.just(0), st.integers(0, 60)),
    latency=latencies,
    fate=st.sampled_from([Fate.ANSWERED] * 4 + [Fate.LOST, Fate.UNSENT]),
    reserve=st.integers(0, 3),
    patience=st.one_of(st.none(), st.none(), st.integers(0, 60)),
)


def answered_after(latency: st.SearchStrategy[int]) -> st.SearchStrategy[Call]:
    """A call to which nothing happens but its latency."""
    return st.builds(
        Call, st.integers(0, 60), latency, st.just(Fate.ANSWERED), reserve=st.just(0), patience=st.none()
    )


def scenarios_of(calls: st.SearchStrategy[Call]) -> st.SearchStrategy[Scenario]:
    return st.builds(
        Scenario,
        limits=limits_strategy,
        grace=st.integers(0, 30),
        workers=st.lists(st.lists(calls, min_size=1, max_size=6), min_size=1, max_size=8),
    )


scenarios = scenarios_of(calls)
jittered = scenarios_of(answered_after(st.integers(0, 8)))
at_once = scenarios_of(answered_after(st.just(0)))


async def exchange(limiter: Limiter, call: Call, scenario: Scenario, log: list[Exchange]) -> None:
    """Send one request, and note from when to when the server may count it."""
    most = min(limit.capacity for limit in scenario.limits) - 1
    ticket = await limiter.acquire(reserve=min(call.reserve, most))
    granted = clock()
    grace = scenario.grace * TICK
    try:
        await sleep_ticks(call.latency)
    except asyncio.CancelledError:
        ticket.lose()
        log.append(Exchange(granted, clock() + grace))
        raise
    if call.fate is Fate.UNSENT:
        ticket.release()
    elif call.fate is Fate.ANSWERED:
        ticket.settle()
        log.append(Exchange(granted, clock()))
    else:
        ticket.lose()
        log.append(Exchange(granted, clock() + grace))


async def work(limiter: Limiter, worker: list[Call], scenario: Scenario, log: list[Exchange]) -> None:
    """One worker's closed loop. A call that takes longer than its patience is cancelled wherever it is."""
    for call in worker:
        await sleep_ticks(call.pause)
        patience = None if call.patience is None else call.patience * TICK / SECOND
        try:
            async with asyncio.timeout(patience):
                await exchange(limiter, call, scenario, log)
        except TimeoutError:
            continue


async def play(limiter: Limiter, scenario: Scenario) -> list[Exchange]:
    """Every worker to its end. A waiter that nobody serves makes the loop idle, which is an error."""
    log: list[Exchange] = []
    async with asyncio.TaskGroup() as group:
        for worker in scenario.workers:
            group.create_task(work(limiter, worker, scenario, log))
    return log


def passes_a_limit(log: list[Exchange], limits: Sequence[Limit]) -> bool:
    return any(most_in_a_window(log, limit.period) > limit.capacity for limit in limits)


def capacities(limits: Sequence[Limit]) -> tuple[int, ...]:
    return tuple(limit.capacity for limit in limits)


@law
@given(scenarios)
def test_no_window_exceeds_its_capacity_and_no_token_is_lost(scenario: Scenario) -> None:
    async def main() -> None:
        limiter = rate_limiter(scenario.limits, scenario.grace * TICK)
        log = await play(limiter, scenario)
        assert not passes_a_limit(log, scenario.limits)

        stats = limiter.stats()
        assert (stats.in_flight, stats.waiting) == (0, 0)
        assert stats.granted == len(log)
        await asyncio.sleep((scenario.grace * TICK + max(limit.period for limit in scenario.limits)) / SECOND)
        assert limiter.stats().available == capacities(scenario.limits)

    run_virtually(main())


@pytest.mark.parametrize(
    ("wrong", "wherein"),
    [
        pytest.param(refilling_bucket, at_once, id="the textbook's refilling bucket"),
        pytest.param(log_at_send_time, jittered, id="a log kept at send time"),
        pytest.param(returns_from_grant, jittered, id="a period from the grant"),
        pytest.param(returns_a_tick_early, at_once, id="a tick early"),
        pytest.param(forgets_the_grace, scenarios, id="no grace"),
    ],
)
def test_the_safety_law_catches(wrong: MakeLimiter, wherein: st.SearchStrategy[Scenario]) -> None:
    def breaks_the_law(scenario: Scenario) -> bool:
        async def main() -> bool:
            log = await play(wrong(scenario.limits, scenario.grace * TICK), scenario)
            return passes_a_limit(log, scenario.limits)

        return run_virtually(main())

    find(wherein, breaks_the_law, settings=search)  # raises NoSuchExample when there is none


@law
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12), st.integers(1, 20))
def test_the_judge_finds_the_worst_window(spans: list[tuple[int, int]], period: int) -> None:
    log = [Exchange(start, start + length) for start, length in spans]
    touched = (
        sum(one.earliest < start + period and one.latest >= start for one in log)
        for start in range(-period, 61)
    )
    assert most_in_a_window(log, period) == max(touched)


class AgainstTheNaiveLimiter(RuleBasedStateMachine):
    """A comparison: the limiter grants at the same moments as the naive one, and to the same callers.

    The naive one shows by construction that a free token is never withheld, that callers with the same
    reserve are served in order, that a smaller reserve goes first, that a reserve is kept, but that one
    permit in eight goes to a call that has waited a period for its reserve.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self.tasks: dict[int, asyncio.Task[Permit]] = {}
        self.keys = 0

    @initialize(limits=limits_strategy, grace=st.integers(0, 30))
    def start(self, limits: tuple[Limit, ...], grace: int) -> None:
        self.grace = grace * TICK
        self.most = min(capacities(limits)) - 1
        self.naive = NaiveLimiter(limits)
        buckets = (limit.bucket() for limit in limits)
        self.limiter = RateLimiter(
            *buckets, grace=self.grace / SECOND, clock=self.loop.now_ns, slow_start=False
        )

    def do(self, *steps: Callable[[], object]) -> None:
        """Take all steps in one turn of the loop, then let everything run that can."""

        async def turn() -> None:
            for step in steps:
                step()
            await let_run()

        self.runner.run(turn())

    def call(self, reserve: int) -> None:
        self.keys += 1
        reserve = min(reserve, self.most)
        self.tasks[self.keys] = self.loop.create_task(self.limiter.acquire(reserve=reserve))
        self.naive.acquire(self.keys, reserve)

    def end(self, pick: int, fate: Fate) -> None:
        key = sorted(self.naive.holding)[pick % len(self.naive.holding)]
        permit = self.tasks.pop(key).result()
        if fate is Fate.ANSWERED:
            permit.settle()
            self.naive.finish(key, 0)
        elif fate is Fate.LOST:
            permit.lose()
            self.naive.finish(key, self.grace)
        else:
            permit.release()
            self.naive.leave(key)

    def cancel(self, key: int) -> None:
        self.tasks.pop(key).cancel()
        self.naive.leave(key)

    def queued(self, pick: int) -> int:
        return self.naive.waiting[pick % len(self.naive.waiting)][1]

    @rule(reserves=st.lists(st.integers(0, 3), min_size=1, max_size=4))
    def callers_come(self, reserves: list[int]) -> None:
        self.do(*(partial(self.call, reserve) for reserve in reserves))

    @precondition(lambda self: self.naive.holding)
    @rule(pick=st.integers(0, 20), fate=st.sampled_from(Fate))
    def a_request_ends(self, pick: int, fate: Fate) -> None:
        self.do(partial(self.end, pick, fate))

    @precondition(lambda self: self.naive.waiting)
    @rule(pick=st.integers(0, 20))
    def a_waiter_is_cancelled(self, pick: int) -> None:
        self.do(lambda: self.cancel(self.queued(pick)))

    @precondition(lambda self: self.naive.waiting and self.naive.holding)
    @rule(pick=st.integers(0, 20))
    def a_waiter_is_cancelled_in_the_turn_of_its_grant(self, pick: int) -> None:
        holding = set(self.naive.holding)

        def cancel_the_granted() -> None:
            for key in sorted(self.naive.holding - holding):
                event("cancelled in the turn of its grant")
                self.cancel(key)

        self.do(partial(self.end, pick, Fate.UNSENT), cancel_the_granted)

    @precondition(lambda self: self.naive.waiting and self.naive.holding)
    @rule(pick=st.integers(0, 20), other=st.integers(0, 20))
    def a_waiter_is_cancelled_just_before_a_token_is_free(self, pick: int, other: int) -> None:
        self.do(lambda: self.cancel(self.queued(other)), partial(self.end, pick, Fate.UNSENT))

    @rule(ticks=st.integers(0, 20))
    def the_server_closes(self, ticks: int) -> None:
        self.do(partial(self.limiter.close_for, ticks * TICK / SECOND))
        self.naive.close_for(ticks * TICK)

    @rule()
    def somebody_looks_while_the_loop_is_stopped(self) -> None:
        """As another thread does, whose calls the calls of this loop must not hold up meanwhile."""
        self.limiter.stats()
        self.do()

    @rule(ticks=st.integers(1, 60))
    def time_passes(self, ticks: int) -> None:
        self.wait(ticks * TICK)

    def wait(self, duration: int) -> None:
        async def nap() -> None:
            await asyncio.sleep(duration / SECOND)
            await let_run()

        self.runner.run(nap())
        self.naive.advance(duration)

    @invariant()
    def the_same_callers_hold_permits(self) -> None:
        assert {key for key, task in self.tasks.items() if task.done()} == self.naive.holding

    @invariant()
    def the_counts_agree(self) -> None:
        async def look() -> LimiterStats:
            return self.limiter.stats()

        stats = self.runner.run(look())
        assert stats.available == self.naive.free()
        assert stats.in_flight == len(self.naive.holding)
        assert stats.waiting == len(self.naive.waiting)

    @invariant()
    def one_timer_runs_while_anyone_waits_and_none_otherwise(self) -> None:
        assert len(self.loop.pending_timers()) <= bool(self.naive.waiting)

    @invariant()
    def no_task_is_made(self) -> None:
        assert len(asyncio.all_tasks(self.loop)) == len(self.naive.waiting)

    def teardown(self) -> None:
        try:
            if hasattr(self, "naive"):
                self.everyone_is_served_and_every_token_comes_back()
        finally:
            self.runner.get_loop()
            self.runner.close()

    def everyone_is_served_and_every_token_comes_back(self) -> None:
        longest = max(limit.period for limit in self.naive.limits) + self.grace
        for _ in range(len(self.naive.waiting) + 2):
            while self.naive.holding:
                self.do(partial(self.end, 0, Fate.ANSWERED))
            self.wait(max(longest, self.naive.closed_until - self.naive.now))
        assert not self.tasks
        assert self.limiter.stats().available == capacities(self.naive.limits)


TestAgainstTheNaiveLimiter = AgainstTheNaiveLimiter.TestCase
TestAgainstTheNaiveLimiter.settings = settings(law, max_examples=examples(80), stateful_step_count=40)


@attrs.frozen
class Queue:
    """Callers that come at their ticks; the n-th that is granted ends as the n-th end says."""

    limits: tuple[Limit, ...]
    grace: int
    arrivals: list[int]
    ends: list[tuple[int, Fate]]
    probe_at: int
    reserve: int


def queues(*fates: Fate) -> st.SearchStrategy[Queue]:
    return st.builds(
        Queue,
        limits=limits_strategy,
        grace=st.integers(0, 200),
        arrivals=st.lists(st.integers(0, 20), min_size=2, max_size=20),
        ends=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(fates)), min_size=1, max_size=8),
        probe_at=st.integers(0, 40),
        reserve=st.integers(0, 3),
    )


@attrs.frozen
class Answer:
    """The nanoseconds that the probe waited, and the error that it got."""

    waited: int
    error: QuotaWaitError | None


async def ask(queue: Queue, max_wait: float | None) -> Answer:
    """Let the callers come, and one among them that waits `max_wait` at most."""
    limiter = rate_limiter(queue.limits, queue.grace * TICK)
    ends = cycle(queue.ends)

    async def call(arrival: int) -> None:
        await sleep_ticks(arrival)
        permit = await limiter.acquire()
        latency, fate = next(ends)
        await sleep_ticks(latency)
        if fate is Fate.LOST:
            permit.lose()
        else:
            permit.settle()

    async def probe() -> Answer:
        await sleep_ticks(queue.probe_at)
        asked = clock()
        try:
            reserve = min(queue.reserve, min(capacities(queue.limits)) - 1)
            permit = await limiter.acquire(max_wait=max_wait, reserve=reserve)
        except QuotaWaitError as error:
            return Answer(clock() - asked, error)
        permit.settle()
        return Answer(clock() - asked, None)

    async with asyncio.TaskGroup() as group:
        answer = group.create_task(probe())
        for arrival in queue.arrivals:
            group.create_task(call(arrival))
    stats = limiter.stats()
    assert (stats.in_flight, stats.waiting) == (0, 0)
    await asyncio.sleep((queue.grace * TICK + max(limit.period for limit in queue.limits)) / SECOND)
    assert limiter.stats().available == capacities(queue.limits)
    return answer.result()


def check_the_wait(queue: Queue, patience: int) -> None:
    """Check that the known wait is never longer than the real one while no call leaves the queue."""
    max_wait = patience * TICK
    patient = run_virtually(ask(queue, None))
    hasty = run_virtually(ask(queue, max_wait / SECOND))
    if hasty.error is None:
        assert hasty.waited == patient.waited <= max_wait
        return
    assert hasty.error.max_wait * SECOND == max_wait
    assert hasty.waited in {0, max_wait}
    assert hasty.error.wait > hasty.error.max_wait
    if hasty.waited == 0:
        event("refused at once")
        assert max_wait < hasty.error.wait * SECOND <= patient.waited
    else:
        event("refused after max_wait")
        assert patient.waited >= max_wait


@law
@given(queues(Fate.ANSWERED), st.integers(0, 120))
def test_a_wait_is_refused_only_when_it_would_be_longer(queue: Queue, patience: int) -> None:
    check_the_wait(queue, patience)


@law
@given(queues(Fate.ANSWERED, Fate.LOST), st.integers(0, 120))
@example(Queue((Limit(2, 4 * TICK),), 10, [0, 0, 0], [(0, Fate.LOST), *[(0, Fate.ANSWERED)] * 2], 1, 0), 10)
def test_a_wait_is_refused_only_when_it_would_be_longer_though_responses_are_lost(
    queue: Queue, patience: int
) -> None:
    check_the_wait(queue, patience)
