"""Redis comes back with an older memory or none, and the workers that know more are gone, idle, or late."""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio

import pytest

from do_images_async import ImagesAPI, TokenBucket
from do_images_async._quota.protocols import Report
from do_images_async.redis import RedisRateLimiter
from do_images_async.testing import ImagesEmulator, Quota
from tests.redis.test_redis import is_known, workers
from tests.support.emptied import calls_of_a_newcomer
from tests.support.limiters import expect_a_pause_and_pacing, how_long, take
from tests.support.redis_servers import RedisServer, needs_redis, own_redis
from tests.support.servers import eventually

__all__ = ["own_redis"]  # a fixture

pytestmark = needs_redis

BUCKET = TokenBucket(10, per=60)


async def spend(limiter: RedisRateLimiter, number: int) -> None:
    """Spend permits, and return when Redis knows that they were answered."""
    for permit in await take(limiter, number, max_wait=20):
        permit.settle()
    await is_known(limiter)


def snapshot(server: RedisServer) -> None:
    with server.client() as client:
        client.save()


def restore(server: RedisServer) -> None:
    """Kill the server, and start it with its last snapshot."""
    server.stop()
    server.start()


async def test_a_new_worker_gets_no_burst_from_a_memory_that_may_be_old(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        gone = make(BUCKET)
        await spend(gone, 1)
        snapshot(own_redis)
        await spend(gone, 9)
        await gone.aclose()
        restore(own_redis)
        await expect_a_pause_and_pacing(make(BUCKET))


async def test_workers_that_are_alive_report_what_the_memory_lacks_and_no_more(
    own_redis: RedisServer,
) -> None:
    async with workers(own_redis) as make:
        busy, witness = make(BUCKET), make(BUCKET)
        await spend(busy, 2)
        await asyncio.sleep(2)  # the age of a memory is known but for the time that the question travels
        (permit,) = await take(witness, 1)
        permit.release()
        await is_known(witness)
        snapshot(own_redis)
        await spend(busy, 3)
        restore(own_redis)
        new = make(BUCKET)
        for limiter in (new, busy):
            await how_long(limiter)
        await is_known(busy)
        assert await how_long(new) < 3  # two seconds, and an exchange with the store
        assert new.stats().available == (5,)


@pytest.mark.slow
async def test_it_is_noticed_though_new_workers_have_spent_more_since(own_redis: RedisServer) -> None:
    """Otherwise the worker that knows more would find as many requests as it has seen."""
    bucket = TokenBucket(30, per=30)
    async with workers(own_redis) as make:
        busy = make(bucket)
        await spend(busy, 1)
        snapshot(own_redis)
        await spend(busy, 3)
        restore(own_redis)
        new = make(bucket)
        await spend(new, 4)
        await take(busy, 1, max_wait=20)
        assert busy.stats().available[0] <= bucket.capacity - 4 - 4 - 1


async def test_a_restart_that_loses_nothing_keeps_what_workers_spent_that_are_gone(
    own_redis: RedisServer,
) -> None:
    async with workers(own_redis) as make:
        gone = make(BUCKET)
        await spend(gone, 10)
        await gone.aclose()
        snapshot(own_redis)
        restore(own_redis)
        new = make(BUCKET)
        await how_long(new)
        assert new.stats().available == (0,)


@pytest.mark.slow
async def test_a_quota_that_was_spent_since_the_snapshot_costs_a_refusal_and_no_burst(
    own_redis: RedisServer,
) -> None:
    bucket = TokenBucket(30, per=4)
    async with (
        ImagesEmulator(quotas=(Quota(bucket.capacity, bucket.per),)) as emulator,
        workers(own_redis) as make,
    ):

        async def call(limiter: RedisRateLimiter, number: int) -> None:
            async with ImagesAPI(emulator.token, base_url=emulator.url, limiter=limiter) as api:
                await asyncio.gather(*(api.get("ubuntu-24-04-x64") for _ in range(number)))

        gone = make(bucket, token=emulator.token)
        await call(gone, 1)
        await is_known(gone)
        snapshot(own_redis)
        await call(gone, bucket.capacity - 1)
        await gone.aclose()
        restore(own_redis)
        await call(make(bucket, token=emulator.token), bucket.capacity)
        assert emulator.requests.count(status=429) <= 1


async def test_responses_to_requests_of_before_hide_nothing_of_what_later_ones_say(
    own_redis: RedisServer,
) -> None:
    async with workers(own_redis) as make:
        limiter = make(TokenBucket(100, per=60))
        *answered, in_flight = await take(limiter, 20)
        for permit in answered:
            permit.settle()
        await is_known(limiter)
        with own_redis.client() as client:
            client.flushall()
        (later,) = await take(limiter, 1, max_wait=20)
        in_flight.settle(Report(remaining=90, reset_in=50.0))
        await is_known(limiter)
        later.settle(Report(remaining=0, reset_in=50.0))
        await is_known(limiter)
        assert await how_long(limiter) > 10


# A memory that is empty.


async def test_a_redis_that_was_emptied_sends_a_newcomer_into_a_few_refusals(own_redis: RedisServer) -> None:
    def empty() -> None:
        with own_redis.client() as client:
            client.flushall()

    async with workers(own_redis) as make:
        assert 1 <= await calls_of_a_newcomer(make, empty) <= 5


async def test_a_redis_that_restarts_without_its_data_does_so_too(own_redis: RedisServer) -> None:
    async with workers(own_redis) as make:
        assert 1 <= await calls_of_a_newcomer(make, lambda: restore(own_redis)) <= 5


async def test_a_quota_that_nobody_has_used_for_long_starts_slowly_again(own_redis: RedisServer) -> None:
    loop = asyncio.get_running_loop()
    async with workers(own_redis) as make:
        limiter = make(TokenBucket(5, per=0.1), lease=0.1, grace=0, slow_start=True)
        await spend(limiter, 1)
        with own_redis.client() as client:
            await eventually(lambda: client.dbsize() == 0, within=60)
            await limiter.aclose()
        started = loop.time()
        await take(make(TokenBucket(5, per=0.1), lease=30, slow_start=True), 2, max_wait=20)
        assert loop.time() - started >= 2
