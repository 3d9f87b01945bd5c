"""Answers, hooks and filters that contradict what was asked for: an error, or left out, never believed."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from do_images_async import Action, Image, ImagesAPI, converter, errors, fan_out
from tests.conftest import FAST, TOKEN
from tests.support.servers import Answer, Received, Server, image_document, listing, reply

ACTION: dict[str, Any] = {"id": 5, "type": "transfer", "resource_id": 42, "region_slug": "ams3"}


def listed(*images: Mapping[str, object]) -> Answer:
    return reply({"images": images, "links": {}, "meta": {"total": len(images)}})


def listed_actions(*actions: Mapping[str, object]) -> Answer:
    return reply({"actions": actions, "links": {}, "meta": {"total": len(actions)}})


# --- another image's actions ---


async def test_another_images_action_is_never_one_of_this_image(server: Server, api: ImagesAPI) -> None:
    server.answer_with(lambda _: listed_actions(ACTION, ACTION | {"id": 6, "resource_id": 43}))
    with pytest.raises(errors.WrongResourceError, match=r"image 42.*image 43") as caught:
        _ = [each async for each in api.actions.list(42)]
    assert caught.value.page == 1
    assert not caught.value.outcome_unknown


async def test_nothing_is_waited_for_because_another_image_is_transferred(
    server: Server, api: ImagesAPI
) -> None:
    server.answer_with(
        lambda request: (
            listed_actions(ACTION | {"resource_id": 43, "status": "in-progress"})
            if request.path.endswith("/actions")
            else reply({"image": image_document(42)})
        )
    )
    with pytest.raises(errors.WrongResourceError):
        _ = [each async for each in api.ensure_regions(42, ["ams3"])]
    assert "POST" not in server.methods


@pytest.mark.parametrize("status", ["queued", None])
async def test_a_transfer_in_a_state_that_is_not_known_is_not_doubled(
    server: Server, api: ImagesAPI, status: str | None
) -> None:
    def answer(request: Received) -> Answer:
        if request.path.endswith("/actions"):
            return listed_actions(ACTION | {"status": status, "completed_at": None})
        if "/actions/" in request.path:
            return reply({"action": ACTION | {"status": "completed"}})
        return reply({"image": image_document(42)})

    server.answer_with(answer)
    [outcome] = [each async for each in api.ensure_regions(42, ["ams3"], poll_interval=0.01)]
    assert outcome.ok
    assert "POST" not in server.methods


async def test_the_answer_to_an_account_transfer_may_name_no_other_image(
    server: Server, api: ImagesAPI
) -> None:
    server.script(reply({"transfer_id": 9, "image_id": 43}), reply({"transfer_id": 9, "image_id": 42}))
    with pytest.raises(errors.WrongResourceError) as caught:
        await api.account_transfers.create(42, email="a@example.com")
    assert caught.value.outcome_unknown
    assert (await api.account_transfers.create(42, email="a@example.com")).transfer_id == 9


async def test_a_private_image_is_not_the_answer_to_a_slug(server: Server, api: ImagesAPI) -> None:
    server.script(reply({"image": image_document(9)}), reply({"image": image_document(9, public=True)}))
    with pytest.raises(errors.WrongResourceError):
        await api.get("ubuntu")
    assert (await api.get("ubuntu")).id == 9, "one without a slug may be meant"


# --- filters ---

NEWER = "2026-01-01T00:00:00Z"


async def test_latest_leaves_out_a_public_image_among_the_private_ones(
    server: Server, api: ImagesAPI
) -> None:
    server.answer_with(lambda _: listed(image_document(1), image_document(2, public=True, created_at=NEWER)))
    image = await api.latest()
    assert image is not None
    assert image.id == 1


PROVIDED: dict[str, object] = {"public": True, "slug": "ubuntu-24-04-x64"}
NOT_ASKED_FOR: list[tuple[dict[str, Any], dict[str, object], str]] = [
    (
        {"tag_name": "prod"},
        {"tags": ["dev"]},
        "the tag 'prod', but the answer has image 2, which does not have it",
    ),
    ({"tag_name": "prod"}, {"tags": []}, "the tag 'prod', but the answer has image 2"),
    ({"tag_name": "prod"}, {"tags": ["prod-2"]}, "the tag 'prod', but the answer has image 2"),
    ({"private": True}, PROVIDED, "private 'true', but the answer has image 2, which is a public one"),
    (
        {"type": "application"},
        {"type": "custom"},
        "the type 'application', .* image 2, which is a private custom",
    ),
    (
        {"type": "distribution"},
        {"type": "backup"},
        "the type 'distribution', .* image 2, which is a private backup",
    ),
]
PUBLIC_TOO: dict[str, Any] = {"private": False}
LISTINGS: dict[str, Callable[[ImagesAPI, dict[str, Any]], Awaitable[object]]] = {
    "list": lambda api, filters: collected(api.list(**filters, strict=True)),
    "list_pages": lambda api, filters: collected(api.list_pages(**filters, strict=True)),
    "list_whole": lambda api, filters: api.list_whole(**filters),
    "latest": lambda api, filters: api.latest(**PUBLIC_TOO | filters),
}


async def collected(items: AsyncIterable[object]) -> list[object]:
    return [each async for each in items]


@pytest.mark.parametrize(("filters", "other", "message"), NOT_ASKED_FOR)
@pytest.mark.parametrize("call", LISTINGS.values(), ids=LISTINGS.keys())
async def test_an_image_that_the_filter_should_have_left_out_fails_the_listing(
    server: Server,
    api: ImagesAPI,
    call: Callable[[ImagesAPI, dict[str, Any]], Awaitable[object]],
    filters: dict[str, Any],
    other: dict[str, object],
    message: str,
) -> None:
    """A server, or something in front of it, that ignores the filter."""
    server.answer_with(lambda _: listed(image_document(1, tags=["prod"]), image_document(2, **other)))
    with pytest.raises(errors.WrongResourceError, match=message) as caught:
        await call(api, filters)
    assert (caught.value.answered, caught.value.page) == (2, 1)
    assert not caught.value.outcome_unknown
    assert str(copy.copy(caught.value)) == str(caught.value)


@pytest.mark.parametrize(
    ("filters", "fields"),
    [
        ({"tag_name": "prod"}, {"tags": ["Web", "PROD"]}),
        ({"tag_name": "Prod "}, {"tags": ["prod"]}),
        ({"tag_name": "prod"}, {"tags": None}),
        ({"private": True}, {"public": None, "slug": "golden"}),
        ({"private": True}, {"public": True, "slug": None}),
        ({"private": True}, {"public": True, "slug": ""}),
        ({"private": False}, PROVIDED),
        ({"private": False}, {}),
        ({"type": "distribution"}, PROVIDED | {"type": "base"}),
        ({"type": "distribution"}, PROVIDED | {"type": "snapshot"}),
        ({"type": "distribution"}, {"public": False, "slug": None, "type": "snapshot"}),
        ({"type": "application"}, {"public": False, "slug": None, "type": None}),
        ({"type": "application"}, PROVIDED | {"type": "custom"}),
    ],
)
async def test_an_image_that_may_fit_the_filter_is_believed(
    server: Server,
    api: ImagesAPI,
    filters: dict[str, Any],
    fields: dict[str, object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Recorded answers have old distributions that are not public, and images that lack fields."""
    server.answer_with(lambda _: listed(image_document(1, **fields)))
    assert [image.id async for image in api.list(**filters)] == [1]
    assert [image.id async for image in api.list(**filters, strict=True)] == [1]
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


