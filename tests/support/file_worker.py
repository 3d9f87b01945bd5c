"""A worker process that spends the quota of this machine: `python -m tests.support.file_worker CALLS`.

It makes so many calls, 50 at once, or goes on until its standard input ends when CALLS is 0. Then it prints
how many were answered. A call that fails is never retried, and ends the process with an error.
"""

from __future__ import annotations

import asyncio
import os
import sys

from do_images_async import FileRateLimiter, ImagesAPI, RetryPolicy, TokenBucket

BUCKETS = (TokenBucket(100, per=2), TokenBucket(5000, per=60))
LEASE, GRACE = 1.0, 0.5
TOGETHER = 50


async def main(calls: int) -> None:
    limiter = FileRateLimiter(buckets=BUCKETS, lease=LEASE, grace=GRACE)
    answered = 0

    async def call() -> None:
        nonlocal answered, calls
        while calls:
            calls -= 1
            await api.get("ubuntu-24-04-x64")
            answered += 1

    token, url = os.environ["WORKER_TOKEN"], os.environ["WORKER_URL"]
    async with ImagesAPI(token, base_url=url, limiter=limiter, retry=RetryPolicy(attempts=1)) as api:
        tasks = [asyncio.create_task(call()) for _ in range(TOGETHER)]
        if calls < 0:
            await asyncio.to_thread(sys.stdin.read)
            calls = 0
            failed = [task.exception() for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if any(failed):
                raise SystemExit(f"{len(failed)} calls failed, the first with {failed[0]!r}")
        else:
            await asyncio.gather(*tasks)
    print(answered)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) or -1))
