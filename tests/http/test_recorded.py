"""Responses that others have recorded: models with equal values, and errors with equal messages.

They are other people's data and not part of this repository: without their folder, the tests are skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest

from do_images_async import Action, Image, ImagesAPI, RateLimiter, TokenBucket, errors
from tests.conftest import ONCE, TOKEN
from tests.support.servers import Server, content

RECORDED = Path(
    os.environ.get("IMAGES_RECORDED") or Path(__file__).parents[3] / "shared" / "reference" / "recorded"
)
FILES = sorted(RECORDED.glob("*.json"))
pytestmark = pytest.mark.skipif(
    not FILES, reason="needs recorded answers, which are not published: IMAGES_RECORDED names their folder"
)

CLASSES: dict[int, type[errors.APIError]] = {
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    422: errors.UnprocessableEntityError,
    429: errors.RateLimitError,
    500: errors.ServerError,
    520: errors.ServerError,
}


WITHOUT_AN_ID = {"037-get-200", "090-transfer-201"}
"""Written by hand for other clients' tests: an image and an action without an id, as no real server sends."""


@attrs.frozen
class Recorded:
    """A recorded response."""

    name: str
    kind: str
    status: int
    headers: Mapping[str, str]
    body: Any

    @classmethod
    def read(cls, path: Path) -> Recorded:
        document = json.loads(path.read_text(encoding="utf-8"))
        return cls(path.stem, document["kind"], **document["response"])

    def serve(self, server: Server) -> None:
        """Make the server send this response, once."""
        body = self.body if isinstance(self.body, str) else json.dumps(self.body)
        kept = {
            name.lower(): value
            for name, value in self.headers.items()
            if name.lower() not in ("content-length", "content-encoding", "transfer-encoding", "connection")
        }
        server.script(content(body.encode(), status=self.status, headers=kept))


def recorded(*kinds: str) -> pytest.MarkDecorator:
    known = [answer for answer in map(Recorded.read, FILES) if answer.name not in WITHOUT_AN_ID]
    chosen = [answer for answer in known if answer.kind in kinds]
    return pytest.mark.parametrize("answer", chosen, ids=lambda answer: answer.name)


@pytest.fixture
async def api(server: Server) -> AsyncGenerator[ImagesAPI, None]:
    limiter = RateLimiter(TokenBucket(1000, per=60))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, retry=ONCE) as client:
        yield client


def assert_same(model: Image | Action, document: Mapping[str, Any]) -> None:
    """Fail unless every value of the document that has a field is in the model."""
    for field in attrs.fields(type(model)):
        if field.name not in document:
            assert getattr(model, field.name) == field.default
            continue
        expected: Any = document[field.name]
        value: Any = getattr(model, field.name)
        if isinstance(value, datetime):
            assert value == datetime.fromisoformat(expected), field.name
        elif isinstance(value, tuple):
            assert list(cast("tuple[str, ...]", value)) == (expected or []), field.name
        elif field.name == "region" and value is not None:
            slug = expected if isinstance(expected, str) else expected["slug"]
            assert value.slug == slug
        else:
            assert value == expected, field.name


def total(body: Mapping[str, Any]) -> int | None:
    meta: Mapping[str, int] = body.get("meta") or {}
    return meta.get("total")


def page_number(body: Mapping[str, Any]) -> int:
    """Return the number of a recorded page, from its links."""
    links: Mapping[str, Any] = body.get("links") or {}
    pages: Mapping[str, str] = links.get("pages") or {}
    for name, step in (("prev", 1), ("next", -1)):
        if pages.get(name):
            return int(parse_qs(urlsplit(pages[name]).query)["page"][0]) + step
    return 1


@recorded("list")
async def test_a_listing_decodes_with_every_value_equal(
    answer: Recorded, server: Server, api: ImagesAPI
) -> None:
    answer.serve(server)
    page = await api.list_page(page=page_number(answer.body), per_page=200)
    assert len(page.images) == len(answer.body["images"])
    for image, document in zip(page.images, answer.body["images"], strict=True):
        assert_same(image, document)
    assert page.total == total(answer.body)


@recorded("get")
async def test_an_image_decodes_with_every_value_equal(
    answer: Recorded, server: Server, api: ImagesAPI
) -> None:
    answer.serve(server)
    document = answer.body["image"]
    assert_same(await api.get(document["id"]), document)


@recorded("create")
async def test_a_creation_decodes_with_every_value_equal(
    answer: Recorded, server: Server, api: ImagesAPI
) -> None:
    answer.serve(server)
    document = answer.body["image"]
    image = await api.create_custom(
        name=document.get("name", "x"), url="https://example.com/i.raw", region="nyc3"
    )
    assert_same(image, document)


@recorded("update")
async def test_an_update_decodes_with_every_value_equal(
    answer: Recorded, server: Server, api: ImagesAPI
) -> None:
    answer.serve(server)
    document = answer.body["image"]
    assert_same(await api.update(document["id"], name=document["name"]), document)


@recorded("action")
async def test_an_action_decodes_with_every_value_equal(
    answer: Recorded, server: Server, api: ImagesAPI
) -> None:
    answer.serve(server)
    document = answer.body["action"]
    assert_same(await api.actions.get(document["resource_id"] or 7, document["id"]), document)


@recorded("transfer")
async def test_the_start_of_an_action_decodes_with_every_value_equal(
    answer: Recorded, server: Server, api: ImagesAPI
) -> None:
    answer.serve(server)
    document = answer.body["action"]
    if document["type"] == "convert":
        action = await api.actions.convert(document["resource_id"])
    elif document["type"] != "transfer":  # an action of another resource
        action = await api.actions.get(document["resource_id"], document["id"])
    else:
        action = await api.actions.transfer(document["resource_id"], document.get("region_slug") or "nyc3")
    assert_same(action, document)


@recorded("actions")
async def test_a_listing_of_actions_decodes_with_every_value_equal(
    answer: Recorded, server: Server, api: ImagesAPI
) -> None:
    answer.serve(server)
    documents = answer.body["actions"]
    resource = next((each["resource_id"] for each in documents if each.get("resource_id")), 7)
    page = await api.actions.list_page(resource, page=page_number(answer.body), per_page=200)
    for action, document in zip(page.actions, documents, strict=True):
        assert_same(action, document)
    assert page.total == total(answer.body)


@pytest.mark.parametrize("name", sorted(WITHOUT_AN_ID))
async def test_what_has_no_id_is_refused(name: str, server: Server, api: ImagesAPI) -> None:
    answer = Recorded.read(RECORDED / f"{name}.json")
    answer.serve(server)
    with pytest.raises(errors.DecodeError, match="id"):
        await (api.get(7) if answer.kind == "get" else api.actions.convert(7))


@recorded("error")
async def test_an_error_is_of_its_class_and_keeps_its_id_and_message(
    answer: Recorded, server: Server, api: ImagesAPI
) -> None:
    answer.serve(server)
    with pytest.raises(errors.APIError) as caught:
        await api.get(7)
    error = caught.value
    assert type(error) is CLASSES[answer.status]
    assert error.status == answer.status
    try:
        body = json.loads(answer.body) if isinstance(answer.body, str) else answer.body
    except ValueError:  # a page of the edge
        assert error.id is None
        return
    assert error.id == body["id"]
    message: str | dict[str, str] = body["message"]
    for words in message.values() if isinstance(message, dict) else [message]:
        assert words in error.message
    if "request_id" in body:
        assert error.request_id == body["request_id"]
