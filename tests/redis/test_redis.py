"""The quota in Redis, as its users see it: a real server, real waits, several workers in one process."""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from do_images_async import ImagesAPI, TokenBucket
from do_images_async._quota.protocols import Report
from do_images_async._quota.worker import Worker
from do_images_async.errors import ClientStateError, QuotaStoreError, QuotaWaitError
from do_images_async.redis import RedisRateLimiter
from do_images_async.testing import ImagesEmulator, Quota
from do_images_async.testing.quota import QuotaLog
from tests.support.limiters import expect_next_permit_in_without_waiting_calls, is_spent, take
from tests.support.redis_servers import RedisServer, needs_redis, own_redis, redis_server, shared_redis
from tests.support.servers import eventually
from tests.support.virtual_redis import virtual_redis
from tests.support.virtual_time import run_virtually

__all__ = ["own_redis", "redis_server", "shared_redis"]  # fixtures

pytestmark = needs_redis

TOKEN = "dop_v1_" + "5ec7e7" * 10
MINUTE = TokenBucket(250, per=60)

Make = Callable[..., RedisRateLimiter]


@asynccontextmanager
async def workers(server: RedisServer) -> AsyncGenerator[Make]:
    """A factory of limiters, each with its own connection as in its own process. It also closes them.

    Tests take permits that they do not settle, so these limiters start at once with any number in flight.
    """
    async with AsyncExitStack() as stack:

        def make(
            *buckets: TokenBucket, token: str = TOKEN, slow_start: bool = False, **options: Any
        ) -> RedisRateLimiter:
            client = Redis.from_url(server.url)
            stack.push_async_callback(client.aclose)
            limiter = RedisRateLimiter(
                client, token, *(buckets or (MINUTE,)), slow_start=slow_start, **options
            )
            stack.push_async_callback(limiter.aclose)
            return limiter

        yield make


@pytest.fixture
async def make(redis_server: RedisServer) -> AsyncIterator[Make]:
    async with workers(redis_server) as maker:
        yield maker


# One quota for all.


async def test_workers_spend_one_quota(make: Make) -> None:
    one, other = make(TokenBucket(5, per=60)), make(TokenBucket(5, per=60))
    await take(one, 3)
    await take(other, 2)
    assert await is_spent(one)
    assert await is_spent(other)


async def test_another_token_is_another_quota(make: Make) -> None:
    one, other = make(TokenBucket(5, per=60)), make(TokenBucket(5, per=60), token="dop_v1_another")
    await take(one, 5)
    assert not await is_spent(other)


async def test_tokens_come_back_a_period_after_the_answer(make: Make) -> None:
    limiter = make(TokenBucket(2, per=0.4, margin=0.1))
    permits = await take(limiter, 2)
    await asyncio.sleep(0.2)
    for permit in permits:
        permit.settle()
    answered = time.monotonic()
    await limiter.acquire()
    assert time.monotonic() - answered >= 0.5


async def test_what_was_never_sent_is_free_again_at_once_for_all(make: Make) -> None:
    one, other = make(TokenBucket(1, per=60)), make(TokenBucket(1, per=60))
    (permit,) = await take(one, 1)
    permit.release()
    await eventually_granted(other)


async def eventually_granted(limiter: RedisRateLimiter) -> None:
    async with asyncio.timeout(10):
        (await limiter.acquire()).release()


async def test_what_was_lost_comes_back_a_grace_later(make: Make) -> None:
    limiter = make(TokenBucket(1, per=0.2, margin=0), grace=0.5)
    (permit,) = await take(limiter, 1)
    permit.lose()
    lost = time.monotonic()
    await limiter.acquire()
    assert time.monotonic() - lost >= 0.7


async def test_every_bucket_holds(make: Make) -> None:
    limiter = make(TokenBucket(100, per=0.2, margin=0), TokenBucket(5, per=60))
    for permit in await take(limiter, 5):
        permit.settle()
    await asyncio.sleep(0.4)
    assert await is_spent(limiter)


async def test_a_permit_reports_once(make: Make) -> None:
    limiter = make(TokenBucket(3, per=60))
    (permit,) = await take(limiter, 1)
    permit.settle()
    permit.release()
    permit.lose()
    permit.settle()
    await take(limiter, 2)
    assert await is_spent(limiter)
    assert limiter.stats().granted == 3


