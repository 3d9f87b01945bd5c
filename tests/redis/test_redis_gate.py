"""Workers that share a quota through Redis (or a file) while others use the same token.

They are as strict and as fast as one limiter in this process.
"""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any
from unittest import mock

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.limiter import RateLimiter
from do_images_async._quota.permits import GrantedPermit
from do_images_async._quota.protocols import Permit, Report, Ticket
from do_images_async._quota.store import Answered, Exchange, Reply, microseconds
from do_images_async.errors import QuotaWaitError
from do_images_async.redis import RedisRateLimiter
from tests.support.limiters import keep_calling
from tests.support.neighbours import SharedServer
from tests.support.redis_servers import RedisServer, needs_redis, redis_server, shared_redis
from tests.support.simulation import MINUTE, Limit, Server
from tests.support.slow import examples, fewer
from tests.support.starved import starve
from tests.support.virtual_file import VirtualFile
from tests.support.virtual_redis import SCRIPT_BY_ARGUMENT, START, virtual_redis
from tests.support.virtual_time import let_run, run_virtually

__all__ = ["redis_server", "shared_redis"]  # fixtures

pytestmark = needs_redis


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_beside_others_workers_spend_what_is_left_and_are_refused_once_each_time_the_quota_runs_out(
    redis_server: RedisServer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random.seed(seed)  # the limiters' own dice, for the jitter of their pauses
    names = random.Random(seed)  # who is served first among equals
    monkeypatch.setattr("uuid.uuid4", lambda: uuid.UUID(int=names.getrandbits(128)))
    minutes, limits = 6, (MINUTE, Limit(15_000, 3600.0))
    shared = SharedServer(limits, seed)

    async def main() -> None:
        buckets = [TokenBucket(each.capacity, per=each.seconds) for each in limits]
        async with AsyncExitStack() as stack:
            limiters = [
                await stack.enter_async_context(
                    RedisRateLimiter(virtual_redis(redis_server), "dop_v1_a", *buckets)
                )
                for _ in range(4)
            ]
            await shared.run(limiters, minutes * 60, callers=20)

    run_virtually(main(), turn=1000)  # the store's clock is no finer
    left = MINUTE.capacity * minutes - shared.sent_by_neighbour
    assert shared.accepted >= 0.95 * left
    assert set(shared.refusals) <= {1}, shared.refusals


PERMITS_PER_SECOND = 250 / 61
"""The documented 250 a minute, with the second that a bucket's margin adds."""

MOST_COMMANDS = 60
"""Redis commands that a permit may cost while 64 workers wait; workers that poll in turn would need more."""


def test_a_worker_that_is_far_back_in_the_queue_does_not_poll_redis(redis_server: RedisServer) -> None:
    costs = starve(redis_server, workers=64)
    assert costs.permits >= 0.95 * costs.seconds * PERMITS_PER_SECOND
    assert costs.commands / costs.permits <= MOST_COMMANDS


def test_a_call_that_comes_when_the_limiter_says_is_granted_and_none_sooner(
    redis_server: RedisServer,
) -> None:
    async def main() -> None:
        async with RedisRateLimiter(
            virtual_redis(redis_server), "dop_v1_a", TokenBucket(3, per=60), slow_start=False
        ) as limiter:
            for _ in range(3):
                (await limiter.acquire()).settle()
                await asyncio.sleep(1)
            assert limiter.stats().waiting == 0
            await asyncio.sleep(limiter.next_permit_in() - 0.01)
            with pytest.raises(QuotaWaitError):
                await limiter.acquire(max_wait=0)
            await asyncio.sleep(limiter.next_permit_in())
            await limiter.acquire(max_wait=0)

    run_virtually(main(), turn=1000)


def test_calls_with_a_reserve_in_one_of_several_workers_get_one_permit_in_eight_of_all(
    redis_server: RedisServer,
) -> None:
    granted = {0: 0, 40: 0}

    async def main() -> None:
        async with AsyncExitStack() as stack:
            tasks: list[asyncio.Task[None]] = []
            for reserve in (40, 0, 0, 0):
                limiter = RedisRateLimiter(
                    virtual_redis(redis_server), "dop_v1_a", TokenBucket(50, per=6, margin=0)
                )
                await stack.enter_async_context(limiter)
                tasks += [
                    asyncio.create_task(keep_calling(limiter.acquire, reserve, granted)) for _ in range(60)
                ]
            await asyncio.sleep(120)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    run_virtually(main(), turn=1000)
    total = sum(granted.values())
    assert total / 10 <= granted[40] <= total / 7, granted


ChangeReport = Callable[[Report], Report]


class Triplets:
    """A limiter in this process, a Redis store and a file store, given the same events."""

    def __init__(self, client: redis.Redis, limits: Sequence[Limit], *, slow_start: bool = False) -> None:
        buckets = [TokenBucket(limit.capacity, per=limit.seconds, margin=0) for limit in limits]
        self.now = 0
        self.server = Server(limits)
        self.limiter = RateLimiter(*buckets, clock=lambda: self.now * 1000, slow_start=False)
        if slow_start:
            # Not with `slow_start=True`: only a limiter in this process also starts slowly after a silence.
            vars(self.limiter)["_gate"].start_slowly()
        self.in_flight: list[tuple[GrantedPermit, Ticket, Report]] = []
        self._slow_start = slow_start
        self._script = client.register_script(SCRIPT_BY_ARGUMENT)
        self._buckets = [(bucket.capacity, microseconds(bucket.period)) for bucket in buckets]
        self._keys = [f"triplet{next(numbers)}:{part}" for part in range(8 + len(limits))]
        self._file = VirtualFile(buckets, lambda: START + self.now)
        self._joined = False
        self._asked = itertools.count(1)

    async def send(self, *, at_once: bool = True) -> None:
        """Ask all three for a permit; send a request if they grant one, fail if they differ.

        Args:
            at_once: whether it can't wait, which ends a slow start.
        """
        reply = self._exchange(want=1, at_once=at_once)
        serials = list(reply["granted"][0][1])
        permit = await self._take(at_once=at_once)
        if permit is None:
            assert serials == []
            return
        assert isinstance(permit, GrantedPermit)
        assert serials == [permit.ticket.serial]
        assert reply["finished"] == permit.ticket.finished
        self.in_flight.append((permit, permit.ticket, self.server.count(self.now / 1_000_000).report))

    async def _take(self, *, at_once: bool) -> Permit | None:
        """Return a permit of the limiter in this process if it grants one now."""
        if at_once:
            with suppress(QuotaWaitError):
                return await self.limiter.acquire(max_wait=0)
            return None
        call = asyncio.ensure_future(self.limiter.acquire())
        await let_run()
        if call.done():
            return call.result()
        call.cancel()  # a `max_wait` that passes would end a slow start
        await asyncio.wait([call])
        return None

    def answer(self, which: int, change: ChangeReport = lambda report: report) -> None:
        """Give all three the response to one request in flight, and compare what they make of it."""
        permit, ticket, report = self.in_flight.pop(which % len(self.in_flight))
        report = change(report)
        permit.settle(report)
        reply = self._exchange(Answered.of(ticket, report, self.now))
        stats = self.limiter.stats()
        assert tuple(max(0, free) for free in reply["free"]) == stats.available
        assert reply["pacing"] == stats.pacing
        assert reply["opens_in"] / 1_000_000 == pytest.approx(self.limiter.next_permit_in(), abs=1e-4)

    def _exchange(self, *answered: Answered, want: int = 0, at_once: bool = False) -> dict[str, Any]:
        ask = Exchange(
            number=str(next(self._asked)),
            worker="triplet",
            epoch="",
            new_epoch="one",
            joined=self._joined,
            holds=len(self.in_flight) + len(answered),
            answered=list(answered),
            lost=0,
            unsent=0,
            elsewhere=[],
            settling=0,
            wants=[(0, want)] if want else [],
            at_once=at_once,
            slow_start=self._slow_start,
            buckets=self._buckets,
            lease=microseconds(1e6),
            grace=0,
            clock=self.now,
            jitter=0.0,
        )
        self._joined = True
        answer = self._script(keys=self._keys, args=[msgspec.json.encode(ask), START + self.now])
        reply: dict[str, Any] = msgspec.json.decode(answer)
        self._compare(reply, self._file.exchange(ask))
        return reply

    @staticmethod
    def _compare(reply: dict[str, Any], other: Reply) -> None:
        granted = [serial for _, serials in reply["granted"] for serial in serials]
        assert [ticket.serial for tickets in other.tickets.values() for ticket in tickets] == granted
        assert {ticket.finished for tickets in other.tickets.values() for ticket in tickets} <= {
            reply["finished"]
        }
        assert (list(other.free), other.pacing) == (list(reply["free"]), reply["pacing"])
        assert other.serial == reply["serial"]
        assert other.reserving == reply["reserving"]
        assert other.opens_in == pytest.approx(reply["opens_in"] / 1_000_000, abs=1e-4)
        assert other.at_least == pytest.approx(reply.get("at_least", 0) / 1_000_000, abs=1e-4)


numbers = itertools.count()


def without_headers(report: Report) -> Report:
    return Report(refused=report.refused, retry_after=report.retry_after)


REPORT_CHANGES: list[ChangeReport] = [
    lambda report: report,
    lambda report: msgspec.structs.replace(report, remaining=0),
    lambda report: msgspec.structs.replace(report, reset_in=None),
    lambda report: msgspec.structs.replace(report, retry_after=None),
    without_headers,
    lambda report: msgspec.structs.replace(report, refused=True, remaining=0, retry_after=2.0),
    lambda report: msgspec.structs.replace(report, refused=True, remaining=0, retry_after=None),
    lambda report: msgspec.structs.replace(report, refused=True, retry_after=0.0),
    lambda report: msgspec.structs.replace(report, reset_in=4200.0),
]
"""Changes that make reports like those of servers that count in another way or report another window."""

TICK = 100_003
"""Microseconds of a step: an odd length, so that no event falls exactly on a window's edge."""

moves = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 8)),
        st.tuples(st.just("send"), st.integers(1, 8)),
        st.tuples(st.just("send at once"), st.integers(1, 8)),
        st.tuples(st.just("answer"), st.integers(0, 20)),
        st.tuples(st.just("answer"), st.integers(0, 20)),
        st.tuples(st.just("others"), st.integers(1, 6)),
        st.tuples(st.just("wait"), st.integers(1, 30)),
    ),
    max_size=60,
)


