"""CPU of the client's process for one `get` with 50 in flight, the server in another process."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from benchmarks import alternatives
from benchmarks.measure import Result, Sample, Work, at_most, compare, ratio
from benchmarks.server import running_server

__all__ = ["run"]

IN_FLIGHT = 50
SUBJECTS = {
    alternatives.BARE: alternatives.bare,
    alternatives.OURS: alternatives.ours,
    alternatives.HTTPX: alternatives.httpx_client,
    alternatives.PYDO_AIO: alternatives.pydo_aio,
}


def fanned_out(get: alternatives.Get) -> Work:
    async def work(calls: int) -> None:
        for begin in range(1, calls + 1, IN_FLIGHT):
            numbers = range(begin, begin + IN_FLIGHT)
            found = await asyncio.gather(*map(get, numbers))
            assert found == list(numbers)

    return work


async def measure() -> dict[str, Sample]:
    with running_server() as url:
        async with AsyncExitStack() as stack:
            subjects = {
                name: fanned_out(await stack.enter_async_context(client(url)))
                for name, client in SUBJECTS.items()
            }
            return await compare(subjects, calls=3 * IN_FLIGHT, rounds=41)


def run() -> Result:
    samples = asyncio.run(measure())
    against_bare = ratio(samples[alternatives.OURS], samples[alternatives.BARE])
    check = at_most(f"one get, {IN_FLIGHT} in flight, against bare aiohttp", against_bare, 1.15)
    return Result(unit="µs", samples=samples, checks=(check,))
