"""Every public error, raised by real calls; the documentation shows its exact message."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from redis.asyncio import Redis

from do_images_async import ImagesAPI, RateLimiter, TokenBucket, errors
from do_images_async.redis import RedisRateLimiter
from do_images_async.testing import Fault, ImagesEmulator
from tests.conftest import ONCE, TOKEN

PAGE = (Path(__file__).parents[1] / "docs" / "pages" / "howto" / "errors.md").read_text(encoding="utf-8")

Provoke: TypeAlias = Callable[[ImagesEmulator, ImagesAPI], Awaitable[object]]

SNAPSHOT = "ubuntu-24-04-x64"


def _public(emulator: ImagesEmulator) -> int:
    return int(next(image["id"] for image in emulator.images if image["public"]))


def _answered(fault: Fault, call: Callable[[ImagesAPI], Awaitable[object]]) -> Provoke:
    async def provoke(emulator: ImagesEmulator, api: ImagesAPI) -> object:
        emulator.faults.add(fault)
        return await call(api)

    return provoke


def _create(api: ImagesAPI) -> Awaitable[object]:
    return api.create_custom(name="golden", url="https://example.com/golden.qcow2", region="nyc3")


async def _with_an_unknown_token(emulator: ImagesEmulator, _: ImagesAPI) -> object:
    async with ImagesAPI(TOKEN, base_url=emulator.url) as api:
        return await api.get(SNAPSHOT)


async def _without_quota(emulator: ImagesEmulator, _: ImagesAPI) -> object:
    limiter = RateLimiter(TokenBucket(1, per=60))
    async with ImagesAPI(emulator.token, base_url=emulator.url, limiter=limiter, max_wait=2) as api:
        await api.get(SNAPSHOT)
        return await api.get(SNAPSHOT)


async def _without_redis(emulator: ImagesEmulator, _: ImagesAPI) -> object:
    async with (
        Redis.from_url("unix:///nowhere/redis.sock") as redis,  # pyright: ignore[reportUnknownMemberType]
        RedisRateLimiter(redis, emulator.token, store_timeout=1.0) as limiter,
        ImagesAPI(emulator.token, base_url=emulator.url, limiter=limiter) as api,
    ):
        return await api.get(SNAPSHOT)


async def _without_a_token_file(emulator: ImagesEmulator, _: ImagesAPI) -> object:
    async with ImagesAPI(Path("/nowhere/token").read_text, base_url=emulator.url) as api:
        return await api.get(SNAPSHOT)


async def _an_import_that_fails(_: ImagesEmulator, api: ImagesAPI) -> object:
    new = await api.create_custom(name="golden", url="https://example.com/golden.exe", region="nyc3")
    return await api.wait_until_available(new.id, poll_interval=0.05)


async def _an_import_that_takes_long(emulator: ImagesEmulator, api: ImagesAPI) -> object:
    emulator.images.import_seconds = 3600.0
    new = await api.create_custom(name="golden", url="https://example.com/golden.img", region="nyc3")
    return await api.wait_until_available(new.id, timeout=1.0, poll_interval=10.0)


async def _an_action_that_fails(emulator: ImagesEmulator, api: ImagesAPI) -> object:
    emulator.actions.fails = lambda _: True
    image = emulator.images.add(name="golden")
    begun = await api.actions.transfer(image, "ams3")
    return await api.actions.wait(image, begun.id, poll_interval=0.05)


async def _a_transfer_that_is_in_progress(emulator: ImagesEmulator, api: ImagesAPI) -> object:
    image = emulator.images.add(name="golden")
    emulator.actions.start(image, "transfer", "ams3")
    return await api.actions.transfer(image, "ams3")


async def _deleting_a_public_image(emulator: ImagesEmulator, api: ImagesAPI) -> object:
    return [outcome.result() async for outcome in api.delete_many([_public(emulator)])]


async def _a_listing_without_end(emulator: ImagesEmulator, api: ImagesAPI) -> object:
    for number in range(2, 12):
        link = f"{emulator.url}/v2/images?page={number}&per_page=200"
        page: dict[str, object] = {"images": [], "links": {"pages": {"next": link}}, "meta": {"total": 600}}
        emulator.faults.add(Fault(body=json.dumps(page).encode()))
    return [image async for image in api.list(concurrency=1)]


async def _closed(_: ImagesEmulator, api: ImagesAPI) -> object:
    await api.aclose()
    return await api.get(SNAPSHOT)


PROVOCATIONS: dict[str, Provoke] = {
    "BadRequestError": _answered(Fault(status=400), lambda api: api.get(SNAPSHOT)),
    "AuthenticationError": _with_an_unknown_token,
    "PermissionDeniedError": lambda emulator, api: api.delete(_public(emulator)),
    "NotFoundError": lambda emulator, api: api.get(1),
    "ConflictError": _a_transfer_that_is_in_progress,
    "UnprocessableEntityError": lambda emulator, api: api.create_custom(
        name="golden", url="https://example.com/golden.qcow2", region="mars1"
    ),
    "RateLimitError": _answered(
        Fault(status=429, headers={"retry-after": "7"}), lambda api: api.get(SNAPSHOT)
    ),
    "ServerError": _answered(Fault(status=503), _create),
    "APIError": _answered(Fault(status=302), lambda api: api.get(SNAPSHOT)),
    "TransportError": _answered(Fault(broken="reset", after=True), _create),
    "RequestTimeoutError": _answered(
        Fault(delay=0.4), lambda api: api.with_options(timeout=0.1).get(SNAPSHOT)
    ),
    "DecodeError": _answered(Fault(body=b'{"image": {"id": "42"}}'), lambda api: api.get(SNAPSHOT)),
    "QuotaWaitError": _without_quota,
    "QuotaStoreError": _without_redis,
    "WrongResourceError": _answered(Fault(body=b'{"image": {"id": 8}}'), lambda api: api.get(7)),
    "TokenError": _without_a_token_file,
    "ImportFailedError": _an_import_that_fails,
    "ActionFailedError": _an_action_that_fails,
    "PublicImageError": _deleting_a_public_image,
    "WaitTimeoutError": _an_import_that_takes_long,
    "IncompleteListingError": _a_listing_without_end,
    "ClientStateError": _closed,
}


def normalized(message: str) -> str:
    """Return the message without the parts that differ from run to run."""
    message = re.sub(r"http://127\.0\.0\.1:\d+", "https://api.digitalocean.com", message)
    message = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "…", message)
    message = re.sub(r"\b\d{8,10}\b", "42", message)
    return re.sub(r"\d+\.\d s;", "60.9 s;", message)


def documented(name: str) -> str:
    section = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert section is not None, f"the page has no section on {name}"
    return section[1]


@pytest.mark.parametrize("name", PROVOCATIONS)
async def test_an_error_says_what_the_documentation_shows(name: str) -> None:
    async with (
        ImagesEmulator(images=1) as emulator,
        ImagesAPI(emulator.token, base_url=emulator.url, retry=ONCE) as api,
    ):
        with pytest.raises(errors.DOImagesError) as caught:
            await PROVOCATIONS[name](emulator, api)
    assert type(caught.value) is getattr(errors, name)
    section = documented(name)
    shown = re.search(r"^```text\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert shown is not None
    assert " ".join(shown[1].split()) == normalized(str(caught.value))
    assert "**What to do.**" in section
    assert TOKEN not in str(caught.value)
    assert emulator.token not in str(caught.value)


def test_every_public_error_is_provoked() -> None:
    assert set(PROVOCATIONS) == set(errors.__all__) - {"DOImagesError"}