@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=examples(120),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    moves,
    st.integers(2, 30),
    st.integers(20, 200),
    st.lists(st.sampled_from(REPORT_CHANGES), min_size=1),
    st.booleans(),
)
def test_the_stores_grant_what_a_limiter_in_one_process_would(
    redis_server: RedisServer,
    moves: list[tuple[str, int]],
    minute: int,
    hour: int,
    changes: list[ChangeReport],
    slow_start: bool,
) -> None:
    async def main(client: redis.Redis) -> None:
        triplets = Triplets(client, (Limit(minute, 6.0), Limit(hour, 60.0)), slow_start=slow_start)
        change = itertools.cycle(changes)
        for move, amount in moves:
            if move == "wait":
                triplets.now += amount * TICK
            elif move == "others":
                for _ in range(amount):
                    triplets.server.count(triplets.now / 1_000_000)
            elif move.startswith("send"):
                for _ in range(amount):
                    await triplets.send(at_once=move == "send at once")
            elif triplets.in_flight:
                triplets.answer(amount, next(change))
            triplets.now += 7

    with redis_server.client() as client, mock.patch.object(random, "uniform", return_value=0.0):
        run_virtually(main(client))


@pytest.mark.parametrize("headers", fewer([True, False]), ids=fewer(["headers", "only a 429 tells"]))
@pytest.mark.parametrize("seed", fewer(range(3)))
def test_the_stores_decide_as_a_limiter_in_one_process_does_for_minutes(
    redis_server: RedisServer, *, headers: bool, seed: int
) -> None:
    """Others come and go: requests are refused, paced evenly, faster and faster, and then not paced."""
    dice, change = random.Random(seed), REPORT_CHANGES[0] if headers else without_headers

    async def main(client: redis.Redis) -> bool:
        triplets = Triplets(client, (Limit(30, 6.0), Limit(2000, 60.0)), slow_start=True)
        was_paced = False
        for _ in range(60):
            triplets.server.count(triplets.now / 1_000_000)  # by a previous run
            triplets.now += 100_000
        for step in range(1500):
            triplets.now += dice.randrange(20_000, 150_000)
            burst = 20 * (step == 300)
            for _ in range(burst + (dice.random() < (0.2, 0.6, 0.0)[step // 500])):
                triplets.server.count(triplets.now / 1_000_000)
            await triplets.send(at_once=False)
            while triplets.in_flight and dice.random() < 0.7:
                triplets.answer(0 if dice.random() < 0.9 else 1, change)
            was_paced = was_paced or triplets.limiter.stats().pacing
        assert triplets.server.refused
        # Without headers, it still probes beyond the full rate at the end.
        return was_paced and triplets.limiter.stats().pacing is not headers

    with redis_server.client() as client, mock.patch.object(random, "uniform", return_value=0.0):
        assert run_virtually(main(client))


@pytest.mark.parametrize("at_once", [False, True])
def test_a_refusal_ends_a_slow_start_and_the_next_response_must_come_first(
    redis_server: RedisServer, at_once: bool
) -> None:
    async def main(client: redis.Redis) -> int:
        triplets = Triplets(client, (Limit(30, 6.0), Limit(2000, 60.0)), slow_start=True)
        await triplets.send()
        triplets.answer(0, lambda report: msgspec.structs.replace(report, refused=True, retry_after=2.0))
        triplets.now += 3_000_000
        await triplets.send()
        triplets.now += 2_500_000
        await triplets.send(at_once=at_once)
        return len(triplets.in_flight)

    with redis_server.client() as client, mock.patch.object(random, "uniform", return_value=0.0):
        assert run_virtually(main(client)) == 1
