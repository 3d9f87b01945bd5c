"""The cost of an exchange with the store of one machine."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from do_images_async import FileRateLimiter, TokenBucket
from do_images_async._quota.sqlite import SQLiteStore
from do_images_async._quota.store import Answered, Exchange, microseconds

__all__ = ["measure_file"]

_BUCKETS = (TokenBucket(250, per=60), TokenBucket(5000, per=3600))


def measure_file(exchanges: int = 3000) -> str:
    """Return a table of what exchanges with a file cost, with few and with many tokens out."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            (f"{spent:,} tokens out", _cost_of_an_exchange(Path(folder) / f"{spent}.db", spent, exchanges))
            for spent in (0, 1000, 4900)
        ]
        rows.append(("a call through the event loop", asyncio.run(_cost_of_a_call(Path(folder), exchanges))))
    lines = [f"  {'an exchange with the file':32} {'median':>9} {'mean':>9}"]
    lines += [f"  {name:32} {median * 1e3:6.3f} ms {mean * 1e3:6.3f} ms" for name, (median, mean) in rows]
    return "\n".join(lines)


def _cost_of_an_exchange(path: Path, spent: int, exchanges: int) -> tuple[float, float]:
    buckets = (TokenBucket(100_000, per=60), TokenBucket(100_000, per=3600))
    store = SQLiteStore(path, "benchmark", buckets, 5.0)
    first = 1
    if spent:
        store.exchange_now(_exchange(0, buckets, elsewhere=[0] * spent))
    costs: list[float] = []
    for number in range(first, exchanges + first):
        started = time.perf_counter()
        store.exchange_now(_exchange(number, buckets))
        costs.append(time.perf_counter() - started)
    store.close()
    return statistics.median(costs), statistics.fmean(costs)


def _exchange(number: int, buckets: tuple[TokenBucket, ...], elsewhere: list[int] | None = None) -> Exchange:
    """Return an exchange that reports one answer and asks for one permit."""
    answered = Answered(
        at=0,
        serial=number - 1,
        finished=number - 1,
        remaining=None,
        counted=None,
        refused=False,
        retry_after=None,
        reset_in=None,
    )
    return Exchange(
        number=str(number),
        worker="benchmark",
        epoch="",
        new_epoch="one",
        joined=number > 1,
        holds=0,
        answered=[answered] if number > 1 else [],
        lost=0,
        unsent=0,
        elsewhere=elsewhere or [],
        settling=0,
        wants=[(0, 1)] if number else [],
        clock=0,
        jitter=0.0,
        buckets=[(bucket.capacity, microseconds(bucket.period)) for bucket in buckets],
        lease=microseconds(60),
        grace=0,
    )


async def _cost_of_a_call(folder: Path, calls: int) -> tuple[float, float]:
    buckets = (TokenBucket(100_000, per=60),)
    costs: list[float] = []
    async with FileRateLimiter(folder / "calls.db", token="benchmark", buckets=buckets) as limiter:
        for _ in range(calls):
            started = time.perf_counter()
            permit = await limiter.acquire()
            costs.append(time.perf_counter() - started)
            permit.settle()
    return statistics.median(costs), statistics.fmean(costs)
