"""Strings of other types, such as an enum's members: what counts are their characters."""

from __future__ import annotations

from enum import Enum
from typing import Any, cast

import pytest

from do_images_async import ImagesAPI
from tests.conftest import FAST, TOKEN
from tests.support.servers import Server, image_document, image_reply, reply

URL = "https://example.com/golden.qcow2"


class Named(str, Enum):  # noqa: UP042  (a StrEnum formats itself as its value)
    """As in a program that keeps its names in one place. `str()` of a member is `Named.PROD`."""

    PROD = "prod"
    SLUG = "ubuntu-24-04-x64"
    TYPE = "distribution"
    URL = URL


class Path(str):
    """A string that formats itself as another one."""

    def __format__(self, spec: str) -> str:
        return "../account/keys"

    __str__ = __repr__ = lambda self: "../account/keys"


PROD: list[Any] = [Named.PROD, Path("prod")]


@pytest.mark.parametrize("text", PROD, ids=["an enum's member", "a subclass"])
async def test_what_is_sent_are_the_characters_of_a_string(server: Server, api: ImagesAPI, text: str) -> None:
    server.answer_with(lambda _: image_reply(7, name="prod"))
    await api.create_custom(name=text, url=Named.URL, region=text, distribution=text, tags=[text])
    await api.update(7, name=text, description=text)
    created, updated = (received.json() for received in server.received)
    assert created == {
        "name": "prod", "url": URL, "region": "prod", "distribution": "prod", "tags": ["prod"]
    }  # fmt: skip
    assert updated == {"name": "prod", "description": "prod"}


@pytest.mark.parametrize("text", PROD, ids=["an enum's member", "a subclass"])
async def test_a_filter_is_the_characters_of_a_string(server: Server, api: ImagesAPI, text: str) -> None:
    images = [image_document(7, tags=["prod"], name="prod")]
    server.answer_with(lambda _: reply({"images": images, "links": {}, "meta": {"total": 1}}))
    assert len((await api.list_page(tag_name=text)).images) == 1
    assert len(await api.list_whole(tag_name=text)) == 1
    assert await api.latest(tag_name=text) is not None
    assert {received.query.get("tag_name") for received in server.received} == {"prod"}
    await api.list_page(type=cast("Any", Named.TYPE))
    assert server.received[-1].query["type"] == "distribution"


async def test_a_path_is_the_characters_of_a_slug(server: Server, api: ImagesAPI) -> None:
    server.answer_with(lambda _: image_reply(7, slug="ubuntu-24-04-x64"))
    for slug in (Named.SLUG, Path(Named.SLUG.value)):
        await api.get(slug)
    assert {received.target for received in server.received} == {"/v2/images/ubuntu-24-04-x64"}


async def test_a_token_is_its_characters(server: Server) -> None:
    server.answer_with(lambda _: image_reply(7))
    async with ImagesAPI(Path(TOKEN), base_url=Path(server.url), retry=FAST) as api:
        await api.get(7)
    assert server.received[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_an_int_of_another_type_is_refused_with_its_type(api: ImagesAPI) -> None:
    class Id(int):
        pass

    class Int64:  # of numpy before 2
        def __index__(self) -> int:
            return 7

        def __repr__(self) -> str:
            return "7"

    with pytest.raises(TypeError, match=r"image_id must be an int, not 7 \(Id\)"):
        await api.delete(Id(7))
    with pytest.raises(TypeError, match=r"slug of a public image, not 7 \(Int64\)"):
        await api.get(cast("int", Int64()))
    with pytest.raises(TypeError, match=r"per_page must be an int, not 7 \(Int64\)"):
        api.list(per_page=cast("int", Int64()))
