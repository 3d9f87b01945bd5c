"""Real processes that spend one token, and what they cost their store."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from do_images_async import TokenBucket
from do_images_async._quota.buckets import DOCUMENTED
from tests.support.quota_processes import SCALED, Processes, Result
from tests.support.redis_servers import EXECUTABLE, NO_SERVER, running_redis
from tests.support.starved import starve

__all__ = ["compare_runs", "kill_and_stop", "starve_workers"]

_ATTEMPTS = 4
"""The default of `RetryPolicy`."""


def compare_runs(runs: int = 3, calls: int = 200, buckets: tuple[TokenBucket, ...] = DOCUMENTED) -> str:
    """Return a Markdown table of runs back to back, each its own process, with a store and without.

    The optimum is the time in which a sliding log accepts as many requests. The time is from the first
    request to the last.
    """
    total, bucket = runs * calls, min(buckets, key=lambda bucket: bucket.per)
    optimum = (total - 1) // bucket.capacity * bucket.per

    async def measure(limiter: str) -> Result:
        with tempfile.TemporaryDirectory() as folder:
            processes = Processes(
                limiter=limiter,
                state=Path(folder),
                buckets=buckets,
                lease=10.0,
                grace=120.0,
                attempts=_ATTEMPTS,
            )
            return await processes.run_back_to_back(runs, calls)

    async def measure_all() -> list[Result]:
        return await asyncio.gather(*map(measure, ("file", "memory")))

    lines = [
        f"{runs} runs of {calls} calls, {bucket.capacity} per {bucket.per:g} s; at best {optimum:g} s",
        "",
        "| Limiter | Requests | Refused | Calls failed | Seconds | of the optimum |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    names = ("FileRateLimiter", "RateLimiter, no store")
    for name, result in zip(names, asyncio.run(measure_all()), strict=True):
        lines.append(
            f"| {name} | {result.requests} | {result.statuses[429]} | {total - sum(result.answered)}"
            f" | {result.seconds:.1f} | {result.seconds / optimum:.2f} |"
        )
    return "\n".join(lines)


def kill_and_stop(number: int = 6, windows: float = 10) -> str:
    """Return a Markdown table of processes of which one gets SIGKILL and one SIGSTOP for a while."""
    bucket = SCALED[0]
    lines = [
        f"{number} processes x 50 in flight, {bucket.capacity} per {bucket.per:g} s, one killed, one stopped",
        "",
        "| Limiter | Requests | Refused | Used | Calls of the four others |",
        "|---|--:|--:|--:|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        lines.append(_row("FileRateLimiter", "file", Path(folder), number, windows))
        if EXECUTABLE is not None:
            with running_redis() as server:
                lines.append(_row("RedisRateLimiter", server.url, Path(folder), number, windows))
    return "\n".join(lines)


def _row(name: str, limiter: str, state: Path, number: int, windows: float) -> str:
    processes = Processes(limiter=limiter, state=state)
    result = asyncio.run(processes.kill_one_and_stop_one(number, windows))
    calls = ", ".join(map(str, result.answered[1:]))
    return f"| {name} | {result.requests} | {result.statuses[429]} | {result.used(SCALED[0]):.1%} | {calls} |"


def starve_workers(workers: int = 64) -> str:
    """Return what workers that wait for the documented quota cost a Redis, for each permit."""
    if EXECUTABLE is None:
        return NO_SERVER
    with running_redis() as server:
        costs = starve(server, workers)
    permits = costs.permits
    return (
        f"{workers} workers with three callers each got {permits} permits in {costs.seconds:g} s; each took"
        f" {costs.commands / permits:.1f} Redis commands in {costs.exchanges / permits:.2f} exchanges,"
        f" {costs.milliseconds / permits:.2f} ms of the server's time"
    )
