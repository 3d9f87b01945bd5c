"""CPU of one `get`: bare aiohttp, this library, and the provider's own asyncio client."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pydo.aio

from benchmarks.measure import Sample, Work, compare
from benchmarks.server import running_server
from do_images_async import ImagesAPI, RateLimiter, TokenBucket

TOKEN = "dop_v1_" + "0" * 64
PLENTY = 1_000_000


def bare(session: aiohttp.ClientSession, url: str) -> Work:
    """What one writes by hand: a request and `json()`."""

    async def work(calls: int) -> None:
        for _ in range(calls):
            async with session.get(
                f"{url}/v2/images/42", headers={"Authorization": f"Bearer {TOKEN}"}
            ) as response:
                assert (await response.json())["image"]["id"] == 7_000_042

    return work


def ours(api: ImagesAPI) -> Work:
    """The same through authorization, quota, retries, and into a model."""

    async def work(calls: int) -> None:
        for _ in range(calls):
            assert (await api.get(42)).id == 7_000_042

    return work


def pydo_aio(client: Any) -> Work:
    """The same with pydo's asyncio client."""

    async def work(calls: int) -> None:
        for _ in range(calls):
            assert (await client.images.get(image_id=42, enforce_https=False))["image"]["id"] == 7_000_042

    return work


async def measure(calls: int, repetitions: int) -> dict[str, Sample]:
    with running_server() as url:
        # Both buckets take part in every call; they are only too large to make anyone wait.
        limiter = RateLimiter(TokenBucket(PLENTY, per=60), TokenBucket(PLENTY, per=3600))
        async with (
            aiohttp.ClientSession() as session,
            ImagesAPI(TOKEN, base_url=url, limiter=limiter) as api,
            pydo.aio.Client(TOKEN, endpoint=url) as client,
        ):
            subjects = {
                "bare aiohttp, get + json()": bare(session, url),
                "do_images_async, get": ours(api),
                "pydo.aio, images.get": pydo_aio(client),
            }
            return await compare(subjects, calls=calls, repetitions=repetitions)


def run(*, calls: int = 300, repetitions: int = 9) -> dict[str, Sample]:
    return asyncio.run(measure(calls, repetitions))
