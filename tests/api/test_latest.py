"""The newest image by name, tag or distribution: never an older one because the list was short."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from do_images_async import ImagesAPI, errors
from do_images_async.testing import ImagesEmulator
from tests.conftest import FAST
from tests.support.servers import Server, image_document, reply


@pytest.fixture
async def emulator() -> AsyncIterator[ImagesEmulator]:
    async with ImagesEmulator(images=0) as running:
        yield running


@pytest.fixture
async def account(emulator: ImagesEmulator) -> AsyncIterator[ImagesAPI]:
    async with ImagesAPI(emulator.token, base_url=emulator.url, retry=FAST) as client:
        yield client


def at(day: int) -> str:
    return f"2026-11-{day:02}T00:00:00Z"


async def id_of(account: ImagesAPI, **filters: Any) -> int | None:
    image = await account.latest(**filters)
    return None if image is None else image.id


async def test_the_newest_image_by_name_tag_and_distribution(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    add = emulator.images.add
    web_2 = add(name="web-2", created_at=at(2), tags=["prod"], distribution="Debian")
    web_1 = add(name="web-1", created_at=at(1), tags=["prod"], distribution="Ubuntu", type="custom")
    api_3 = add(name="api-3", created_at=at(3), tags=["test"], distribution="Ubuntu")
    backup = add(name="api-4", created_at=at(4), tags=[], distribution="Fedora", type="backup")
    assert await id_of(account) == backup
    assert await id_of(account, name="web-*") == web_2
    assert await id_of(account, name="web-1") == web_1
    assert await id_of(account, tag_name="prod") == web_2
    assert await id_of(account, tag_name="prod", distribution="ubuntu") == web_1
    assert await id_of(account, distribution="Ubuntu") == api_3
    assert await id_of(account, type="snapshot") == api_3
    assert await id_of(account, type="custom") == web_1
    assert await id_of(account, type="backup", name="web-*") is None
    assert await id_of(account, name="WEB-*") is None, "names are compared with their case"


async def test_only_images_that_can_be_used_count(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    emulator.images.add(name="a", created_at=at(5), status="pending")
    emulator.images.add(name="a", created_at=at(6), status="deleted")
    ready = emulator.images.add(name="a", created_at=at(4))
    assert await id_of(account, name="a") == ready


async def test_equal_dates_and_none(server: Server, api: ImagesAPI) -> None:
    dates = {1: None, 2: at(1), 3: at(1), 4: None}
    images = [image_document(number, created_at=date) for number, date in dates.items()]
    server.answer_with(lambda _: reply({"images": images, "meta": {"total": 4}}))
    assert await id_of(api) == 3
    assert await id_of(api, name="image [14]") == 4


async def test_a_public_image_is_not_taken_for_ones_own(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    mine = emulator.images.add(name="web", created_at=at(1))
    theirs = emulator.images.add(name="web", created_at=at(2), public=True)
    assert await id_of(account, name="web") == mine
    assert await id_of(account, name="web", private=False) == theirs


async def test_the_newest_public_image_of_a_distribution(account: ImagesAPI) -> None:
    image = await account.latest(type="distribution", distribution="Debian", private=False)
    assert image is not None
    assert (image.distribution, image.public) == ("Debian", True)
    every = [each async for each in account.list(type="distribution") if each.distribution == "Debian"]
    assert image.created_at == max(each.created_at for each in every if each.created_at)


async def test_it_costs_two_readings_of_the_list(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    for number in range(201):
        emulator.images.add(name=f"web-{number}", created_at=at(1 + number % 20))
    await account.latest(name="web-*")
    assert len(emulator.requests) == 4
    await account.latest(name="web-*", strict=False)
    assert len(emulator.requests) == 4 + 2


async def test_a_list_that_is_short_is_an_error_and_not_an_older_image(
    server: Server, api: ImagesAPI
) -> None:
    page = {"images": [image_document(1)], "meta": {"total": 2}}
    server.answer_with(lambda request: reply(page if request.query["page"] == "1" else {"images": []}))
    with pytest.raises(errors.IncompleteListingError):
        await api.latest()


@pytest.mark.parametrize(
    ("filters", "kind"),
    [
        ({"name": ""}, ValueError),
        ({"name": 5}, TypeError),
        ({"distribution": ""}, ValueError),
        ({"tag_name": ""}, ValueError),
        ({"type": "base"}, ValueError),
        ({"type": 1}, ValueError),
        ({"type": ["snapshot"]}, ValueError),
        ({"type": "application"}, ValueError),
        ({"private": None}, TypeError),
    ],
)
async def test_bad_filters_send_nothing(
    server: Server, api: ImagesAPI, filters: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=next(iter(filters))):
        await api.latest(**filters)
    assert not server.connections
