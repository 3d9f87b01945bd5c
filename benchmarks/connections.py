"""Wall time of 200 `get`s with 50 in flight, 20 ms away, by the connections that the session allows."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from benchmarks import alternatives
from benchmarks.measure import Result, Sample, Work, compare
from benchmarks.server import running_server
from do_images_async import ImagesAPI

__all__ = ["run"]

CALLS, IN_FLIGHT, LATENCY = 200, 50, 0.02
LIMITS = (0, 100, 50, 25, 10)


def limited(url: str, limit: int) -> Work:
    async def work(calls: int) -> None:
        connector = aiohttp.TCPConnector(limit=limit)
        numbers = iter(range(1, calls + 1))
        async with aiohttp.ClientSession(connector=connector) as session:
            api = ImagesAPI(
                alternatives.TOKEN, base_url=url, session=session, limiter=alternatives.ample_limiter()
            )

            async def worker() -> None:
                for number in numbers:
                    await api.get(number)

            await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))

    return work


async def measure() -> dict[str, Sample]:
    with running_server(latency=LATENCY) as url:
        subjects = {f"limit={limit}" if limit else "no limit": limited(url, limit) for limit in LIMITS}
        # For one call, what is reported is for all.
        return await compare(subjects, calls=CALLS, rounds=5, clock=time.perf_counter, scale=CALLS * 1000.0)


def run() -> Result:
    return Result(unit="ms", samples=asyncio.run(measure()))
