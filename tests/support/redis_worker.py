"""A worker process that spends a shared quota: `python -m tests.support.redis_worker`.

It calls the API with 50 calls in flight until it is killed, or told to stop by the end of its standard input;
then it says how many were answered.
"""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import os
import sys

from redis.asyncio import Redis

from do_images_async import ImagesAPI, RetryPolicy, TokenBucket
from do_images_async.redis import RedisRateLimiter

BUCKETS = (TokenBucket(200, per=2), TokenBucket(5000, per=60))
LEASE, GRACE = 1.0, 0.5


async def main() -> None:
    token, url = os.environ["WORKER_TOKEN"], os.environ["WORKER_URL"]
    redis = Redis.from_url(os.environ["WORKER_REDIS"])
    limiter = RedisRateLimiter(redis, token, *BUCKETS, lease=LEASE, grace=GRACE)
    api = ImagesAPI(token, base_url=url, limiter=limiter, retry=RetryPolicy(attempts=1))
    answered = 0

    async def call() -> None:
        nonlocal answered
        while True:
            await api.get("ubuntu-24-04-x64")
            answered += 1

    calls = [asyncio.create_task(call()) for _ in range(50)]
    await asyncio.to_thread(sys.stdin.read)
    failed = [task.exception() for task in calls if task.done()]
    for task in calls:
        task.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await api.aclose()
    await limiter.aclose()
    await redis.aclose()
    print(answered)  # noqa: T201
    if failed:
        raise SystemExit(f"{len(failed)} calls failed, the first with {failed[0]!r}")


if __name__ == "__main__":
    asyncio.run(main())
