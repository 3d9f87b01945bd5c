"""Processes that spend one token at an emulator with a sliding log: one after the other, or many together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import attrs

from do_images_async import TokenBucket
from do_images_async.testing import ImagesEmulator, Quota
from tests.support.servers import eventually

__all__ = ["SCALED", "Processes", "Result"]

SCALED = (TokenBucket(100, per=2), TokenBucket(5000, per=60))
"""Windows of seconds, for a test."""


@attrs.frozen(kw_only=True)
class Result:
    """The requests that an emulator has counted, and the ends of the processes that sent them.

    Attributes:
        statuses: how many requests were answered with each status.
        seconds: from the first request to the last.
        answered: the number of calls that each process printed.
        returncodes: of each process.
    """

    statuses: Counter[int]
    seconds: float
    answered: list[int]
    returncodes: list[int | None]

    @property
    def requests(self) -> int:
        return self.statuses.total()

    def used(self, bucket: TokenBucket) -> float:
        """Return the part of what a bucket allows in this time that was accepted."""
        return self.statuses[200] / (bucket.capacity * self.seconds / bucket.per)


@attrs.frozen(kw_only=True)
class Processes:
    """How processes spend a quota.

    Attributes:
        limiter: `file`, `memory`, or the address of a Redis.
        state: a folder for the file.
        buckets: the limits, of the processes and of the emulator.
        lease, grace: of the limiter, in seconds.
        attempts: how often a call is sent at most.
    """

    limiter: str
    state: Path
    buckets: tuple[TokenBucket, ...] = SCALED
    lease: float = 1.0
    grace: float = 0.5
    attempts: int = 1

    def emulator(self) -> ImagesEmulator:
        """Return a server that counts as the buckets do, 10 to 50 ms away."""
        quotas = [Quota(bucket.capacity, bucket.per) for bucket in self.buckets]
        return ImagesEmulator(quotas=quotas, latency=0.01, jitter=0.04)

    async def start(self, emulator: ImagesEmulator, calls: int) -> asyncio.subprocess.Process:
        """Start a process that makes so many calls, 50 at once; 0 goes on until its standard input ends."""
        variables = {
            "WORKER_TOKEN": emulator.token,
            "WORKER_URL": emulator.url,
            "WORKER_LIMITER": self.limiter,
            "WORKER_BUCKETS": json.dumps([(bucket.capacity, bucket.per) for bucket in self.buckets]),
            "WORKER_LEASE": str(self.lease),
            "WORKER_GRACE": str(self.grace),
            "WORKER_ATTEMPTS": str(self.attempts),
            "XDG_STATE_HOME": str(self.state),
        }
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.quota_worker", str(calls)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if self.attempts == 1 else asyncio.subprocess.DEVNULL,
            env=os.environ | variables,
        )

    async def run_back_to_back(self, runs: int, calls: int) -> Result:
        """Run processes one after the other, each of which makes so many calls."""
        async with self.emulator() as emulator:
            processes: list[asyncio.subprocess.Process] = []
            outputs: list[bytes] = []
            for _ in range(runs):
                processes.append(await self.start(emulator, calls))
                outputs.append((await processes[-1].communicate())[0])
            return _result(emulator, processes, outputs)

    async def kill_one_and_stop_one(self, number: int, windows: float) -> Result:
        """Run processes together; after a window the first gets SIGKILL, the second SIGSTOP for a while.

        The second goes on when its lease has ended and a window has passed; then all run for so many more
        windows. The result leaves out the first process.
        """
        window = min(bucket.per for bucket in self.buckets)
        async with self.emulator() as emulator:
            processes = [await self.start(emulator, 0) for _ in range(number)]
            killed, stopped, *_ = processes
            await eventually(lambda: len(emulator.requests) > self.buckets[0].capacity // 2, within=60)
            await asyncio.sleep(window)
            killed.send_signal(signal.SIGKILL)
            stopped.send_signal(signal.SIGSTOP)
            before = len(emulator.requests)
            await asyncio.sleep(self.lease + window)
            await eventually(lambda: len(emulator.requests) > before, within=60)
            stopped.send_signal(signal.SIGCONT)
            await asyncio.sleep(windows * window)
            outputs = await asyncio.gather(*(process.communicate(b"") for process in processes))
            return _result(emulator, processes[1:], [output for output, _ in outputs[1:]])


def _result(
    emulator: ImagesEmulator, processes: list[asyncio.subprocess.Process], outputs: list[bytes]
) -> Result:
    requests = emulator.requests
    return Result(
        statuses=Counter(entry.status for entry in requests if entry.status is not None),
        seconds=requests[-1].time - requests[0].time,
        answered=[int(output or 0) for output in outputs],
        returncodes=[process.returncode for process in processes],
    )
