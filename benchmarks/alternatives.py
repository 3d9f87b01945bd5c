"""The alternatives to this client: each as a function that gets one image, set up as its manual says."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, Final

import aiohttp

from do_images_async import ImagesAPI, RateLimiter, TokenBucket

__all__ = [
    "BARE",
    "DIGITALOCEAN",
    "HTTPX",
    "OURS",
    "OWN_TOKEN",
    "PYDO",
    "PYDO_AIO",
    "TOKEN",
    "Get",
    "ample_limiter",
    "authorization",
    "bare",
    "httpx_client",
    "ours",
    "pydo_aio",
    "pydo_sync",
    "python_digitalocean",
]

Get = Callable[[int], Awaitable[Any]]
"""Gets the image with this id, and returns the id that came back."""

BARE: Final = "bare aiohttp, get + json()"
OURS: Final = "do_images_async, get"
HTTPX: Final = "httpx, get + json()"
PYDO_AIO: Final = "pydo.aio, images.get"
PYDO: Final = "pydo (blocking), images.get"
DIGITALOCEAN: Final = "python-digitalocean (blocking)"

TOKEN: Final = "dop_v1_" + "0" * 64
OWN_TOKEN: Final = "dop_v1_" + "1" * 64
"""A token that no other subject spends: where others spend it too, a limiter paces its requests."""
authorization: Final = {"Authorization": f"Bearer {TOKEN}"}


def ample_limiter() -> RateLimiter:
    """Return a limiter of two buckets that are so large that no call waits.

    A limiter's first window costs more, since it probes the server. The window is short, so that most rounds
    come after it.
    """
    buckets = TokenBucket(1_000_000, per=5), TokenBucket(1_000_000, per=3600)
    return RateLimiter(*buckets, slow_start=False)


@asynccontextmanager
async def bare(url: str) -> AsyncGenerator[Get, None]:
    async with aiohttp.ClientSession() as session:

        async def get(number: int) -> Any:
            async with session.get(f"{url}/v2/images/{number}", headers=authorization) as response:
                body: Any = await response.json()
                return body["image"]["id"]

        yield get


@asynccontextmanager
async def ours(url: str) -> AsyncGenerator[Get, None]:
    async with ImagesAPI(OWN_TOKEN, base_url=url, limiter=ample_limiter()) as images:

        async def get(number: int) -> Any:
            return (await images.get(number)).id

        yield get


# The other clients come with an extra and without types: they are imported when they are run.


@asynccontextmanager
async def httpx_client(url: str) -> AsyncGenerator[Get, None]:
    httpx: Any = import_module("httpx")
    async with httpx.AsyncClient(headers=authorization) as client:

        async def get(number: int) -> Any:
            response = await client.get(f"{url}/v2/images/{number}")
            return response.json()["image"]["id"]

        yield get


@asynccontextmanager
async def pydo_aio(url: str) -> AsyncGenerator[Get, None]:
    pydo: Any = import_module("pydo.aio")
    async with pydo.Client(TOKEN, endpoint=url) as client:

        async def get(number: int) -> Any:
            return (await client.images.get(image_id=number, enforce_https=False))["image"]["id"]

        yield get


@asynccontextmanager
async def pydo_sync(url: str) -> AsyncGenerator[Get, None]:
    pydo: Any = import_module("pydo")
    with pydo.Client(TOKEN, endpoint=url) as client:

        async def get(number: int) -> Any:
            return client.images.get(image_id=number, enforce_https=False)["image"]["id"]

        yield get


@asynccontextmanager
async def python_digitalocean(url: str) -> AsyncGenerator[Get, None]:
    # The manager does not pass its endpoint on; the environment variable works everywhere.
    os.environ["DIGITALOCEAN_END_POINT"] = f"{url}/v2/"
    digitalocean: Any = import_module("digitalocean")
    manager = digitalocean.Manager(token=TOKEN)

    async def get(number: int) -> Any:
        return manager.get_image(number).id

    yield get
