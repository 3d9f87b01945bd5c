"""The laws of a memory that comes back older: in Redis and in a file, with one history for both.

Workers spend a quota with random latencies, lose some answers, and do not send some requests. The store is
restored from an older copy, and each worker that is alive asks. The server that counts each request at the
worst instant finds no window overdrawn, and no token is lost for good.
"""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing, closing, suppress
from typing import Any, Literal, cast

import msgspec
import pytest
import redis

from do_images_async import TokenBucket
from do_images_async._quota import worker as workers
from do_images_async._quota.protocols import Permit
from do_images_async._quota.store import Exchange, Reply
from do_images_async._quota.worker import Worker, WorkerOptions
from do_images_async.errors import QuotaWaitError
from do_images_async.redis import store
from do_images_async.redis.store import RedisStore
from tests.support import quota_models
from tests.support.redis_servers import RedisServer, needs_redis, redis_server, shared_redis
from tests.support.slow import fewer
from tests.support.virtual_file import VirtualFile
from tests.support.virtual_redis import SCRIPT_BY_ARGUMENT, START
from tests.support.virtual_time import clock, run_virtually

__all__ = ["redis_server", "shared_redis"]  # fixtures

BUCKETS = (TokenBucket(12, per=5, margin=0), TokenBucket(60, per=60, margin=0))
GRACE = 3.0
OPTIONS = WorkerOptions(buckets=BUCKETS, grace=GRACE)

Loss = Literal["restart", "in place"]
"""Whether the server has restarted on an older copy, or was given one while it ran."""


def now() -> int:
    return START + clock() // 1000


