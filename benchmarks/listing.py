"""Wall time of listing 20,000 images from a server 50 ms away, against following the links by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import aiohttp

from benchmarks.alternatives import OWN_TOKEN, ample_limiter, authorization
from benchmarks.measure import Result, Sample, Work, at_least, compare, ratio
from benchmarks.server import running_server
from do_images_async import ImagesAPI

__all__ = ["run"]

IMAGES = 20_000
LATENCY = 0.05
BY_HAND = "bare aiohttp, link by link"
DEFAULT = "do_images_async, default concurrency"
TEN = "do_images_async, concurrency=10"


async def follow_links(url: str) -> int:
    """Read all pages as in handwritten code: follow each page's link to the next."""
    seen = 0
    link: str | None = f"{url}/v2/images?per_page=200"
    async with aiohttp.ClientSession(headers=authorization) as session:
        while link:
            async with session.get(link) as response:
                body: Any = await response.json()
            seen += len(body["images"])
            link = body["links"]["pages"].get("next")
    return seen


async def stream(url: str, **options: Any) -> int:
    seen = 0
    async with (
        ImagesAPI(OWN_TOKEN, base_url=url, limiter=ample_limiter()) as api,
        aclosing(api.list(**options)) as images,
    ):
        async for _ in images:
            seen += 1
    return seen


def listing(read: Callable[[], Awaitable[int]]) -> Work:
    async def work(calls: int) -> None:
        for _ in range(calls):
            assert await read() == IMAGES

    return work


async def measure() -> dict[str, Sample]:
    with running_server(images=IMAGES, latency=LATENCY) as url:
        subjects = {
            BY_HAND: listing(lambda: follow_links(url)),
            DEFAULT: listing(lambda: stream(url)),
            TEN: listing(lambda: stream(url, concurrency=10)),
        }
        return await compare(subjects, calls=1, rounds=5, clock=time.perf_counter, scale=1.0)


def run() -> Result:
    samples = asyncio.run(measure())
    by_hand = samples[BY_HAND]
    return Result(
        unit="s",
        samples=samples,
        checks=(
            at_least("link by link, against the default concurrency", ratio(by_hand, samples[DEFAULT]), 4.0),
            at_least("link by link, against concurrency=10", ratio(by_hand, samples[TEN]), 8.0),
        ),
        notes=("wall time; 100 pages of 200, each answered after 50 ms",),
    )
