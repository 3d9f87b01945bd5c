"""The shared quota beside others who spend it: as strict as a limiter in one process, and as quick."""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
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
from do_images_async._quota.protocols import Report, Ticket
from do_images_async._quota.store import Answered, Exchange, Reply, microseconds
from do_images_async.errors import QuotaWaitError
from do_images_async.redis import RedisRateLimiter
from tests.support.neighbours import SharedServer
from tests.support.redis_servers import RedisServer, needs_redis, redis_server, shared_redis
from tests.support.simulation import MINUTE, Limit, Server
from tests.support.slow import examples
from tests.support.starved import starve
from tests.support.virtual_file import VirtualFile
from tests.support.virtual_redis import SCRIPT_BY_ARGUMENT, START, virtual_redis
from tests.support.virtual_time import run_virtually

__all__ = ["redis_server", "shared_redis"]  # fixtures

pytestmark = needs_redis


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_beside_a_noisy_neighbour_workers_spend_what_is_left_and_are_refused_once_a_closing(
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


def test_many_starved_workers_ask_little(redis_server: RedisServer) -> None:
    """64 of them wait for the documented quota: whoever is far from its turn does not ask whether it is."""
    costs = starve(redis_server, workers=64)
    assert costs.permits >= 0.95 * costs.seconds * 250 / 61
    assert costs.commands / costs.permits <= 60


# The same history for all three: in this process, in Redis, in a file.

Garble = Callable[[Report], Report]


class Twins:
    """A limiter in this process and a worker of two stores, asked and told the same at the same moments."""

    def __init__(self, client: redis.Redis, limits: Sequence[Limit]) -> None:
        buckets = [TokenBucket(limit.capacity, per=limit.seconds, margin=0) for limit in limits]
        self.now = 0
        self.server = Server(limits)
        self.limiter = RateLimiter(*buckets, clock=lambda: self.now * 1000, slow_start=False)
        self.flying: list[tuple[GrantedPermit, Ticket, Report]] = []
        self._script = client.register_script(SCRIPT_BY_ARGUMENT)
        self._buckets = [(bucket.capacity, microseconds(bucket.period)) for bucket in buckets]
        self._keys = [f"twin{next(numbers)}:{part}" for part in range(9 + len(limits))]
        self._file = VirtualFile(buckets, lambda: START + self.now)
        self._joined = False
        self._asked = itertools.count(1)

    async def send(self) -> None:
        """Ask both for a permit, and send what they agree upon."""
        reply = self._exchange(want=1)
        serials = list(reply["granted"][0][1])
        try:
            permit = await self.limiter.acquire(max_wait=0)
        except QuotaWaitError:
            assert serials == []
            return
        assert isinstance(permit, GrantedPermit)
        assert serials == [permit.ticket.serial]
        assert reply["finished"] == permit.ticket.finished
        self.flying.append((permit, permit.ticket, self.server.count(self.now / 1_000_000).report))

    def answer(self, which: int, garble: Garble = lambda report: report) -> None:
        permit, ticket, report = self.flying.pop(which % len(self.flying))
        report = garble(report)
        permit.settle(report)
        reply = self._exchange(Answered.of(ticket, report, self.now))
        stats = self.limiter.stats()
        assert tuple(max(0, free) for free in reply["free"]) == stats.available
        assert reply["pacing"] == stats.pacing

    def _exchange(self, *answered: Answered, want: int = 0) -> dict[str, Any]:
        ask = Exchange(
            number=str(next(self._asked)),
            worker="twin",
            epoch="",
            new_epoch="one",
            joined=self._joined,
            holds=0,
            answered=list(answered),
            lost=0,
            unsent=0,
            elsewhere=[],
            settling=0,
            wants=[(0, want)] if want else [],
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


numbers = itertools.count()

WORDS: list[Garble] = [
    lambda report: report,
    lambda report: msgspec.structs.replace(report, remaining=0),
    lambda report: msgspec.structs.replace(report, reset_in=None),
    lambda report: msgspec.structs.replace(report, retry_after=None),
    lambda report: msgspec.structs.replace(report, refused=True, remaining=0, retry_after=2.0),
    lambda report: msgspec.structs.replace(report, refused=True, remaining=0, retry_after=None),
    lambda report: msgspec.structs.replace(report, reset_in=4200.0),
]
"""Reports of servers that count in another way, or report another window."""

TICK = 100_003
"""Microseconds; no sum of intervals is one of ticks, so that nobody's rounding matters."""

moves = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 8)),
        st.tuples(st.just("send"), st.integers(1, 8)),
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
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(moves, st.integers(2, 30), st.integers(20, 200), st.lists(st.sampled_from(WORDS), min_size=1))
def test_the_store_lets_go_what_a_limiter_in_one_process_would(
    redis_server: RedisServer, moves: list[tuple[str, int]], minute: int, hour: int, words: list[Garble]
) -> None:
    async def main(client: redis.Redis) -> None:
        twins = Twins(client, (Limit(minute, 6.0), Limit(hour, 60.0)))
        garbles = itertools.cycle(words)
        for move, amount in moves:
            if move == "wait":
                twins.now += amount * TICK
            elif move == "others":
                for _ in range(amount):
                    twins.server.count(twins.now / 1_000_000)
            elif move == "send":
                for _ in range(amount):
                    await twins.send()
            elif twins.flying:
                twins.answer(amount, next(garbles))
            twins.now += 7

    with redis_server.client() as client, mock.patch.object(random, "uniform", return_value=0.0):
        run_virtually(main(client))


@pytest.mark.parametrize("seed", range(3))
def test_the_store_keeps_pace_with_a_limiter_in_one_process(redis_server: RedisServer, seed: int) -> None:
    """Minutes with others that come and go: closings, even pacing that grows, and its end."""
    dice = random.Random(seed)

    async def main(client: redis.Redis) -> bool:
        twins = Twins(client, (Limit(30, 6.0), Limit(2000, 60.0)))
        was_paced = False
        for _ in range(60):
            twins.server.count(twins.now / 1_000_000)  # by a previous run
            twins.now += 100_000
        for step in range(1500):
            twins.now += dice.randrange(20_000, 150_000)
            burst = 20 * (step == 300)
            for _ in range(burst + (dice.random() < (0.2, 0.6, 0.0)[step // 500])):
                twins.server.count(twins.now / 1_000_000)
            await twins.send()
            while twins.flying and dice.random() < 0.7:
                twins.answer(0 if dice.random() < 0.9 else 1)
            was_paced = was_paced or twins.limiter.stats().pacing
        assert twins.server.refused
        return was_paced and not twins.limiter.stats().pacing

    with redis_server.client() as client, mock.patch.object(random, "uniform", return_value=0.0):
        assert run_virtually(main(client))
