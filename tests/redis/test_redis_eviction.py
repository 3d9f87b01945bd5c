"""Redis is short of memory and evicts one key of the quota while workers spend it."""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import cast

import pytest
from redis.asyncio import Redis

from do_images_async import TokenBucket
from do_images_async._quota import worker
from do_images_async._quota.protocols import Limiter, Permit
from do_images_async.redis import RedisRateLimiter
from do_images_async.redis.store import RedisStore
from tests.support.neighbours import Pauses, SharedServer, neighbours_calls
from tests.support.redis_servers import RedisServer, needs_redis, redis_server, shared_redis
from tests.support.simulation import MINUTE, Limit
from tests.support.slow import fewer
from tests.support.virtual_redis import virtual_redis
from tests.support.virtual_time import clock, run_virtually

__all__ = ["redis_server", "shared_redis"]  # fixtures

pytestmark = needs_redis

KINDS = ["state", "leases", "held", "wants", "dues", "passes", "others", "way", "back0", "back1"]
LIMITS = (MINUTE, Limit(15_000, 3600.0))


class Timed:
    """A limiter that grants nothing before an event, and notes when it does."""

    def __init__(self, limiter: Limiter, begin: asyncio.Event) -> None:
        self.grants: list[float] = []
        self._limiter = limiter
        self._begin = begin

    async def acquire(self) -> Permit | None:
        await self._begin.wait()
        permit = await self._limiter.acquire()
        self.grants.append(asyncio.get_running_loop().time())
        return permit


def nobody(_dice: random.Random, _rate: float) -> Iterator[float]:
    return itertools.repeat(1e9)


def spend(server: RedisServer, kind: str, neighbour: Pauses, minutes: int = 5) -> tuple[SharedServer, float]:
    """Let four workers spend the quota, and a fifth that comes half a minute after a key was deleted.

    Return the server that counts, and the longest time in which a worker got nothing.
    """
    shared = SharedServer(LIMITS, 1, pauses=neighbour)
    buckets = [TokenBucket(limit.capacity, per=limit.seconds) for limit in LIMITS]

    async def main() -> list[Timed]:
        start, evicted = asyncio.Event(), asyncio.Event()
        start.set()
        async with AsyncExitStack() as stack:
            limiters = [
                Timed(
                    await stack.enter_async_context(
                        RedisRateLimiter(virtual_redis(server), "dop_v1_a", *buckets, slow_start=False)
                    ),
                    begin,
                )
                for begin in (start, start, start, start, evicted)
            ]
            evicting = asyncio.create_task(evict(server, kind, evicted))
            await shared.run(cast("list[Limiter]", limiters), minutes * 60, callers=25)
            evicting.cancel()
            return limiters

    limiters = run_virtually(main(), turn=1000)
    assert all(each.grants for each in limiters), "there was no such key"
    gaps = (after - before for each in limiters for before, after in itertools.pairwise(each.grants))
    return shared, max(gaps)


async def evict(server: RedisServer, kind: str, evicted: asyncio.Event) -> None:
    await asyncio.sleep(100)
    with server.client() as client:
        while not client.delete(*cast("list[bytes]", client.keys(f"*:{kind}")), "no key"):  # noqa: ASYNC110
            await asyncio.sleep(1.7)
    await asyncio.sleep(30)
    evicted.set()


@pytest.fixture(autouse=True)
def virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    names = random.Random(1)  # who is served first among equals
    random.seed(1)
    monkeypatch.setattr(worker, "clock_ns", clock)
    monkeypatch.setattr("uuid.uuid4", lambda: uuid.UUID(int=names.getrandbits(128)))


@pytest.mark.parametrize("kind", fewer([kind for kind in KINDS if kind not in ("others", "way")]))
def test_workers_alone_are_refused_nothing_and_lose_two_seconds_at_most(
    redis_server: RedisServer, kind: str
) -> None:
    shared, gap = spend(redis_server, kind, nobody)
    assert not shared.refusals
    assert shared.accepted >= 0.98 * 5 * MINUTE.capacity
    assert gap <= MINUTE.seconds + 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_beside_others_an_eviction_costs_a_refusal_a_closing(redis_server: RedisServer, kind: str) -> None:
    shared, gap = spend(redis_server, kind, neighbours_calls)
    left = 5 * MINUTE.capacity - shared.sent_by_neighbour
    assert sum(shared.refusals) <= 20, shared.refusals
    assert set(shared.refusals) <= {1, 2}, shared.refusals
    assert shared.accepted >= 0.9 * left
    assert gap <= MINUTE.seconds + 3


def test_there_are_no_other_kinds_of_keys() -> None:
    store = RedisStore(Redis(), "quota", (TokenBucket(1, per=1), TokenBucket(2, per=2)), 1.0)
    assert [key.decode().removeprefix("quota:") for key in vars(store)["_keys"]] == KINDS
