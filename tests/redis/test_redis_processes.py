"""Four processes, one token: one is killed, one is stopped for a while, and the server never says no."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter

import pytest

from do_images_async.testing import ImagesEmulator, Quota
from tests.support.redis_servers import RedisServer, needs_redis, redis_server, shared_redis
from tests.support.servers import eventually

__all__ = ["redis_server", "shared_redis"]  # fixtures

pytestmark = needs_redis

WORKERS, WINDOW, WINDOWS = 4, 2.0, 4.5
QUOTAS = (Quota(200, WINDOW), Quota(5000, 60.0))


async def start_worker(emulator: ImagesEmulator, redis: RedisServer) -> asyncio.subprocess.Process:
    environment = os.environ | {
        "WORKER_TOKEN": emulator.token,
        "WORKER_URL": emulator.url,
        "WORKER_REDIS": redis.url,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.redis_worker",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )


@pytest.mark.slow
async def test_four_processes_spend_one_quota_to_the_full_and_no_more(redis_server: RedisServer) -> None:
    async with ImagesEmulator(quotas=QUOTAS, latency=0.01, jitter=0.04) as emulator:
        workers = [await start_worker(emulator, redis_server) for _ in range(WORKERS)]
        killed, paused, *steady = workers
        await eventually(lambda: len(emulator.requests) > 0, within=30)
        await asyncio.sleep(WINDOW)
        killed.send_signal(signal.SIGKILL)
        paused.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5 * WINDOW)
        paused.send_signal(signal.SIGCONT)
        await asyncio.sleep((WINDOWS - 2.5) * WINDOW)
        served = Counter(entry.status for entry in emulator.requests)
        elapsed = emulator.requests[-1].time - emulator.requests[0].time
        reports = await asyncio.gather(*(worker.communicate(b"") for worker in workers))

    assert 429 not in served, served
    whole = QUOTAS[0].limit * max(elapsed, WINDOWS * WINDOW) / WINDOW
    assert served[200] >= 0.9 * whole, (served, elapsed)
    assert [worker.returncode for worker in (paused, *steady)] == [0, 0, 0]
    counts = [int(output) for output, _ in reports[2:]]
    assert min(counts) >= 0.15 * served[200], "a worker got much less than its share"
