"""Processes of one user that spend one token, as they come and go: the server never refuses a request."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from do_images_async.testing import ImagesEmulator, Quota
from tests.support.file_worker import BUCKETS, LEASE
from tests.support.servers import eventually

QUOTAS = tuple(Quota(bucket.capacity, bucket.per) for bucket in BUCKETS)
WINDOW = BUCKETS[0].per


async def start(emulator: ImagesEmulator, state: Path, calls: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.file_worker",
        str(calls),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ
        | {"WORKER_TOKEN": emulator.token, "WORKER_URL": emulator.url, "XDG_STATE_HOME": str(state)},
    )


def served(emulator: ImagesEmulator) -> Counter[int]:
    return Counter(entry.status or 0 for entry in emulator.requests)


async def test_runs_back_to_back_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    async with ImagesEmulator(quotas=QUOTAS, latency=0.01, jitter=0.04) as emulator:
        for _ in range(3):
            process = await start(emulator, tmp_path, 80)
            output, _ = await process.communicate()
            assert (process.returncode, int(output)) == (0, 80)
        assert served(emulator) == {200: 240}


@pytest.mark.slow
async def test_six_processes_of_which_one_is_killed_and_one_is_stopped(tmp_path: Path) -> None:
    async with ImagesEmulator(quotas=QUOTAS, latency=0.01, jitter=0.04) as emulator:
        processes = [await start(emulator, tmp_path, 0) for _ in range(6)]
        killed, paused, *steady = processes
        await eventually(lambda: len(emulator.requests) > 50, within=60)
        await asyncio.sleep(WINDOW)
        killed.send_signal(signal.SIGKILL)
        paused.send_signal(signal.SIGSTOP)
        before = len(emulator.requests)
        await asyncio.sleep(LEASE + WINDOW)
        await eventually(lambda: len(emulator.requests) > before + 50, within=60)
        paused.send_signal(signal.SIGCONT)
        await asyncio.sleep(WINDOW)
        reports = await asyncio.gather(*(process.communicate(b"") for process in processes))
        assert set(served(emulator)) == {200}, served(emulator)
        assert [process.returncode for process in (paused, *steady)] == [0] * 5
        counts = [int(output) for output, _ in reports[2:]]
        assert min(counts) >= 0.1 * sum(counts), "a process got much less than its share"
