"""A worker daemon: takes jobs from a Redis stream, renames images, and shares one quota with other workers.

A job is an entry of the stream with the fields `images`, a JSON list of ids, and `prefix`: each image becomes
"<prefix>-<id>". The promise is *at least once*: a job is acknowledged together with its result, in one
transaction, when all of its images are done. A worker that dies before leaves the job to the others, which do
all of it again. That is correct because renaming an image twice to the same name has the effect of once.
"""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import uuid
from collections.abc import Mapping
from typing import Any

import attrs
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from do_images_async import ImagesAPI
from do_images_async.errors import (
    BadRequestError,
    DOImagesError,
    NotFoundError,
    PermissionDeniedError,
    UnprocessableEntityError,
)
from do_images_async.redis import RedisRateLimiter

JOBS, GROUP, RESULTS = "image-jobs", "workers", "image-jobs:results"
CLAIM_AFTER = float(
    os.environ.get("CLAIM_AFTER", "60")
)  # seconds without a claim after which others take a job
DRAIN = float(os.environ.get("DRAIN", "25"))  # seconds for jobs in progress after SIGTERM
JOBS_AT_ONCE = int(os.environ.get("JOBS_AT_ONCE", "4"))
LONGEST_PAUSE = float(os.environ.get("LONGEST_PAUSE", "30"))  # the most seconds between two attempts

REFUSALS = (
    *(BadRequestError, NotFoundError, PermissionDeniedError, UnprocessableEntityError),
    *(TypeError, ValueError),  # refused before anything is sent
)
"""Errors that a retry does not change. All others pass sooner or later."""

Result = Mapping[str, object]
log = logging.getLogger("worker")


@attrs.frozen
class Job:
    key: str
    prefix: str
    images: tuple[int, ...]

    @classmethod
    def parse(cls, key: str, fields: Mapping[str, str]) -> Job:
        """Return the job of an entry of the stream; raise ValueError if it is none."""
        try:
            return cls(key, fields["prefix"], tuple(int(each) for each in json.loads(fields["images"])))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no job: {error!r}") from None


@attrs.define
class Worker:
    redis: Redis
    images: ImagesAPI
    name: str = attrs.field(factory=lambda: f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    running: dict[str, asyncio.Task[None]] = attrs.field(factory=dict[str, asyncio.Task[None]])

    async def run(self, stop: asyncio.Event) -> None:
        """Take jobs and do them until `stop`; then finish those in progress."""
        beating = asyncio.create_task(self.keep_claims())
        pause = Pause()
        try:
            while not stop.is_set():
                try:
                    await self.take()
                    pause.reset()
                except RedisError as error:
                    log.warning("Redis is away: %s", error)
                    await pause.sleep(stop)
            await self.drain()
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def take(self) -> None:
        """Start jobs of dead workers, or new ones, up to `JOBS_AT_ONCE`."""
        room = JOBS_AT_ONCE - len(self.running)
        if room <= 0:
            await asyncio.wait(self.running.values(), return_when=asyncio.FIRST_COMPLETED, timeout=1)
            return
        await self.join_group()
        _, orphans, *_ = await self.redis.xautoclaim(
            JOBS, GROUP, self.name, min_idle_time=round(CLAIM_AFTER * 1000), count=room
        )
        entries = [(key, fields) for key, fields in orphans if key not in self.running]
        if not entries:
            found: Any = await self.redis.xreadgroup(GROUP, self.name, {JOBS: ">"}, count=room, block=500)
            entries = [entry for _, stream in found or () for entry in stream]
        for key, fields in entries:
            self.running[key] = asyncio.create_task(self.attend(key, fields))

    async def join_group(self) -> None:
        try:
            await self.redis.xgroup_create(JOBS, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def attend(self, key: str, fields: Mapping[str, str]) -> None:
        """Do a job, and record its result. If cancelled before that, leave it in the stream for others."""
        try:
            try:
                result: Result = await self.do(Job.parse(key, fields))
            except ValueError as error:
                result = {"refused": str(error)}
            await self.record(key, result)
            log.info("job %s: %s", key, result)
        except Exception:
            log.exception("job %s failed; it comes back after %g s", key, CLAIM_AFTER)
        finally:
            del self.running[key]

    async def do(self, job: Job) -> Result:
        """Rename all images of a job at once; the limiter decides how many requests are in flight."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.rename(each, job.prefix)) for each in job.images]
        problems = dict(zip(job.images, (task.result() for task in tasks), strict=True))
        refused = {image: problem for image, problem in problems.items() if problem}
        return {"renamed": len(job.images) - len(refused), "refused": refused}

    async def rename(self, image: int, prefix: str) -> str | None:
        """Rename one image, with retries until the API answers; return the API's refusal, or None."""
        pause = Pause()
        while True:
            try:
                await self.images.update(image, name=f"{prefix}-{image}")
            except REFUSALS as error:
                return str(error)
            except DOImagesError as error:
                log.warning("image %d has to wait: %s", image, error)
                await pause.sleep()
            else:
                return None

    async def record(self, key: str, result: Result) -> None:
        """Store the result and acknowledge the job in one transaction."""
        pause = Pause()
        while True:
            try:
                async with self.redis.pipeline(transaction=True) as both:
                    both.hset(RESULTS, key, json.dumps(result))
                    both.xack(JOBS, GROUP, key)
                    both.xdel(JOBS, key)
                    await both.execute()
            except RedisError as error:
                log.warning("job %s is done, but Redis is away: %s", key, error)
                await pause.sleep()
            else:
                return

    async def keep_claims(self) -> None:
        """Renew the claims on the running jobs, so that no other worker takes them."""
        while True:
            await asyncio.sleep(CLAIM_AFTER / 3)
            if self.running:
                try:
                    await self.redis.xclaim(JOBS, GROUP, self.name, 0, list(self.running), justid=True)
                except RedisError as error:
                    log.warning("Redis is away: %s", error)

    async def drain(self) -> None:
        if not self.running:
            return
        _, late = await asyncio.wait(self.running.values(), timeout=DRAIN)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        log.info("stopped; %d jobs are left to others", len(late))


@attrs.define
class Pause:
    """Exponential backoff with jitter, so that many workers do not retry at the same time."""

    ceiling: float = 0.25

    async def sleep(self, stop: asyncio.Event | None = None) -> None:
        self.ceiling = min(self.ceiling * 2, LONGEST_PAUSE)
        try:
            async with asyncio.timeout(random.uniform(self.ceiling / 2, self.ceiling)):
                await (stop or asyncio.Event()).wait()
        except TimeoutError:
            pass

    def reset(self) -> None:
        self.ceiling = 0.25


async def main() -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with (
        Redis.from_url(os.environ["REDIS_URL"], decode_responses=True, socket_timeout=5) as redis,
        RedisRateLimiter(redis, os.environ["DIGITALOCEAN_TOKEN"]) as limiter,
        ImagesAPI.from_env(limiter=limiter) as images,
    ):
        await Worker(redis, images).run(stop)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main())
