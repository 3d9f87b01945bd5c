"""The documentation's worker daemon as processes: killed, disconnected and stopped, it loses no job."""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest
import redis

from do_images_async import RetryPolicy
from do_images_async.testing import Fault, ImagesEmulator
from tests.support.programs import Program, running
from tests.support.redis_servers import RedisServer, needs_redis, own_redis, redis_server, shared_redis
from tests.support.servers import eventually

__all__ = ["own_redis", "redis_server", "shared_redis"]  # fixtures

pytestmark = needs_redis

STREAM, RESULTS = "image-jobs", "image-jobs:results"
IMAGES_EACH = 4
ATTEMPTS = RetryPolicy().attempts


@attrs.frozen
class Queue:
    """The stream of jobs, as its producer sees it."""

    client: redis.Redis

    def put(self, images: list[int], prefix: str) -> str:
        key = self.client.xadd(STREAM, {"images": json.dumps(images), "prefix": prefix})
        assert isinstance(key, bytes)
        return key.decode()

    def results(self) -> dict[str, dict[str, Any]]:
        held: Any = self.client.hgetall(RESULTS)
        return {key.decode(): json.loads(value) for key, value in held.items()}

    def done(self, jobs: list[str]) -> bool:
        with contextlib.suppress(redis.ConnectionError):
            return self.client.hlen(RESULTS) >= len(jobs)
        return False

    def waiting(self) -> int:
        length = self.client.xlen(STREAM)
        assert isinstance(length, int)
        return length


@asynccontextmanager
async def jobs_for(
    emulator: ImagesEmulator, server: RedisServer, count: int
) -> AsyncGenerator[tuple[Queue, list[str]]]:
    """Add so many jobs of some images each; every image is in one job."""
    private = [image["id"] for image in emulator.images if not image["public"]]
    with contextlib.closing(server.client()) as client:
        queue = Queue(client)
        yield (
            queue,
            [queue.put(private[n * IMAGES_EACH : (n + 1) * IMAGES_EACH], f"job{n}") for n in range(count)],
        )


def worker(emulator: ImagesEmulator, server: RedisServer) -> AbstractAsyncContextManager[Program]:
    return running(
        "worker.py",
        url=emulator.url,
        token=emulator.token,
        REDIS_URL=server.url,
        CLAIM_AFTER="1.5",
        LONGEST_PAUSE="0.5",
    )


def assert_done(emulator: ImagesEmulator, queue: Queue, jobs: list[str]) -> None:
    """Check that each job has one result and left the stream, and each image has its new name."""
    assert queue.results() == {job: {"renamed": IMAGES_EACH, "refused": {}} for job in jobs}
    assert queue.waiting() == 0
    names = {image["id"]: image["name"] for image in emulator.images if not image["public"]}
    assert list(names.values()) == [f"job{n // IMAGES_EACH}-{image}" for n, image in enumerate(names)]


def renamings(emulator: ImagesEmulator) -> Counter[str]:
    """Return how often each image was renamed."""
    return Counter(entry.path for entry in emulator.requests if entry.method == "PUT" and entry.status == 200)


async def test_two_workers_do_every_job_although_one_is_killed_midway(redis_server: RedisServer) -> None:
    count = 25
    async with (
        ImagesEmulator(images=count * IMAGES_EACH, latency=0.1, jitter=0.1) as emulator,
        jobs_for(emulator, redis_server, count) as (queue, jobs),
        worker(emulator, redis_server) as killed,
        worker(emulator, redis_server) as survivor,
    ):
        await eventually(lambda: len(emulator.requests) >= 30 and len(queue.results()) >= 2, within=30)
        killed.send(signal.SIGKILL)
        assert len(queue.results()) < count, "it must be killed midway"
        await eventually(lambda: queue.done(jobs), within=30)
        code, errors = await survivor.stop()

    assert code == 0
    assert "Traceback" not in errors
    assert "Warning" not in errors
    assert_done(emulator, queue, jobs)
    repeated = sum(renamings(emulator).values()) - count * IMAGES_EACH
    # Only the four jobs of the killed worker are done again.
    assert 0 <= repeated <= 4 * IMAGES_EACH
    assert emulator.requests.count(status=429) == 0, "the two share one quota, the dead one's part included"


