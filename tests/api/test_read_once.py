"""What the library yields can be read once: a second loop is an error, never an empty one."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

import do_images_async
from do_images_async import ImagesAPI, errors, fan_out
from do_images_async._api.actions import AccountTransfers, ImageActions
from do_images_async.testing import ImagesEmulator
from tests.conftest import FAST

Readable = AsyncGenerator[Any, None]

READ: dict[str, Callable[[ImagesAPI, int], Readable]] = {
    "ImagesAPI.list": lambda api, _: api.list(),
    "ImagesAPI.list_pages": lambda api, _: api.list_pages(),
    "ImagesAPI.ensure_regions": lambda api, image: api.ensure_regions(image, ["nyc3", "ams3"]),
    "ImagesAPI.get_many": lambda api, image: api.get_many([image, image]),
    "ImagesAPI.delete_many": lambda api, image: api.delete_many([image, image], dry_run=True),
    "ImagesAPI.update_many": lambda api, image: api.update_many([(image, {"name": "a"})] * 2),
    "ImageActions.list": lambda api, image: api.actions.list(image),
    "ImageActions.transfer_to_regions": lambda api, image: api.actions.transfer_to_regions(
        image, ["nyc3", "ams3"], poll_interval=0.01
    ),
    "fan_out": lambda api, image: fan_out(api.get, [image, image]),
}


@pytest.fixture
async def emulator() -> AsyncIterator[ImagesEmulator]:
    async with ImagesEmulator(images=0, action_seconds=0.01) as running:
        yield running


@pytest.fixture
async def account(emulator: ImagesEmulator) -> AsyncIterator[ImagesAPI]:
    async with ImagesAPI(emulator.token, base_url=emulator.url, retry=FAST) as client:
        yield client


@pytest.fixture
async def image(emulator: ImagesEmulator, account: ImagesAPI) -> int:
    """Return an image in two regions, with an action."""
    added = emulator.images.add(regions=["nyc3", "ams3"])
    await account.actions.transfer(added, "fra1")
    return added


async def read(generator: Readable) -> int:
    return len([each async for each in generator])


def test_every_public_generator_is_among_those() -> None:
    functions = {name: getattr(do_images_async, name) for name in do_images_async.__all__}
    functions |= {
        f"{owner.__name__}.{name}": function
        for owner in (ImagesAPI, ImageActions, AccountTransfers)
        for name, function in inspect.getmembers(owner, inspect.isfunction)
    }
    yielding = {
        name
        for name, function in functions.items()
        if inspect.isfunction(function)
        and str(function.__annotations__.get("return")).startswith("AsyncGenerator")
    }
    assert yielding == set(READ)


@pytest.mark.parametrize("name", READ)
async def test_a_second_loop_is_an_error(account: ImagesAPI, image: int, name: str) -> None:
    generator = READ[name](account, image)
    assert isinstance(generator, AsyncGenerator)
    assert repr(generator).endswith(" that has not begun>")
    assert await read(generator)
    assert repr(generator).endswith(" that was read to its end or closed>")
    with pytest.raises(ValueError, match="was read to its end or closed: make a new one"):
        await read(generator)
    with pytest.raises(StopAsyncIteration):
        await anext(generator)


@pytest.mark.parametrize("name", READ)
async def test_a_loop_goes_on_where_another_one_stopped_until_it_is_closed(
    account: ImagesAPI, image: int, name: str
) -> None:
    async with aclosing(READ[name](account, image)) as generator:
        async for _ in generator:
            break
        assert repr(generator).endswith(" that has begun>")
        if name not in ("ImageActions.list", "ImagesAPI.list_pages"):
            assert await generator.asend(None) is not None
    with pytest.raises(ValueError, match="was read to its end or closed"):
        await read(generator)


async def test_a_loop_that_is_tried_again_after_an_error_is_an_error(account: ImagesAPI) -> None:
    outcomes = account.ensure_regions(404404, ["nyc3"])
    with pytest.raises(errors.NotFoundError):
        await read(outcomes)
    with pytest.raises(ValueError, match="this generator of outcomes was read to its end or closed"):
        await read(outcomes)


async def test_what_is_thrown_into_one_ends_its_calls(account: ImagesAPI) -> None:
    cancelled: list[int] = []

    async def call(key: int) -> int:
        try:
            await asyncio.sleep(3600 if key else 0)
        except asyncio.CancelledError:
            cancelled.append(key)
            raise
        return key

    outcomes = fan_out(call, [0, 1, 2])
    assert (await anext(outcomes)).key == 0
    with pytest.raises(LookupError):
        await outcomes.athrow(LookupError())
    assert sorted(cancelled) == [1, 2]