async def test_no_window_is_overdrawn_by_workers_with_jittered_latencies(make: Make) -> None:
    buckets = (TokenBucket(40, per=0.25, margin=0.02), TokenBucket(150, per=1.5, margin=0.05))
    limiters = [make(*buckets) for _ in range(3)]
    log = QuotaLog([Quota(40, 0.25), Quota(150, 1.5)])
    rejected = accepted = 0

    async def call(limiter: RedisRateLimiter) -> None:
        nonlocal rejected, accepted
        permit = await limiter.acquire()
        await asyncio.sleep(random.uniform(0, 0.05))
        verdict = log.record(time.monotonic())
        accepted += verdict.accepted
        rejected += not verdict.accepted
        await asyncio.sleep(random.uniform(0, 0.05))
        permit.settle(Report(remaining=verdict.remaining))

    await asyncio.gather(*(call(limiter) for limiter in limiters for _ in range(60)))
    assert (accepted, rejected) == (180, 0)


async def test_under_load_one_round_trip_serves_many_calls(make: Make, redis_server: RedisServer) -> None:
    limiter = make(TokenBucket(10_000, per=60))

    async def call() -> None:
        (await limiter.acquire()).settle()

    before = exchanges(redis_server)
    for _ in range(10):
        await asyncio.gather(*(call() for _ in range(100)))
    assert exchanges(redis_server) - before < 100