@pytest.mark.slow
async def test_a_job_that_takes_long_is_left_to_who_does_it(redis_server: RedisServer) -> None:
    longer_than_a_claim_lasts = 2.5
    async with (
        ImagesEmulator(images=IMAGES_EACH, latency=longer_than_a_claim_lasts) as emulator,
        jobs_for(emulator, redis_server, 1) as (queue, jobs),
        worker(emulator, redis_server) as one,
        worker(emulator, redis_server) as other,
    ):
        await eventually(lambda: queue.done(jobs), within=30)
        assert [(await each.stop())[0] for each in (one, other)] == [0, 0]
    assert_done(emulator, queue, jobs)
    assert set(renamings(emulator).values()) == {1}


@pytest.mark.slow
async def test_a_worker_outlives_redis_and_the_api(own_redis: RedisServer) -> None:
    count = 8
    async with (
        ImagesEmulator(images=count * IMAGES_EACH, latency=0.05) as emulator,
        jobs_for(emulator, own_redis, count) as (queue, jobs),
        worker(emulator, own_redis) as program,
    ):
        await eventually(lambda: len(queue.results()) >= 1, within=30)
        last = [image["id"] for image in emulator.images if not image["public"]][-1]
        emulator.faults.add(Fault(path=f"/v2/images/{last}", status=503, times=ATTEMPTS))
        queue.client.shutdown(save=True)  # as a restart of a Redis that keeps its data
        own_redis.stop()
        await asyncio.sleep(0.5)
        own_redis.start()
        await eventually(lambda: queue.done(jobs), within=40)
        code, errors = await program.stop()
    assert code == 0
    assert "Redis is away" in errors
    assert "has to wait" in errors
    assert "Traceback" not in errors
    assert_done(emulator, queue, jobs)
    assert emulator.requests.count(status=429) == 0


@pytest.mark.slow
async def test_sigterm_ends_the_jobs_under_way_and_leaves_the_rest(redis_server: RedisServer) -> None:
    count = 10
    async with (
        ImagesEmulator(images=count * IMAGES_EACH, latency=0.4) as emulator,
        jobs_for(emulator, redis_server, count) as (queue, jobs),
    ):
        async with worker(emulator, redis_server) as first:
            await eventually(lambda: len(emulator.requests) >= 4, within=30)
            code, errors = await first.stop()
        assert code == 0
        assert "stopped; 0 jobs are left to others" in errors
        done = len(queue.results())
        assert 4 <= done < count
        assert queue.waiting() == count - done
        async with worker(emulator, redis_server) as second:
            await eventually(lambda: queue.done(jobs), within=30)
            assert (await second.stop())[0] == 0
    assert_done(emulator, queue, jobs)
    assert set(renamings(emulator).values()) == {1}, "nothing was done twice"


async def test_what_the_api_refuses_and_what_is_no_job_is_said_in_the_result(
    redis_server: RedisServer,
) -> None:
    async with ImagesEmulator(images=1) as emulator:
        private = next(image["id"] for image in emulator.images if not image["public"])
        with contextlib.closing(redis_server.client()) as client:
            queue = Queue(client)
            mixed = queue.put([private, 1, 0], "new")
            broken = client.xadd(STREAM, {"images": "[1"})
            async with worker(emulator, redis_server) as program:
                await eventually(lambda: client.hlen(RESULTS) == 2, within=30)
                assert (await program.stop())[0] == 0
            results = queue.results()
    assert isinstance(broken, bytes)
    assert str(results[broken.decode()]["refused"]).startswith("no job: KeyError")
    assert results[mixed]["renamed"] == 1
    assert results[mixed]["refused"].keys() == {"0", "1"}
    assert emulator.images[private]["name"] == f"new-{private}"
