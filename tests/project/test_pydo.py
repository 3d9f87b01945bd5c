"""pydo, the provider's own client: against the emulator, and with the quota's middleware under it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pydo
import pydo.aio
import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.transport import AioHttpTransport

from do_images_async import RateLimiter, TokenBucket, quota_middleware
from do_images_async.testing import ImagesEmulator, Quota

UNLIMITED = (Quota(10**6, 3600.0),)
GOLDEN = {"name": "golden", "url": "https://example.com/golden.qcow2", "region": "nyc3"}


@pytest.fixture
def threaded() -> Iterator[ImagesEmulator]:
    with ImagesEmulator(quotas=UNLIMITED, import_seconds=0, action_seconds=0) as running:
        yield running


def test_pydo(threaded: ImagesEmulator) -> None:
    client: Any = pydo.Client(threaded.token, endpoint=threaded.url)
    plain = {"enforce_https": False}
    images, actions = client.images, client.image_actions

    page = images.list(private=True, per_page=7, page=2, **plain)
    assert (len(page["images"]), page["meta"]["total"]) == (7, 20)
    assert images.list(type="distribution", **plain)["images"][0]["slug"] == "ubuntu-24-04-x64"
    assert images.get("debian-12-x64", **plain)["image"]["slug"] == "debian-12-x64"
    number = images.create_custom(body={**GOLDEN, "tags": ["prod"]}, **plain)["image"]["id"]
    assert images.get(number, **plain)["image"]["status"] == "available"
    assert images.update(number, body={"name": "b"}, **plain)["image"]["name"] == "b"

    action = actions.post(number, body={"type": "transfer", "region": "ams3"}, **plain)["action"]
    assert actions.get(number, action["id"], **plain)["action"]["status"] == "completed"
    assert [each["id"] for each in actions.list(number, **plain)["actions"]] == [action["id"]]
    assert images.get(number, **plain)["image"]["regions"] == ["nyc3", "ams3"]
    assert images.delete(number, **plain) is None

    # It returns a 404 as a document, and raises the other errors.
    assert images.get(number, **plain)["id"] == "not_found"
    with pytest.raises(HttpResponseError) as caught:
        images.create_custom(body={"name": "x"}, **plain)
    assert caught.value.status_code == 422
    assert "url is required" in str(caught.value)
    threaded.tokens.revoke(threaded.token)
    with pytest.raises(ClientAuthenticationError, match="Unable to authenticate you"):
        images.list(**plain)
    assert threaded.requests.count("DELETE", f"/v2/images/{number}", status=204) == 1


async def test_pydo_aio() -> None:
    plain = {"enforce_https": False}
    client: Any
    async with (
        ImagesEmulator(quotas=UNLIMITED, import_seconds=0, action_seconds=0) as emulator,
        pydo.aio.Client(emulator.token, endpoint=emulator.url) as client,
    ):
        images, actions = client.images, client.image_actions
        page = await images.list(private=True, per_page=7, page=2, **plain)
        assert (len(page["images"]), page["meta"]["total"]) == (7, 20)
        number = (await images.create_custom(body=GOLDEN, **plain))["image"]["id"]
        assert (await images.get(number, **plain))["image"]["status"] == "available"
        assert (await images.update(number, body={"name": "b"}, **plain))["image"]["name"] == "b"
        body = {"type": "transfer", "region": "ams3"}
        action = (await actions.post(number, body=body, **plain))["action"]
        action = (await actions.get(number, action["id"], **plain))["action"]
        assert action["status"] == "completed"
        assert len((await actions.list(number, **plain))["actions"]) == 1
        await images.delete(number, **plain)
        assert (await images.get(number, **plain))["id"] == "not_found"
        with pytest.raises(HttpResponseError) as caught:
            await images.create_custom(body={"name": "x"}, **plain)
        assert caught.value.status_code == 422
        emulator.tokens.revoke(emulator.token)
        with pytest.raises(ClientAuthenticationError, match="Unable to authenticate you"):
            await images.list(**plain)


async def test_600_calls_of_pydo_100_in_flight_are_never_refused() -> None:
    # A minute of two seconds.
    limiter = RateLimiter(TokenBucket(200, per=2, margin=0.1), TokenBucket(5000, per=3600))
    async with ImagesEmulator(images=1, quotas=(Quota(200, 2.0), Quota(5000, 3600.0))) as emulator:
        wanted = next(iter(emulator.images))["id"]
        session = aiohttp.ClientSession(middlewares=(quota_middleware(limiter),))
        transport = AioHttpTransport(session=session, session_owner=False)
        places = asyncio.Semaphore(100)

        async def get(client: Any) -> Any:
            async with places:
                return (await client.images.get(image_id=wanted, enforce_https=False))["image"]["id"]

        async with (
            session,
            pydo.aio.Client(emulator.token, endpoint=emulator.url, transport=transport) as client,
        ):
            got = await asyncio.gather(*(get(client) for _ in range(600)))
        assert set(got) == {wanted}
        assert len(emulator.requests) == 600
        assert not [entry for entry in emulator.requests if entry.status == 429]
    assert limiter.stats().granted == 600
