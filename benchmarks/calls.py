"""CPU of the client's process for one `get`, one after the other, the server in another process."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from benchmarks import alternatives
from benchmarks.measure import Result, Sample, Work, at_least, at_most, compare, ratio
from benchmarks.server import IMAGES, running_server

__all__ = ["run"]

SUBJECTS = {
    alternatives.BARE: alternatives.bare,
    alternatives.OURS: alternatives.ours,
    alternatives.HTTPX: alternatives.httpx_client,
    alternatives.PYDO_AIO: alternatives.pydo_aio,
    alternatives.PYDO: alternatives.pydo_sync,
    alternatives.DIGITALOCEAN: alternatives.python_digitalocean,
}


def one_by_one(get: alternatives.Get) -> Work:
    async def work(calls: int) -> None:
        for number in range(1, calls + 1):
            assert await get(number) == number

    return work


async def measure() -> dict[str, Sample]:
    with running_server() as url:
        async with AsyncExitStack() as stack:
            subjects = {
                name: one_by_one(await stack.enter_async_context(client(url)))
                for name, client in SUBJECTS.items()
            }
            return await compare(subjects, calls=150, rounds=41)


def run() -> Result:
    samples = asyncio.run(measure())
    one = samples[alternatives.OURS]
    return Result(
        unit="µs",
        samples=samples,
        checks=(
            at_most("one get, against bare aiohttp", ratio(one, samples[alternatives.BARE]), 1.25),
            at_least("pydo.aio, against one get", ratio(samples[alternatives.PYDO_AIO], one), 5.0),
        ),
        notes=(f"each call for another image, of {IMAGES}",),
    )
