"""A store that is emptied just after the quota was spent, and is met first by a worker that is new."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from do_images_async import FileRateLimiter, ImagesAPI, RetryPolicy, TokenBucket
from do_images_async.errors import QuotaWaitError, RateLimitError
from do_images_async.redis import RedisRateLimiter
from do_images_async.testing import ImagesEmulator, Quota

__all__ = ["calls_of_a_newcomer"]

BUCKET = TokenBucket(100, per=600)


async def calls_of_a_newcomer(
    make: Callable[..., RedisRateLimiter | FileRateLimiter], empty: Callable[[], None]
) -> int:
    """Return how many of a new worker's 50 calls are refused, when others have just spent 100 of 100.

    Args:
        make: makes a worker.
        empty: empties the store.
    """
    async with ImagesEmulator(quotas=(Quota(BUCKET.capacity, BUCKET.per),), latency=0.01) as emulator:

        async def call(number: int) -> list[object]:
            limiter = make(BUCKET, token=emulator.token, slow_start=True)
            api = ImagesAPI(
                emulator.token,
                base_url=emulator.url,
                limiter=limiter,
                retry=RetryPolicy(attempts=1),
                max_wait=30,
            )
            async with api:
                calls = (api.get("ubuntu-24-04-x64") for _ in range(number))
                ends: list[object] = await asyncio.gather(*calls, return_exceptions=True)
            await limiter.aclose()
            return ends

        await call(BUCKET.capacity)
        assert emulator.requests.count(status=200) == BUCKET.capacity
        empty()
        ends = await call(50)
        assert {type(end) for end in ends} <= {RateLimitError, QuotaWaitError}, ends
        return emulator.requests.count(status=429)
