"""A worker process that spends a quota: `python -m tests.support.quota_worker CALLS`.

It makes so many calls, 50 at once, or goes on until its standard input ends when CALLS is 0. Then it prints
how many were answered. A call that fails ends the process with an error, after the others.
"""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

from redis.asyncio import Redis

from do_images_async import FileRateLimiter, ImagesAPI, RateLimiter, RetryPolicy, TokenBucket
from do_images_async._quota.protocols import Limiter
from do_images_async.redis import RedisRateLimiter

TOGETHER = 50


async def main(calls: int) -> None:
    token, url = os.environ["WORKER_TOKEN"], os.environ["WORKER_URL"]
    left = calls or sys.maxsize
    answered = 0

    async def call(api: ImagesAPI) -> None:
        nonlocal answered, left
        while left:
            left -= 1
            await api.get("ubuntu-24-04-x64")
            answered += 1

    async with contextlib.AsyncExitStack() as stack:
        limiter = await make_limiter(stack, token)
        retry = RetryPolicy(attempts=int(os.environ["WORKER_ATTEMPTS"]))
        api = await stack.enter_async_context(ImagesAPI(token, base_url=url, limiter=limiter, retry=retry))
        tasks = [asyncio.create_task(call(api)) for _ in range(TOGETHER)]
        if not calls:
            await asyncio.to_thread(sys.stdin.read)
            for task in tasks:
                task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    print(answered)  # noqa: T201
    failed = [end for end in ends if isinstance(end, Exception)]
    if failed:
        raise SystemExit(f"{len(failed)} calls failed, the first with {failed[0]!r}")


async def make_limiter(stack: contextlib.AsyncExitStack, token: str) -> Limiter:
    """Return the limiter that WORKER_LIMITER names: `file`, `memory`, or the address of a Redis."""
    name = os.environ["WORKER_LIMITER"]
    buckets = [TokenBucket(capacity, per=per) for capacity, per in json.loads(os.environ["WORKER_BUCKETS"])]
    lease, grace = float(os.environ["WORKER_LEASE"]), float(os.environ["WORKER_GRACE"])
    if name == "memory":
        return RateLimiter(*buckets, grace=grace)
    if name == "file":
        return FileRateLimiter(buckets=buckets, lease=lease, grace=grace)
    redis = await stack.enter_async_context(Redis.from_url(name))
    limiter = RedisRateLimiter(redis, token, *buckets, lease=lease, grace=grace)
    return await stack.enter_async_context(limiter)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