class RedisCopy:
    """A Redis whose keys a test replaces by older ones."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._script = client.register_script(SCRIPT_BY_ARGUMENT)
        self._keys: list[bytes] = vars(RedisStore(cast("Any", client), f"copy{next(numbers)}", BUCKETS, 1.0))[
            "_keys"
        ]
        self._history = 0
        self._dumps: dict[bytes, bytes] = {}

    def exchange(self, exchange: Exchange) -> Reply:
        text = self._script(keys=self._keys, args=[msgspec.json.encode(exchange), now(), self._history])
        return to_reply(msgspec.json.decode(text))

    def back_up(self) -> None:
        dumps = {key: self._client.dump(key) for key in self._keys}
        self._dumps = {key: dump for key, dump in dumps.items() if dump is not None}

    def restore(self, *, replace: bool) -> None:
        self._client.delete(*self._keys)
        for key, dump in self._dumps.items():
            self._client.restore(key, 0, dump)
        self._history += replace

    def close(self) -> None: ...


class Slow:
    """A store that takes a while to answer."""

    def __init__(self, store: RedisCopy | VirtualFile) -> None:
        self._store = store
        self.lost = 0

    async def exchange(self, exchange: Exchange) -> Reply:
        await asyncio.sleep(0.001)
        reply = self._store.exchange(exchange)
        await asyncio.sleep(0.001)
        self.lost += reply.lost
        return reply


to_reply: Callable[[dict[str, Any]], Reply] = vars(store)["_reply"]
numbers = itertools.count()


class Callers:
    """The calls of some workers, and what the server may have counted."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.past: list[quota_models.Exchange] = []

    async def call(self, worker: Worker, until: float) -> None:
        """Make calls, each of which is answered, lost, or not sent."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(self._dice.choice([0.0, 0.1, 2.0]))
            try:
                permit = await worker.acquire(max_wait=max(0.0, until - loop.time()))
            except QuotaWaitError:
                continue
            granted = now()
            await asyncio.sleep(self._dice.choice([0.01, 0.2, 1.5]))
            end = self._dice.choice(["settle"] * 6 + ["lose", "release"])
            if end != "release":
                latest = now() + (round(GRACE * 1e6) if end == "lose" else 0)
                self.past.append(quota_models.Exchange(granted, latest))
            getattr(permit, end)()

    async def hold(self, worker: Worker) -> Callable[[], None]:
        """Take a permit; return a function that settles it, by which the worker hears of a loss."""
        permit, granted = await worker.acquire(), now()

        def report() -> None:
            self.past.append(quota_models.Exchange(granted, now()))
            permit.settle()

        return report

    def check(self) -> None:
        for bucket in BUCKETS:
            assert quota_models.most_in_a_window(self.past, round(bucket.per * 1e6)) <= bucket.capacity


async def ask(worker: Worker) -> None:
    with suppress(QuotaWaitError):
        (await worker.acquire(max_wait=0)).release()


@pytest.fixture(autouse=True)
def virtual_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "clock_ns", clock)


def spend_and_restore(copy: RedisCopy | VirtualFile, seed: int, loss: Loss) -> None:
    """Let workers spend the quota while the store is restored from an older copy, and check the laws."""
    dice = random.Random(seed)

    async def main() -> None:
        callers, slow = Callers(dice), Slow(copy)
        async with AsyncExitStack() as stack:
            members = [await stack.enter_async_context(aclosing(Worker(slow, OPTIONS))) for _ in range(3)]
            reports = [await callers.hold(worker) for worker in members]
            calls = [asyncio.create_task(callers.call(worker, 90.0)) for worker in members for _ in range(4)]
            await asyncio.sleep(dice.uniform(1, 20))
            copy.back_up()
            await asyncio.sleep(dice.uniform(0, 20))
            copy.restore(replace=loss == "restart")
            newcomer = await stack.enter_async_context(aclosing(Worker(slow, OPTIONS)))
            await ask(newcomer)
            for report in reports:
                report()
            calls += [asyncio.create_task(callers.call(newcomer, 90.0)) for _ in range(4)]
            await asyncio.gather(*calls)
            if loss == "restart":
                callers.check()
            assert slow.lost or loss == "in place"
            await asyncio.sleep(BUCKETS[-1].per + GRACE + OPTIONS.lease)
            for _ in range(2):
                await ask(members[0])
                await asyncio.sleep(1)
            assert members[0].stats().available == tuple(bucket.capacity for bucket in BUCKETS)

    run_virtually(main(), turn=1000)


LOSSES = pytest.mark.parametrize("loss", ["restart", "in place"])
SEEDS = pytest.mark.parametrize("seed", fewer(range(8), 2))


@needs_redis
@LOSSES
@SEEDS
def test_in_redis_no_window_is_overdrawn_and_no_token_is_lost(
    redis_server: RedisServer, seed: int, loss: Loss
) -> None:
    with redis_server.client() as client:
        spend_and_restore(RedisCopy(client), seed, loss)


@LOSSES
@SEEDS
def test_in_a_file_no_window_is_overdrawn_and_no_token_is_lost(seed: int, loss: Loss) -> None:
    with closing(VirtualFile(BUCKETS, now)) as copy:
        spend_and_restore(copy, seed, loss)


class Twins:
    """A Redis and a file that are asked the same, and must answer the same."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = RedisCopy(client)
        self._file = VirtualFile(BUCKETS, now)
        self.replies: list[Reply] = []

    async def exchange(self, exchange: Exchange) -> Reply:
        await asyncio.sleep(0.01)
        reply, other = self._redis.exchange(exchange), self._file.exchange(exchange)
        for name in ("epoch", "lost", "gone", "age", "tickets", "free", "workers", "pacing", "serial"):
            assert getattr(reply, name) == getattr(other, name), name
        self.replies.append(reply)
        return reply

    def back_up(self) -> None:
        self._redis.back_up()
        self._file.back_up()

    def restore(self, *, replace: bool) -> None:
        self._redis.restore(replace=replace)
        self._file.restore(replace=replace)

    def close(self) -> None:
        self._file.close()


@needs_redis
@LOSSES
def test_redis_and_a_file_tell_one_history_of_a_loss(redis_server: RedisServer, loss: Loss) -> None:
    async def spend(worker: Worker, number: int) -> list[Permit]:
        permits = [await worker.acquire() for _ in range(number)]
        for permit in permits[1:]:
            permit.settle()
            await asyncio.sleep(0.1)
        return permits[:1]

    async def main(client: redis.Redis) -> None:
        async with AsyncExitStack() as stack:
            twins = stack.enter_context(closing(Twins(client)))
            old, new = Worker(twins, OPTIONS), Worker(twins, OPTIONS)
            for worker in (old, new):
                await stack.enter_async_context(aclosing(worker))
            in_flight = await spend(old, 4)
            twins.back_up()
            in_flight += await spend(old, 3)
            twins.restore(replace=loss == "restart")
            if loss == "restart":
                await ask(new)
            for permit in in_flight:
                permit.settle()
                await asyncio.sleep(0.3)
            lost = [reply for reply in twins.replies if reply.lost]
            assert [reply.age is not None for reply in lost] == [loss == "restart"]
            await ask(new)
            # A worker can't tell whether the last report before the copy is in it, and reports it again.
            spent = 7 + (loss == "restart")
            assert new.stats().available == tuple(bucket.capacity - spent for bucket in BUCKETS)
            await spend(new, 3)
            assert new.stats().pacing

    with redis_server.client() as client:
        run_virtually(main(client), turn=1000)