def exchanges(server: RedisServer) -> int:
    """Return how many exchanges the server has carried out."""
    with server.client() as client:
        return int(client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_who_waits_does_not_poll(make: Make, redis_server: RedisServer) -> None:
    waits: list[float] = []
    limiter = make(TokenBucket(1, per=60), on_wait=waits.append)
    (permit,) = await take(limiter, 1)
    permit.settle()
    waiting = asyncio.create_task(limiter.acquire())
    await eventually(lambda: any(wait > 50 for wait in waits))
    before = exchanges(redis_server)
    await asyncio.sleep(1)
    assert exchanges(redis_server) == before
    waiting.cancel()


# Waiting.


async def test_max_wait_fails_fast_with_how_long_it_would_be(make: Make) -> None:
    limiter = make(TokenBucket(1, per=60, margin=0))
    (permit,) = await take(limiter, 1)
    permit.settle()
    with pytest.raises(QuotaWaitError) as caught:
        await limiter.acquire(max_wait=30)
    assert 55 < caught.value.wait < 70
    assert limiter.stats().waiting == 0


async def test_a_newcomer_behind_others_fails_fast_as_well(make: Make) -> None:
    waits: list[float] = []
    limiter = make(TokenBucket(1, per=60, margin=0), on_wait=waits.append)
    (permit,) = await take(limiter, 1)
    permit.settle()
    waiting = asyncio.create_task(limiter.acquire())
    await eventually(lambda: any(wait > 50 for wait in waits))
    with pytest.raises(QuotaWaitError):
        await limiter.acquire(max_wait=30)
    waiting.cancel()


async def test_a_wait_within_max_wait_is_waited_for(make: Make) -> None:
    limiter = make(TokenBucket(1, per=0.3))
    (permit,) = await take(limiter, 1)
    permit.settle()
    await limiter.acquire(max_wait=30)


async def test_first_come_first_served_in_one_worker(make: Make) -> None:
    limiter = make(TokenBucket(1, per=0.05, margin=0))
    order: list[int] = []

    async def call(number: int) -> None:
        permit = await limiter.acquire()
        order.append(number)
        permit.settle()

    await asyncio.gather(*(call(number) for number in range(8)))
    assert order == sorted(order)


async def test_a_reserve_is_left_to_those_who_need_none(make: Make) -> None:
    limiter = make(TokenBucket(10, per=60))
    await take(limiter, 6, reserve=4)
    with pytest.raises(QuotaWaitError):
        await limiter.acquire(max_wait=0, reserve=4)
    await take(limiter, 4)
    assert await is_spent(limiter)


async def test_a_call_without_reserve_passes_those_that_wait_with_one(make: Make) -> None:
    waits: list[float] = []
    bulk, interactive = make(TokenBucket(3, per=60), on_wait=waits.append), make(TokenBucket(3, per=60))
    await take(bulk, 1)
    waiting = [asyncio.create_task(bulk.acquire(reserve=2)) for _ in range(5)]
    await eventually(lambda: len(waits) == 5)
    await take(interactive, 1, max_wait=5)
    for task in waiting:
        task.cancel()


@pytest.mark.parametrize(
    ("reserve", "error"), [(-1, ValueError), (10, ValueError), (True, TypeError), ("1", TypeError)]
)
async def test_an_impossible_reserve_is_refused(make: Make, reserve: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="reserve"):
        await make(TokenBucket(10, per=60)).acquire(reserve=reserve)


def test_waiting_workers_get_equal_shares(redis_server: RedisServer) -> None:
    bucket = TokenBucket(40, per=0.5, margin=0)
    served = {"greedy": 0, "modest": 0}

    async def call(name: str, limiter: RedisRateLimiter) -> None:
        while True:
            permit = await limiter.acquire()
            await asyncio.sleep(0.01)
            permit.settle()
            served[name] += 1

    async def main() -> None:
        async with (
            RedisRateLimiter(virtual_redis(redis_server), TOKEN, bucket, slow_start=False) as greedy,
            RedisRateLimiter(virtual_redis(redis_server), TOKEN, bucket, slow_start=False) as modest,
        ):
            tasks = [asyncio.create_task(call("greedy", greedy)) for _ in range(200)]
            tasks += [asyncio.create_task(call("modest", modest)) for _ in range(20)]
            await asyncio.sleep(4)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    run_virtually(main(), turn=1000)
    assert served["modest"] > 0.45 * sum(served.values()), served
    assert sum(served.values()) > 0.9 * 40 * 4 / 0.5, served


async def test_a_cancelled_waiter_takes_no_token(make: Make) -> None:
    waits: list[float] = []
    limiter = make(TokenBucket(2, per=0.5), on_wait=waits.append)
    for permit in await take(limiter, 2):
        permit.settle()
    waiting = [asyncio.create_task(limiter.acquire()) for _ in range(4)]
    await eventually(lambda: len(waits) == 4)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await take(limiter, 2)
    assert limiter.stats().in_flight == 2


async def test_a_permit_that_arrives_with_the_cancellation_is_handed_back(make: Make) -> None:
    limiter = make(TokenBucket(20, per=60))
    for _ in range(20):
        task = asyncio.create_task(limiter.acquire())
        for _ in range(random.randrange(8)):
            await asyncio.sleep(0)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if not isinstance(outcome, BaseException):
            outcome.release()
    await eventually(lambda: limiter.stats().in_flight == 0)
    assert len(await take(limiter, 20, max_wait=10)) == 20


async def test_on_wait_hears_of_waits(make: Make) -> None:
    waits: list[float] = []
    limiter = make(TokenBucket(1, per=0.3, margin=0), on_wait=waits.append)
    for _ in range(2):
        (await limiter.acquire()).settle()
    assert len(waits) == 1
    assert 0 < waits[0] <= 0.3


async def test_next_permit_in_is_known_while_no_call_waits(make: Make) -> None:
    await expect_next_permit_in_without_waiting_calls(make(TokenBucket(2, per=60, margin=0)))


async def test_stats_and_repr_tell_where_it_stands(make: Make) -> None:
    limiter = make(TokenBucket(2, per=60))
    await take(limiter, 2)
    waiting = asyncio.create_task(limiter.acquire())
    await eventually(lambda: limiter.stats().waiting == 1)
    stats = limiter.stats()
    assert (stats.granted, stats.in_flight, stats.waiting, stats.available) == (2, 2, 1, (0,))
    assert repr(limiter) == "<RedisRateLimiter 2 per 60 s; 2 in flight, 1 waiting>"
    waiting.cancel()


# What the server says.


async def test_a_refusal_closes_every_worker_and_one_probe_goes_first(make: Make) -> None:
    one, other = make(TokenBucket(1000, per=60)), make(TokenBucket(1000, per=60))
    (permit,) = await take(one, 1)
    permit.settle(Report(refused=True, retry_after=1.0))
    refused = time.monotonic()
    await is_known(one)
    with pytest.raises(QuotaWaitError) as caught:
        await other.acquire(max_wait=0)
    assert 0 < caught.value.wait < 2  # a second, and an exchange with the store
    calls = [asyncio.create_task(limiter.acquire()) for limiter in (one, other) for _ in range(3)]
    done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert time.monotonic() - refused >= 1
    await asyncio.sleep(0.6)
    assert sum(task.done() for task in calls) == 1
    done.pop().result().settle(Report())
    async with asyncio.timeout(30):
        for task in asyncio.as_completed(waiting):
            (await task).settle(Report())


async def test_the_last_word_on_what_remains_binds_every_worker(make: Make) -> None:
    one, other = make(TokenBucket(100, per=60)), make(TokenBucket(100, per=60))
    (permit,) = await take(one, 1)
    permit.settle(Report(remaining=3, reset_in=50.0))
    await is_known(one)
    await take(other, 3, max_wait=5)
    with pytest.raises(QuotaWaitError):
        await one.acquire(max_wait=0)


async def test_others_who_spend_the_token_too_turn_on_even_pacing(make: Make) -> None:
    limiter = make(TokenBucket(20, per=2))
    for counted in (1, 11):
        (permit,) = await take(limiter, 1)
        permit.settle(Report(remaining=50, counted=counted))
        await is_known(limiter)
    started = time.monotonic()
    for _ in range(6):
        (await limiter.acquire()).settle()
    assert limiter.stats().pacing
    assert time.monotonic() - started > 0.3


# Workers that go, and stores that go.


async def test_a_dead_workers_tokens_come_back_after_its_lease_and_grace(make: Make) -> None:
    bucket = TokenBucket(2, per=0.3, margin=0)
    dead, alive = make(bucket, lease=0.4, grace=0.2), make(bucket, lease=0.4, grace=0.2)
    started = time.monotonic()
    await take(dead, 2)
    die(dead)
    async with asyncio.timeout(20):
        await take(alive, 2)
    assert time.monotonic() - started >= 0.9


def worker_of(limiter: RedisRateLimiter) -> Worker:
    worker: Worker = vars(limiter)["_worker"]
    return worker


async def is_known(limiter: RedisRateLimiter) -> None:
    """Return when a worker has nothing to report to Redis."""
    await eventually(lambda: not worker_of(limiter).has_reports, within=60)


def die(limiter: RedisRateLimiter) -> None:
    """Stop a limiter as SIGKILL does: it reports nothing more."""
    worker = worker_of(limiter)
    pump: asyncio.Task[None] = vars(worker)["_pump"]
    pump.cancel()
    vars(worker)["_closed"] = True
    vars(worker)["_loop"] = None


async def test_the_lease_is_renewed_while_requests_are_under_way(make: Make) -> None:
    bucket = TokenBucket(1, per=0.1, margin=0)
    slow, other = make(bucket, lease=1, grace=0), make(bucket, lease=1, grace=0)
    (permit,) = await take(slow, 1)
    waiting = asyncio.create_task(other.acquire())
    await asyncio.sleep(2.5)
    assert not waiting.done()
    permit.settle()
    await waiting


async def test_a_worker_that_was_stopped_uses_no_permit_of_before(make: Make) -> None:
    """The loop is blocked between the grant and its use, as SIGSTOP does, past the lease."""
    limiter = make(TokenBucket(2, per=60), lease=0.3)

    async def call() -> float:
        await limiter.acquire(max_wait=5)
        return time.monotonic()

    granted = asyncio.create_task(call())
    while not limiter.stats().granted:  # noqa: ASYNC110 (the very turn of the loop matters)
        await asyncio.sleep(0)
    time.sleep(0.5)  # noqa: ASYNC251
    resumed = time.monotonic()
    assert await granted > resumed
    assert limiter.stats().in_flight == 1


async def test_what_a_given_up_worker_reports_late_is_not_counted_twice(make: Make) -> None:
    bucket = TokenBucket(4, per=0.3, margin=0)
    paused, other = make(bucket, lease=1, grace=0), make(bucket, lease=1, grace=0)
    permits = await take(paused, 2)
    time.sleep(1.5)  # noqa: ASYNC251  (the loop stands still past the lease, as under SIGSTOP)
    await take(other, 1)
    for permit in permits:
        permit.settle()
    await asyncio.sleep(0.8)
    assert len(await take(paused, 3, max_wait=5)) == 3
    assert await is_spent(other)


async def test_closing_tells_what_is_not_told_yet(make: Make) -> None:
    bucket = TokenBucket(1, per=0.3, margin=0)
    one, other = make(bucket, lease=30), make(bucket)
    (permit,) = await take(one, 1)
    permit.settle()
    await one.aclose()
    await take(other, 1, max_wait=5)


async def test_a_closed_limiter_says_so(make: Make) -> None:
    limiter = make(TokenBucket(1, per=60))
    await take(limiter, 1)
    waiting = asyncio.create_task(limiter.acquire())
    await eventually(lambda: limiter.stats().waiting == 1)
    await limiter.aclose()
    with pytest.raises(ClientStateError, match="closed"):
        await waiting
    with pytest.raises(ClientStateError, match="closed"):
        await limiter.acquire()
    with pytest.raises(ClientStateError, match="closed"):
        await limiter.__aenter__()


@pytest.mark.parametrize("turns", range(12))
async def test_closing_ends_whatever_swallows_a_cancellation(make: Make, turns: int) -> None:
    """The client of Redis does, on some versions, while it connects."""
    limiter = make(TokenBucket(10, per=60))
    await limiter.acquire()
    waiting = asyncio.create_task(limiter.acquire())
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await limiter.aclose()
    outcome = (await asyncio.gather(waiting, return_exceptions=True))[0]
    assert not isinstance(outcome, BaseException) or isinstance(outcome, ClientStateError)


async def test_closing_ends_while_the_store_hangs(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        limiter = make(store_timeout=1)
        (permit,) = await take(limiter, 1)
        own_redis.send(signal.SIGSTOP)
        permit.settle()
        try:
            async with asyncio.timeout(30):
                await limiter.aclose()
        finally:
            own_redis.send(signal.SIGCONT)


def test_a_limiter_belongs_to_one_event_loop(redis_server: RedisServer) -> None:
    client = Redis.from_url(redis_server.url)
    limiter = RedisRateLimiter(client, TOKEN)

    async def call() -> None:
        (await limiter.acquire()).release()
        await client.aclose()

    asyncio.run(call())
    with pytest.raises(ClientStateError, match="loop"):
        asyncio.run(call())


async def test_workers_that_disagree_on_the_quota_are_told(make: Make) -> None:
    await take(make(TokenBucket(5, per=60)), 1)
    with pytest.raises(ValueError, match="agree"):
        await make(TokenBucket(6, per=60)).acquire()


async def test_the_token_is_nowhere_in_redis_and_all_keys_expire(
    make: Make, redis_server: RedisServer
) -> None:
    waits: list[float] = []
    one = make(TokenBucket(2, per=60), on_wait=waits.append)
    (permit,) = await take(one, 1)
    permit.settle()
    waiting = [asyncio.create_task(one.acquire()) for _ in range(2)]
    await eventually(lambda: bool(waits))
    with redis_server.client() as client:
        keys = cast("list[bytes]", client.keys())
        assert len(keys) >= 7
        for key in keys:
            assert key.startswith(b"do-images:{")
            assert client.ttl(key) > 0
            content = client.dump(key)
            assert TOKEN.encode() not in key
            assert content is not None
            assert TOKEN.encode() not in content
    assert TOKEN not in repr(vars(one)) + repr(vars(worker_of(one)))
    for task in waiting:
        task.cancel()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token": ""}, "token"),
        ({"token": "with space"}, "token"),
        ({"on_store_failure": "ignore"}, "on_store_failure must be 'raise' or 'local', not 'ignore'"),
        ({"lease": 0}, "lease"),
        ({"grace": -1}, "grace"),
        ({"store_timeout": float("inf")}, "store_timeout"),
        ({"namespace": ""}, "namespace"),
    ],
)
async def test_what_can_not_be_used_is_refused(make: Make, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make(**options)
    assert "with space" not in str(caught.value)


@pytest.mark.parametrize("name", ["lease", "grace", "store_timeout", "namespace", "on_wait", "token"])
@pytest.mark.parametrize("value", [True, b"5", []], ids=repr)
async def test_what_is_of_another_type_is_refused(make: Make, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be "):
        make(**{name: value})


@pytest.mark.parametrize(
    "redis",
    [None, "redis://:sesame@localhost", SyncRedis()],
    ids=["nothing", "an address", "a blocking client"],
)
def test_a_store_is_a_client_that_awaits(redis: Any) -> None:
    with pytest.raises(TypeError, match=r"^redis must be a client of redis\.asyncio") as caught:
        RedisRateLimiter(redis, TOKEN)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp037", "utf-8-sig", "nonsense"])
def test_a_client_sends_the_script_as_it_is(encoding: str, decode: bool) -> None:
    redis = Redis(unix_socket_path="/nowhere", encoding=encoding, decode_responses=decode)
    with pytest.raises(ValueError, match="redis must be a client whose encoding leaves ASCII as it is"):
        RedisRateLimiter(redis, TOKEN)


async def test_clients_of_different_encodings_spend_one_quota(redis_server: RedisServer) -> None:
    options: list[dict[str, Any]] = [
        {"encoding": "utf-8"},
        {"encoding": "latin-1", "decode_responses": True},
        {"encoding": "ascii", "decode_responses": True, "protocol": 2},
    ]
    one_permit = TokenBucket(1, per=60)
    async with AsyncExitStack() as stack:
        limiters: list[RedisRateLimiter] = []
        for each in options:
            redis = await stack.enter_async_context(Redis(unix_socket_path=str(redis_server.path), **each))
            limiter = RedisRateLimiter(redis, TOKEN, one_permit, namespace="für uns")
            limiters.append(await stack.enter_async_context(limiter))
        await limiters[0].acquire()
        for limiter in limiters:
            with pytest.raises(QuotaWaitError):
                await limiter.acquire(max_wait=0)


async def test_limits_are_buckets(make: Make) -> None:
    with pytest.raises(TypeError, match=r"^buckets must be "):
        make(cast("TokenBucket", 5))


@pytest.mark.parametrize("bad", [True, "1"])
async def test_a_wait_is_a_number_of_seconds(make: Make, bad: Any) -> None:
    with pytest.raises(TypeError, match=r"^max_wait must be "):
        await make().acquire(max_wait=bad)


async def test_a_store_that_is_away_is_an_error_of_its_own(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        limiter = make(store_timeout=0.5)
        own_redis.stop()
        with pytest.raises(QuotaStoreError):
            await limiter.acquire()


async def test_a_store_that_hangs_is_given_up(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        limiter = make(store_timeout=1)
        await take(limiter, 1)
        own_redis.send(signal.SIGSTOP)
        with pytest.raises(QuotaStoreError):
            await limiter.acquire()
        own_redis.send(signal.SIGCONT)
        await eventually_granted(limiter)


async def test_an_exchange_whose_reply_was_lost_is_not_carried_out_twice(own_redis: RedisServer) -> None:
    """The frozen server executes the script when it goes on, and the limiter asks again."""
    async with workers(own_redis) as make:
        limiter = make(TokenBucket(6, per=60), store_timeout=1)
        await take(limiter, 1)
        own_redis.send(signal.SIGSTOP)
        with pytest.raises(QuotaStoreError):
            await limiter.acquire()
        own_redis.send(signal.SIGCONT)
        assert len(await take(limiter, 5, max_wait=10)) == 5
        assert await is_spent(limiter)


async def test_when_the_store_is_back_calls_go_on(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        limiter = make(store_timeout=1)
        await take(limiter, 1)
        own_redis.stop()
        with pytest.raises(QuotaStoreError):
            await limiter.acquire()
        own_redis.start()
        await eventually_granted(limiter)


async def test_a_store_that_came_back_with_an_older_memory_is_told_again(own_redis: RedisServer) -> None:
    """As from a snapshot of before, or from a replica that lagged behind."""
    async with workers(own_redis) as make:
        limiters = [make(TokenBucket(10, per=60)) for _ in range(2)]
        for limiter in limiters:
            for permit in await take(limiter, 1):
                permit.settle()
        await eventually(lambda: not any(limiter.stats().in_flight for limiter in limiters))
        with own_redis.client() as client:
            dumps = {key: client.dump(key) for key in cast("list[bytes]", client.keys())}
            for limiter in limiters:
                for permit in await take(limiter, 4):
                    permit.settle()
                await is_known(limiter)
            client.flushall()
            for key, dump in dumps.items():
                client.restore(key, 60_000, cast("bytes", dump))
        calls = [limiter.acquire(max_wait=20) for limiter in limiters]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [QuotaWaitError] * 2


async def test_a_replica_that_lacks_a_workers_last_report_is_told_again(own_redis: RedisServer) -> None:
    """Otherwise the worker would hold permits for ever that it has given back."""
    async with workers(own_redis) as make:
        limiter = make(TokenBucket(2, per=0.3, margin=0))
        permits = await take(limiter, 2)
        with own_redis.client() as client:
            dumps = {key: client.dump(key) for key in cast("list[bytes]", client.keys())}
            for permit in permits:
                permit.settle()
            await is_known(limiter)
            client.flushall()
            for key, dump in dumps.items():
                client.restore(key, 60_000, cast("bytes", dump))
        assert len(await take(limiter, 2, max_wait=20)) == 2


async def test_a_process_that_was_stopped_during_an_exchange_still_gets_its_answer(
    own_redis: RedisServer,
) -> None:
    """SIGSTOP stops the loop for longer than `store_timeout`, while the answer arrives."""
    async with workers(own_redis) as make:
        limiter = make(store_timeout=2)
        await take(limiter, 1)
        own_redis.send(signal.SIGSTOP)
        call = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0.1)
        threading.Timer(0.1, own_redis.send, [signal.SIGCONT]).start()
        time.sleep(2.5)  # noqa: ASYNC251  (the loop stands still, as under SIGSTOP)
        (await call).settle()


async def test_a_dropped_connection_fails_no_call(redis_server: RedisServer) -> None:
    async with workers(redis_server) as make:
        limiter = make(TokenBucket(1, per=0.1, margin=0))
        (permit,) = await take(limiter, 1)
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(20)]
        with redis_server.client() as client:
            for _ in range(5):
                client.client_kill_filter(_type="normal", skipme=True)
                permit.settle()
                done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                permit = done.pop().result()
                waiting = list(pending)
        for task in waiting:
            task.cancel()


@pytest.mark.parametrize("on_store_failure", ["raise", "local"])
async def test_a_server_that_lets_nobody_in_is_not_one_that_is_away(
    own_redis: RedisServer, on_store_failure: str
) -> None:
    async with workers(own_redis) as make:
        limiter = make(on_store_failure=on_store_failure)
        (permit,) = await take(limiter, 1)
        permit.release()
        await is_known(limiter)
        with own_redis.client() as client:
            client.acl_setuser("default", categories=["-@scripting"])
            with pytest.raises(QuotaStoreError, match="refuses this worker: NoPermissionError") as caught:
                await limiter.acquire()
            assert caught.value.refused
            client.acl_setuser("default", categories=["+@all"])
        await eventually_granted(limiter)


async def test_a_primary_that_its_replicas_have_left_is_one_that_is_away(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        limiter = make(store_timeout=2)
        await take(limiter, 1)
        with own_redis.client() as client:
            client.config_set("min-replicas-to-write", 1)
            with pytest.raises(QuotaStoreError, match=r"can't be reached: .*NOREPLICAS") as caught:
                await limiter.acquire()
            assert not caught.value.refused
            client.config_set("min-replicas-to-write", 0)
        await eventually_granted(limiter)


async def test_a_wrong_password_is_not_a_server_that_is_away(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        client.config_set("requirepass", "sesame")
    async with (
        Redis.from_url(own_redis.url, password="wrong") as wrong,
        RedisRateLimiter(wrong, TOKEN, on_store_failure="local") as limiter,
    ):
        with pytest.raises(QuotaStoreError, match=r"refuses this worker: .*password"):
            await limiter.acquire()


async def test_a_wrong_password_is_recognized_though_redis_py_tries_it_again(own_redis: RedisServer) -> None:
    with own_redis.client() as client:
        client.config_set("requirepass", "sesame")
    as_by_default = Retry(ExponentialBackoff(cap=10, base=1), 3)
    async with (
        Redis.from_url(own_redis.url, password="wrong", retry=as_by_default) as wrong,
        RedisRateLimiter(wrong, TOKEN, store_timeout=0.5, on_store_failure="local") as limiter,
    ):
        with pytest.raises(QuotaStoreError, match=r"refuses this worker: .*password") as caught:
            await limiter.acquire()
        assert caught.value.refused


async def test_a_store_that_lost_its_memory_is_told_again(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        limiters = [make(TokenBucket(10, per=60)) for _ in range(2)]
        for limiter in limiters:
            (answered, _under_way, *rest) = await take(limiter, 4)
            answered.settle()
            for permit in rest:
                permit.settle()
            await is_known(limiter)
        own_redis.stop()
        own_redis.start()
        calls = [asyncio.create_task(limiter.acquire()) for limiter in limiters]
        granted = await asyncio.wait_for(asyncio.gather(*calls), 20)
        assert len(granted) == 2
        for limiter in limiters:
            assert await is_spent(limiter)


async def test_without_the_store_a_worker_has_its_equal_share(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        bucket = TokenBucket(20, per=0.5, margin=0)
        options = {"on_store_failure": "local", "grace": 0, "store_timeout": 0.5}
        one, other = (make(bucket, **options) for _ in range(2))
        await take(other, 1)
        await take(one, 1)
        own_redis.stop()
        started = time.monotonic()
        served = 0
        while time.monotonic() - started < 3.5:
            (await one.acquire()).settle()
            served += 1
        # Nothing for the timeout and a period, then a half of the quota in each period.
        assert 20 <= served <= 70


async def test_without_the_store_nobody_waits_for_a_long_window_that_is_far_from_spent(
    own_redis: RedisServer,
) -> None:
    async with workers(own_redis) as make:
        buckets = TokenBucket(20, per=0.5, margin=0), TokenBucket(500, per=3600)
        one, other = (make(*buckets, on_store_failure="local", store_timeout=1) for _ in range(2))
        await take(other, 1)
        await take(one, 1)
        own_redis.stop()
        for limiter in (one, other):
            for _ in range(30):
                (await limiter.acquire(max_wait=60)).settle()


async def test_without_the_store_a_long_window_is_never_overdrawn(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        buckets = TokenBucket(20, per=0.5, margin=0), TokenBucket(100, per=3600)
        members = [make(*buckets, on_store_failure="local", store_timeout=1) for _ in range(2)]
        for member in members:
            await take(member, 1)
        for _ in range(40):  # which the second worker has not heard of
            (await members[0].acquire(max_wait=60)).settle()
        own_redis.stop()
        granted = 0
        for member in members:
            with contextlib.suppress(QuotaWaitError):
                while True:
                    (await member.acquire(max_wait=3)).settle()
                    granted += 1
        assert granted <= 100 - 42


async def test_calls_that_wait_without_the_store_return_to_it(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        limiter = make(TokenBucket(1, per=2), on_store_failure="local", grace=0)
        (permit,) = await take(limiter, 1)
        permit.release()
        await is_known(limiter)
        own_redis.stop()
        waiting = asyncio.create_task(limiter.acquire())
        await eventually(lambda: limiter.stats().waiting == 1 and limiter.next_permit_in() > 0)
        own_redis.start()
        async with asyncio.timeout(20):
            (await waiting).settle()
        with own_redis.client() as client:
            assert client.keys()


async def test_what_was_spent_without_the_store_counts_when_it_is_back(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        bucket = TokenBucket(4, per=1.5, margin=0)
        limiter = make(bucket, on_store_failure="local", grace=0, store_timeout=0.5)
        (permit,) = await take(limiter, 1)
        permit.settle()
        await is_known(limiter)
        own_redis.send(signal.SIGSTOP)
        # The store's memory stays; what it does not see is this worker's second window.
        spent = await take(limiter, 4)
        for permit in spent:
            permit.settle()
        own_redis.send(signal.SIGCONT)
        await asyncio.sleep(1.2)
        assert await is_spent(limiter)


async def test_a_worker_that_never_saw_the_store_has_no_share(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        limiter = make(on_store_failure="local", store_timeout=0.5)
        own_redis.stop()
        with pytest.raises(QuotaStoreError):
            await limiter.acquire()


# As the client's limiter.


async def test_the_client_takes_it_in_place_of_its_own(make: Make) -> None:
    quotas = (Quota(30, 0.5), Quota(1000, 60.0))
    async with ImagesEmulator(quotas=quotas) as emulator:
        buckets = (TokenBucket(30, per=0.5, margin=0.05), TokenBucket(1000, per=60))
        limiters = [make(*buckets, token=emulator.token) for _ in range(2)]
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    ImagesAPI(emulator.token, base_url=emulator.url, limiter=limiter)
                )
                for limiter in limiters
            ]
            await asyncio.gather(*(client.get("ubuntu-24-04-x64") for client in clients for _ in range(40)))
        statuses = [entry.status for entry in emulator.requests]
    assert statuses == [200] * 80


async def test_the_clients_call_raises_the_stores_error(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make, ImagesEmulator() as emulator:
        limiter = make(token=emulator.token, store_timeout=0.5)
        own_redis.stop()
        async with ImagesAPI(emulator.token, base_url=emulator.url, limiter=limiter) as api:
            with pytest.raises(QuotaStoreError) as caught:
                await api.delete(7)
        assert not caught.value.outcome_unknown
        assert not list(emulator.requests)


def test_without_redis_py_the_import_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("do_images_async.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ModuleNotFoundError, match="needs the extra redis: pip install redis"):
        importlib.import_module("do_images_async.redis")