async def test_without_strict_what_the_filter_should_have_left_out_is_logged_once(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """The API page has one example for all filters: an answer like it can be read."""
    server.answer_with(listing(9, tags=["web"]))
    assert len([image async for image in api.list(tag_name="prod", per_page=3)]) == 9
    [warning] = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert "asked for images with the tag 'prod', but the answer has image 1" in warning
    assert await api.latest(tag_name="prod", strict=False) is None


@pytest.mark.parametrize("stored", ["golden", "golden ", " golden"])
async def test_a_creation_is_found_by_each_name_that_it_is_accepted_with(
    server: Server, api: ImagesAPI, stored: str
) -> None:
    server.answer_with(
        lambda request: (
            reply({"image": image_document(1, name=stored)}, status=202)
            if request.method == "POST"
            else listed(image_document(1, name=stored), image_document(2, name=stored, public=True))
        )
    )
    created = await api.create_custom(name="golden ", url="https://example.com/a.img", region="nyc3")
    found = await api.find_created(name="golden ", since=datetime(2020, 1, 1, tzinfo=UTC))
    assert [image.id for image in found] == [created.id]


# --- hooks ---

CALLS: dict[str, tuple[Callable[[ImagesAPI], Awaitable[object]], bool]] = {
    "get": (lambda api: api.get(42), False),
    "list_page": (lambda api: api.list_page(), False),
    "update": (lambda api: api.update(42, name="golden"), True),
    "create": (
        lambda api: api.create_custom(name="golden", url="https://example.com/a.img", region="nyc3"),
        True,
    ),
    "transfer": (lambda api: api.actions.transfer(42, "ams3"), True),
    "list actions": (lambda api: api.actions.list_page(42), False),
}


@pytest.mark.parametrize(("call", "write"), CALLS.values(), ids=CALLS.keys())
async def test_a_converters_hook_that_makes_no_model_is_an_error(
    server: Server, call: Callable[[ImagesAPI], Awaitable[object]], write: bool
) -> None:
    image = image_document(42, name="golden")
    server.answer_with(
        lambda _: reply({"image": image, "images": [image], "action": ACTION, "actions": [ACTION]})
    )
    own = converter.copy()
    own.register_structure_hook(Image, lambda value, _: value)
    own.register_structure_hook(Action, lambda _, __: None)
    async with ImagesAPI(TOKEN, base_url=server.url, retry=FAST, converter=own) as api:
        with pytest.raises(errors.DecodeError, match="hook") as caught:
            await call(api)
    assert caught.value.outcome_unknown is write
    assert len(server.received) == 1


async def never_awaited(*_: object) -> None:
    raise AssertionError("nobody awaits a hook")


class NeverAwaited:
    async def __call__(self, *_: object) -> None:
        raise AssertionError("nobody awaits a hook")


CallWith = Callable[[ImagesAPI, Any], object]
WITH_A_HOOK: list[CallWith] = [
    lambda _, hook: ImagesAPI(TOKEN, on_event=hook),
    lambda api, hook: fan_out(api.get, [1], progress=hook),
    lambda api, hook: api.get_many([1], progress=hook),
    lambda api, hook: api.ensure_regions(1, ["ams3"], progress=hook),
    lambda api, hook: api.actions.transfer_to_regions(1, ["ams3"], progress=hook),
]
SWITCHES: list[tuple[str, CallWith]] = [
    ("strict", lambda api, value: api.list(strict=value)),
    ("strict", lambda api, value: api.list_pages(strict=value)),
    ("strict", lambda api, value: api.actions.list(1, strict=value)),
    ("dry_run", lambda api, value: api.delete_many([1], dry_run=value)),
    ("allow_public", lambda api, value: api.delete_many([1], allow_public=value)),
    ("ordered", lambda api, value: api.get_many([1], ordered=value)),
]


@pytest.mark.parametrize("hook", [never_awaited, NeverAwaited()], ids=["function", "object"])
@pytest.mark.parametrize("call", WITH_A_HOOK)
async def test_a_hook_that_would_never_run_is_refused(api: ImagesAPI, call: CallWith, hook: object) -> None:
    with pytest.raises(TypeError, match=r"(on_event|progress) must not be a coroutine function"):
        call(api, hook)


@pytest.mark.parametrize(("name", "call"), SWITCHES)
@pytest.mark.parametrize("value", ["no", 0, None])
async def test_a_switch_is_true_or_false(api: ImagesAPI, name: str, call: CallWith, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a bool"):
        call(api, value)
