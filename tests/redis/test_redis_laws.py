"""The laws of the shared quota: the script that Redis runs, with a clock that the test moves.

Workers come and go, die, ask twice, and report late. Whatever they do, the server that counts each request at
the worst instant of its exchange finds no window of any bucket overdrawn, and no token is lost for good.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Any

import attrs
import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from do_images_async._quota.store import Answered, microseconds
from do_images_async._quota.store import Exchange as Ask
from tests.support.quota_models import Exchange, most_in_a_window
from tests.support.redis_servers import RedisServer, needs_redis, shared_redis
from tests.support.slow import examples
from tests.support.virtual_redis import SCRIPT_BY_ARGUMENT, START

__all__ = ["shared_redis"]  # a fixture

pytestmark = needs_redis

PARTS = ("state", "leases", "held", "wants", "dues", "passes", "others", "way", "back0", "back1")
TICK = 1000
LEASE, GRACE = 40 * TICK, 15 * TICK
numbers = itertools.count()


@attrs.define
class Worker:
    """The state of one worker."""

    name: str
    epoch: str = ""
    joined: bool = False
    flying: list[tuple[int, int, int]] = attrs.field(factory=list[tuple[int, int, int]])
    """Serial, finished and moment of the grant of each request in flight."""
    answered: list[Answered] = attrs.field(factory=list[Answered])
    lost: int = 0
    unsent: int = 0
    waiting: int = 0
    lease_ends: int = 0


class World:
    """The workers, the store, and what the server may have counted."""

    slow_start = False

    def __init__(self, client: redis.Redis, buckets: list[tuple[int, int]]) -> None:
        self.client = client
        self.key = f"law{next(numbers)}"
        self.buckets = sorted(buckets, key=lambda bucket: bucket[1])
        self.now = START
        self.workers: list[Worker] = []
        self.names = itertools.count()
        self.asked = itertools.count(1)
        self.past: list[Exchange] = []
        self.script = client.register_script(SCRIPT_BY_ARGUMENT)

    def join(self) -> Worker:
        worker = Worker(f"w{next(self.names)}")
        self.workers.append(worker)
        return worker

    def exchange(
        self,
        worker: Worker,
        want: int,
        *,
        twice: bool = False,
        settling: int = 0,
        stopped: int = 0,
        at_once: bool = False,
    ) -> dict[str, Any]:
        """Make an exchange, perhaps twice, or again after the process was stopped for some time."""
        pending = len(worker.answered) + worker.lost + worker.unsent
        ask = Ask(
            number=str(next(self.asked)),
            worker=worker.name,
            epoch=worker.epoch,
            new_epoch="one",
            joined=worker.joined and bool(worker.flying or pending),
            holds=len(worker.flying) + pending,
            answered=worker.answered,
            lost=worker.lost,
            unsent=worker.unsent,
            elsewhere=[],
            settling=settling,
            wants=[(0, want)] if want else [],
            at_once=at_once,
            slow_start=self.slow_start,
            buckets=self.buckets,
            lease=LEASE,
            grace=GRACE,
            clock=self.now,
            jitter=0.0,
        )
        reply = self._send(ask)
        if twice:
            assert self._send(ask) == reply
        if stopped:
            self.now += stopped
            reply = self._send(ask)
        if reply.get("gone"):
            self._start_anew(worker)
            return self.exchange(worker, want, twice=twice, settling=settling)
        worker.epoch, worker.joined, worker.lease_ends = reply["epoch"], True, self.now + LEASE
        worker.answered, worker.lost, worker.unsent = [], 0, 0
        serials = [serial for _, some in reply["granted"] for serial in some]
        worker.flying += [(serial, reply["finished"], self.now) for serial in serials]
        worker.waiting = want - len(serials)
        return reply

    def _send(self, ask: Ask) -> dict[str, Any]:
        answer = self.script(
            keys=[f"{self.key}:{part}" for part in PARTS[: 9 + len(self.buckets)]],
            args=[msgspec.json.encode(ask), self.now],
        )
        reply: dict[str, Any] = msgspec.json.decode(answer)
        reply["granted"] = [(reserve, list(some)) for reserve, some in reply.get("granted", ())]
        return reply

    def _start_anew(self, worker: Worker) -> None:
        """Note that the store removed a worker: the server may count its requests until the store says."""
        self._abandon(worker)
        worker.name, worker.joined = f"w{next(self.names)}", False
        worker.answered, worker.lost, worker.unsent = [], 0, 0

    def _abandon(self, worker: Worker) -> None:
        latest = worker.lease_ends + GRACE
        self.past += [Exchange(moment, latest) for _, _, moment in worker.flying]
        worker.flying = []

    def answer(self, worker: Worker) -> None:
        serial, finished, moment = worker.flying.pop(0)
        self.past.append(Exchange(moment, min(self.now, worker.lease_ends + GRACE)))
        worker.answered.append(
            Answered(
                at=self.now,
                serial=serial,
                finished=finished,
                remaining=None,
                counted=None,
                refused=False,
                retry_after=None,
                reset_in=None,
            )
        )

    def lose(self, worker: Worker) -> None:
        _, _, moment = worker.flying.pop(0)
        self.past.append(Exchange(moment, self.now + GRACE))
        worker.lost += 1

    def unsend(self, worker: Worker) -> None:
        worker.flying.pop()
        worker.unsent += 1

    def die(self, worker: Worker) -> None:
        self._abandon(worker)
        self.workers.remove(worker)

    def check(self) -> None:
        flying = [
            # Without a lease nothing is sent, so all is counted when the grace is over.
            Exchange(moment, max(worker.lease_ends, min(self.now, worker.lease_ends + GRACE)))
            for worker in self.workers
            for _, _, moment in worker.flying
        ]
        for capacity, period in self.buckets:
            assert most_in_a_window([*self.past, *flying], period) <= capacity


law = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

bucket = st.tuples(st.integers(1, 6), st.integers(1, 60).map(lambda ticks: ticks * TICK))
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["ask", "ask", "ask", "answer", "answer", "lose", "unsend", "wait", "wait", "die", "join"]
        ),
        st.integers(0, 7),
        st.integers(0, 30),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def client(shared_redis: RedisServer) -> Iterator[redis.Redis]:
    with shared_redis.client() as connected:
        yield connected


def run(world: World, moves: list[tuple[str, int, int]]) -> None:
    for move, which, amount in moves:
        if move == "join" or not world.workers:
            world.join()
            continue
        worker = world.workers[which % len(world.workers)]
        if move == "ask":
            stopped = 5 * amount * TICK if amount % 5 == 4 else 0
            world.exchange(worker, amount % 8, twice=amount % 3 == 0, stopped=stopped)
        elif move == "wait":
            world.now += amount * TICK
        elif move == "die":
            world.die(worker)
        elif worker.flying:
            {"answer": world.answer, "lose": world.lose, "unsend": world.unsend}[move](worker)
        # A worker whose lease is over sends nothing, so its requests went out before.
        world.check()


@settings(law, max_examples=examples(150))
@given(st.lists(bucket, min_size=1, max_size=2), steps, st.booleans())
def test_no_window_is_ever_overdrawn(
    client: redis.Redis, buckets: list[tuple[int, int]], moves: list[tuple[str, int, int]], slow_start: bool
) -> None:
    world = World(client, buckets)
    world.slow_start = slow_start
    run(world, moves)


@settings(law, max_examples=examples(100))
@given(st.lists(bucket, min_size=1, max_size=2), steps, st.booleans())
def test_no_token_is_lost_for_good(
    client: redis.Redis, buckets: list[tuple[int, int]], moves: list[tuple[str, int, int]], slow_start: bool
) -> None:
    world = World(client, buckets)
    world.slow_start = slow_start
    run(world, moves)
    for worker in list(world.workers):
        world.die(worker)
    # Those who were told to come back are waited for, a moment past their time.
    world.now += LEASE + GRACE + max(period for _, period in buckets) + microseconds(1.3)
    fewest = min(capacity for capacity, _ in buckets)
    reply = world.exchange(world.join(), fewest, at_once=True)
    assert reply["granted"] == [(0, reply["granted"][0][1])]
    assert len(reply["granted"][0][1]) == fewest
    assert reply["free"] == [capacity - fewest for capacity, _ in world.buckets]


@settings(law, max_examples=examples(60))
@given(st.integers(1, 40), st.lists(st.integers(1, 30), min_size=2, max_size=5))
def test_what_comes_back_is_shared_evenly(client: redis.Redis, capacity: int, wants: list[int]) -> None:
    """All wait for what comes back at one moment, and look when they were told to."""
    world = World(client, [(capacity, microseconds(2))])
    spender = world.join()
    world.exchange(spender, capacity)
    for _ in range(capacity):
        world.answer(spender)
    world.exchange(spender, 0)
    workers = [world.join() for _ in wants]
    got = [0] * len(workers)
    visits = [(world.now, index, want) for index, want in enumerate(wants)]
    while visits and visits[0][0] < START + microseconds(3):
        world.now, index, want = heapq.heappop(visits)
        reply = world.exchange(workers[index], want)
        got[index] += want - workers[index].waiting
        if workers[index].waiting:
            heapq.heappush(visits, (world.now + int(reply["wait"]), index, workers[index].waiting))
    assert sum(got) == min(capacity, sum(wants))
    for worker, amount in zip(workers, got, strict=True):
        if worker.waiting:
            assert amount >= max(got) - 1


def test_a_worker_that_does_not_come_is_not_waited_for(client: redis.Redis) -> None:
    world = World(client, [(4, 20 * TICK)])
    spender, absent, present = world.join(), world.join(), world.join()
    world.exchange(spender, 4)
    world.exchange(absent, 4)
    world.exchange(present, 4)
    for _ in range(4):
        world.answer(spender)
    world.exchange(spender, 0)
    world.now += microseconds(1.3)
    world.exchange(present, 4)
    assert present.waiting == 0


def test_nothing_is_granted_while_workers_tell_what_the_store_does_not_know(client: redis.Redis) -> None:
    world = World(client, [(4, 20 * TICK)])
    worker = world.join()
    reply = world.exchange(worker, 1, settling=microseconds(2))
    assert worker.waiting == 1
    assert reply["wait"] == microseconds(2)


def test_the_laws_have_teeth(client: redis.Redis) -> None:
    """A script that gives a token back a moment too early is caught."""
    world = World(client, [(1, 10 * TICK)])
    world.script = client.register_script(
        SCRIPT_BY_ARGUMENT.replace("+ bucket.period", "+ bucket.period - 1")
    )
    worker = world.join()
    world.exchange(worker, 1)
    world.answer(worker)
    world.exchange(worker, 0)
    world.now += 10 * TICK - 1
    world.exchange(worker, 1)
    assert worker.waiting == 0
    with pytest.raises(AssertionError):
        world.check()
