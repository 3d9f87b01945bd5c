"""The five endpoints, and an import from start to end, against the emulator and a scripted server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count, pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from do_images_async import Image, ImagesAPI, ImageStatus, ImageType, RateLimiter, TokenBucket, errors
from do_images_async.testing import ImagesEmulator
from tests.conftest import FAST, ONCE, TOKEN
from tests.support.servers import (
    HANG,
    RESET,
    Answer,
    Received,
    Server,
    content,
    image_document,
    refusal,
    reply,
)
from tests.support.slow import fewer

URL = "https://example.com/golden.qcow2"


@pytest.fixture(autouse=True)
def short_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time in which a new image may be unknown, so that no test polls for ten seconds."""
    monkeypatch.setattr("do_images_async._api.polling.CREATION_LAG", 0.5)


@pytest.fixture
async def emulator() -> AsyncIterator[ImagesEmulator]:
    async with ImagesEmulator(images=60, import_seconds=0.1) as running:
        yield running


@pytest.fixture
async def account(emulator: ImagesEmulator) -> AsyncIterator[ImagesAPI]:
    async with ImagesAPI(emulator.token, base_url=emulator.url, retry=FAST) as client:
        yield client


# --- the endpoints ---


async def test_all_images_are_listed_in_order(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    images = [image async for image in account.list(per_page=7)]
    assert [image.id for image in images] == [record["id"] for record in emulator.images]
    for image, record in zip(images, emulator.images, strict=True):
        assert (image.name, image.type, image.status) == (record["name"], record["type"], record["status"])
        assert (image.slug, image.public, image.distribution) == (
            record["slug"],
            record["public"],
            record["distribution"],
        )
    assert len(emulator.requests) == -(-len(images) // 7)


async def test_private_images_are_the_accounts_own(account: ImagesAPI) -> None:
    images = [image async for image in account.list(private=True)]
    assert len(images) == 60
    assert not any(image.public for image in images)


@pytest.mark.parametrize("kind", ["distribution", "application"])
async def test_public_images_by_type(account: ImagesAPI, kind: Any) -> None:
    images = [image async for image in account.list(type=kind)]
    assert images
    assert all(image.public and image.slug for image in images)


async def test_the_types_do_not_overlap(account: ImagesAPI) -> None:
    distributions = {image.id async for image in account.list(type="distribution")}
    applications = {image.id async for image in account.list(type="application")}
    assert not distributions & applications


async def test_images_by_tag(account: ImagesAPI) -> None:
    everything = [image async for image in account.list()]
    tags = {tag for image in everything for tag in image.tags or ()}
    assert tags
    for tag in tags:
        tagged = [image.id async for image in account.list(tag_name=tag)]
        assert tagged == [image.id for image in everything if tag in (image.tags or ())]


async def test_a_tag_that_nothing_has(account: ImagesAPI) -> None:
    assert [image async for image in account.list(tag_name="no & such + tag")] == []


async def test_filters_combine(account: ImagesAPI) -> None:
    assert [image async for image in account.list(type="distribution", private=True)] == []


async def test_one_page(account: ImagesAPI) -> None:
    page = await account.list_page(page=2, per_page=5)
    following = await account.list_page(page=3, per_page=5)
    assert (len(page), page.page, page.next_page) == (5, 2, 3)
    assert page.total is not None
    assert not {image.id for image in page.images} & {image.id for image in following.images}
    assert (await account.list_page()).total == page.total
    assert len(await account.list_page()) == 20


async def test_an_image_by_id_and_by_slug_is_the_same(account: ImagesAPI) -> None:
    images = [image async for image in account.list(type="distribution")]
    for image in images[:5]:
        assert image.slug is not None
        assert await account.get(image.id) == await account.get(image.slug) == image


@pytest.mark.parametrize("key", [1, 2**63 - 1, "no-such-slug"])
async def test_an_image_that_is_not_there(account: ImagesAPI, key: int | str) -> None:
    with pytest.raises(errors.NotFoundError) as caught:
        await account.get(key)
    assert caught.value.id == "not_found"
    assert caught.value.request_id


async def test_an_image_lives_from_creation_to_deletion(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    new = await account.create_custom(
        name="golden",
        url=URL,
        region="nyc3",
        distribution="Debian",
        description="d",
        tags=["prod", "env:a-b"],
    )
    assert (new.name, new.type, new.status) == ("golden", ImageType.CUSTOM, ImageStatus.NEW)
    ready = await account.wait_until_available(new.id, timeout=10, poll_interval=0.02)
    assert (ready.id, ready.status, ready.regions) == (new.id, ImageStatus.AVAILABLE, ("nyc3",))
    assert (ready.description, ready.distribution, ready.tags) == ("d", "Debian", ("prod", "env:a-b"))
    renamed = await account.update(new.id, name="golden-v2")
    assert (renamed.name, renamed.description) == ("golden-v2", "d")
    assert (await account.update(new.id, description="")).description == ""
    assert (await account.get(new.id)).name == "golden-v2"
    await account.delete(new.id)
    assert new.id not in emulator.images
    with pytest.raises(errors.NotFoundError):
        await account.delete(new.id)


async def test_an_unknown_distribution_is_passed_through(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    image = await account.create_custom(name="a", url=URL, region="nyc3", distribution="Plan 9")
    assert emulator.requests[-1].body["distribution"] == "Plan 9"
    assert (await account.get(image.id)).distribution == "Unknown"


async def test_a_bad_import_says_why(account: ImagesAPI) -> None:
    new = await account.create_custom(name="bad", url="https://example.com/bad.exe", region="nyc3")
    with pytest.raises(errors.ImportFailedError) as caught:
        await account.wait_until_available(new.id, timeout=10, poll_interval=0.02)
    assert caught.value.image.id == new.id
    assert caught.value.image.status == ImageStatus.DELETED
    assert caught.value.error_message
    assert caught.value.error_message in str(caught.value)


async def test_public_images_can_not_be_changed(account: ImagesAPI) -> None:
    public = await anext(account.list(type="distribution"))
    with pytest.raises(errors.APIError) as deleting:
        await account.delete(public.id)
    with pytest.raises(errors.APIError) as updating:
        await account.update(public.id, name="mine")
    assert {deleting.value.status, updating.value.status} <= {403, 404, 422}
    assert await account.get(public.id) == public


async def test_a_wrong_token_is_refused_once(emulator: ImagesEmulator) -> None:
    async with ImagesAPI("dop_v1_wrong", base_url=emulator.url, retry=FAST) as api:
        with pytest.raises(errors.AuthenticationError) as caught:
            await api.get(1)
    assert caught.value.id == "unauthorized"
    assert len(emulator.requests) == 1


async def test_the_servers_quota_is_reported(account: ImagesAPI) -> None:
    await account.list_page()
    assert account.rate_limit is not None
    assert (account.rate_limit.limit, account.rate_limit.remaining) == (5000, 4999)
    await account.list_page()
    assert account.rate_limit.remaining == 4998


async def test_a_burst_beyond_the_quota_is_never_refused() -> None:
    limiter = RateLimiter(TokenBucket(250, per=60))
    async with (
        ImagesEmulator(images=1) as emulator,
        ImagesAPI(emulator.token, base_url=emulator.url, limiter=limiter, max_wait=0) as api,
    ):
        key = next(record["id"] for record in emulator.images)
        results = await asyncio.gather(*(api.get(key) for _ in range(300)), return_exceptions=True)
        assert sum(isinstance(result, errors.QuotaWaitError) for result in results) == 50
        assert len(emulator.requests) == 250
        assert emulator.requests.count(status=429) == 0


# --- waiting for an import ---


def in_state(state: str | None, **fields: object) -> Answer:
    return reply({"image": image_document(42) | {"status": state} | fields})


async def test_a_wait_polls_until_the_image_is_available(server: Server, api: ImagesAPI) -> None:
    server.script(in_state("NEW"), in_state("pending"), in_state("pending"), in_state("available"))
    image = await api.wait_until_available(42, timeout=10, poll_interval=0.005)
    assert (image.id, image.status) == (42, ImageStatus.AVAILABLE)
    assert [(request.method, request.target) for request in server.received] == [("GET", "/v2/images/42")] * 4


async def test_a_wait_for_an_available_image_costs_one_request(server: Server, api: ImagesAPI) -> None:
    server.script(in_state("available"))
    await api.wait_until_available(42)
    assert len(server.received) == 1


async def test_the_time_between_two_polls_grows_by_half(server: Server, api: ImagesAPI) -> None:
    seen: list[float] = []

    def answer(_: Received) -> Answer:
        seen.append(time.monotonic())
        return in_state("available" if len(seen) == 5 else "pending")

    server.answer_with(answer)
    await api.wait_until_available(42, timeout=30, poll_interval=0.02)
    gaps = [later - earlier for earlier, later in pairwise(seen)]
    assert all(gap >= 0.02 * 1.5**number for number, gap in enumerate(gaps)), gaps


@pytest.mark.parametrize("state", ["tomorrow's state", None])
async def test_a_wait_continues_through_unknown_states(
    server: Server, api: ImagesAPI, state: str | None
) -> None:
    server.script(in_state(state), in_state("available"))
    image = await api.wait_until_available(42, timeout=10, poll_interval=0.005)
    assert image.status == "available"


@pytest.mark.parametrize("state", ["deleted", "retired"])
@pytest.mark.parametrize("message", ["too large", "", None])
async def test_an_import_that_failed_is_an_error_with_its_reason(
    server: Server, api: ImagesAPI, state: str, message: str | None
) -> None:
    server.script(in_state("pending"), in_state(state, error_message=message))
    with pytest.raises(errors.ImportFailedError) as caught:
        await api.wait_until_available(42, timeout=10, poll_interval=0.005)
    assert caught.value.error_message == (message or "")
    assert (caught.value.image.id, caught.value.image.status) == (42, state)
    for part in ("42", state, message or ""):
        assert part in str(caught.value)


async def test_a_wait_that_is_too_long_keeps_the_last_image(server: Server, api: ImagesAPI) -> None:
    server.script(in_state("NEW"))
    server.answer_with(lambda _: in_state("pending", name="last"))
    with pytest.raises(errors.WaitTimeoutError) as caught:
        await api.wait_until_available(42, timeout=0.6, poll_interval=0.01)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.image is not None
    assert (caught.value.image.status, caught.value.image.name) == ("pending", "last")
    assert "pending" in str(caught.value)


async def test_a_wait_without_any_answer_has_no_image(server: Server, api: ImagesAPI) -> None:
    server.script(HANG)
    with pytest.raises(errors.WaitTimeoutError) as caught:
        await api.wait_until_available(42, timeout=0.05)
    assert caught.value.image is None


async def test_a_request_that_times_out_is_not_the_end_of_the_wait(server: Server, api: ImagesAPI) -> None:
    server.script(HANG, in_state("available"))
    hasty = api.with_options(retry=ONCE, timeout=0.5)
    assert (await hasty.wait_until_available(42, timeout=30, poll_interval=0.005)).id == 42
    assert len(server.received) == 2


async def test_waiting_for_an_image_that_is_not_there(
    server: Server, api: ImagesAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been created a moment ago."""
    seconds = count(0, 4)  # from the beginning of the wait, and from each answer, to the next one
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("do_images_async._api.polling.time", clock)
    monkeypatch.setattr("do_images_async._api.polling.CREATION_LAG", 10.0)
    server.answer_with(lambda _: refusal(404))
    with pytest.raises(errors.NotFoundError):
        await api.wait_until_available(42, poll_interval=0.01)
    assert len(server.received) == 3


async def test_row_83_an_image_that_is_deleted_during_the_wait(
    server: Server, api: ImagesAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("do_images_async._api.polling.CREATION_LAG", 0.0)
    server.script(in_state("pending"), refusal(404))
    with pytest.raises(errors.NotFoundError):
        await api.wait_until_available(42, poll_interval=0.005)
    assert len(server.received) == 2


PASSING: dict[str, list[Answer]] = {
    "five 503s": [refusal(503)] * 5,
    "429": [refusal(429, headers={"retry-after": "0"})],
    "the edge's 520 to 530": [refusal(status) for status in (520, 521, 524, 526, 530)],
    "408": [refusal(408)],
    "resets": [RESET] * 3,
    "404 after the creation": [refusal(404)] * 2,
    "an answer that never ends": [HANG],
    "all of them": [refusal(404), refusal(500), RESET, refusal(429), refusal(527), refusal(502)],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING.keys())
async def test_row_83_a_wait_continues_after_errors_that_pass_and_each_costs_one_poll(
    server: Server, faults: list[Answer], caplog: pytest.LogCaptureFixture
) -> None:
    server.script(*faults, in_state("pending"), in_state("available"))
    # Large: a limiter that was refused goes evenly, at the pace of its bucket.
    limiter = RateLimiter(TokenBucket(100_000, per=60))
    timeout = 0.5 if HANG in faults else 30.0
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, retry=ONCE, timeout=timeout) as api:
        image = await api.wait_until_available(42, timeout=60, poll_interval=0.002)
    assert image.status == "available"
    assert len(server.received) == len(faults) + 2
    assert sum("a poll failed, next in" in record.getMessage() for record in caplog.records) == len(faults)


@pytest.mark.parametrize("fault", fewer([RESET, refusal(503)]), ids=fewer(["reset", "503"]))
async def test_row_83_a_wait_that_is_too_long_carries_the_last_error(
    server: Server, api: ImagesAPI, fault: Answer
) -> None:
    server.script(in_state("pending"))
    server.answer_with(lambda _: fault)
    with pytest.raises(errors.WaitTimeoutError) as caught:
        await api.with_options(retry=ONCE).wait_until_available(42, timeout=1.0, poll_interval=0.01)
    error = caught.value.last_error
    assert isinstance(error, errors.ServerError | errors.TransportError)
    assert str(error) in str(caught.value)
    assert caught.value.image is not None
    assert caught.value.image.status == "pending"


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_row_83_an_error_that_stays_ends_the_wait(server: Server, api: ImagesAPI, status: int) -> None:
    server.script(in_state("pending"), refusal(status))
    with pytest.raises(errors.APIError) as caught:
        await api.wait_until_available(42, timeout=30, poll_interval=0.005)
    assert caught.value.status == status
    assert len(server.received) == 2


# --- answers that are another's ---

CREATION: dict[str, Any] = {"name": "golden", "url": URL, "region": "nyc3"}


@pytest.mark.parametrize("key", [7, "ubuntu-24-04-x64"])
async def test_row_80_an_answer_about_another_image_is_an_error_that_names_both(
    server: Server, api: ImagesAPI, key: int | str
) -> None:
    server.script(reply({"image": image_document(8, slug="debian-12-x64")}))
    with pytest.raises(errors.WrongResourceError) as caught:
        await api.get(key)
    answered = 8 if key == 7 else "debian-12-x64"
    assert (caught.value.asked, caught.value.answered) == (key, answered)
    assert str(key) in str(caught.value)
    assert str(answered) in str(caught.value)
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize("answered", [0, -1])
async def test_row_80_an_id_that_no_image_has_does_not_pass_for_any(
    server: Server, api: ImagesAPI, answered: int
) -> None:
    server.answer_with(lambda _: reply({"image": image_document(answered)}))
    for call in (api.get(7), api.get("ubuntu-24-04-x64"), api.update(7, name="new")):
        with pytest.raises(errors.WrongResourceError):
            await call
    [outcome] = [each async for each in api.delete_many([7])]
    assert isinstance(outcome.error, errors.WrongResourceError)
    assert "DELETE" not in server.methods
    for create in (api.create_custom(**CREATION), api.actions.convert(7), api.actions.transfer(7, "ams3")):
        action = {"id": answered, "resource_id": 7}
        server.script(reply({"image": image_document(answered, name="golden"), "action": action}))
        with pytest.raises(
            errors.DecodeError, match=f"a new (image|action) the id {answered}, but ids begin at 1"
        ) as caught:
            await create
        assert caught.value.outcome_unknown


@pytest.mark.parametrize("allow_public", [False, True])
async def test_row_80_nothing_is_deleted_because_another_image_is_private(
    server: Server, api: ImagesAPI, allow_public: bool
) -> None:
    server.answer_with(lambda _: reply({"image": image_document(8)}))
    outcomes = api.delete_many([7], dry_run=allow_public, allow_public=allow_public)
    [outcome] = [each async for each in outcomes]
    assert isinstance(outcome.error, errors.WrongResourceError)
    assert server.methods == ["GET"]


async def test_a_deletion_that_is_answered_with_a_login_page_is_not_taken_for_done(server: Server) -> None:
    page = content(b"<html>login</html>")
    server.answer_with(lambda _: page)
    async with ImagesAPI(TOKEN, base_url=server.url, retry=FAST) as api:
        with pytest.raises(errors.DecodeError, match="neither empty nor JSON") as caught:
            await api.delete(7)
    assert caught.value.outcome_unknown
    assert server.methods == ["DELETE"] * FAST.attempts


async def test_a_page_in_place_of_an_image_is_quoted_without_the_token(server: Server) -> None:
    page = content(f"<html>\n<title>Log in</title> {TOKEN} {'x' * 1000}</html>".encode())
    server.answer_with(lambda _: page)
    async with ImagesAPI(TOKEN, base_url=server.url, retry=ONCE) as api:
        with pytest.raises(errors.DecodeError, match="; it begins '<html> <title>Log in</title> ") as caught:
            await api.get(7)
    assert TOKEN[:20] not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("body", [b"", b"\n", b"{}", b"null", b'{"deleted": true}'])
async def test_a_deletion_may_be_answered_with_json_or_nothing(
    server: Server, api: ImagesAPI, body: bytes
) -> None:
    server.script(content(body))
    await api.delete(7)
    assert server.methods == ["DELETE"]


Write = Callable[[ImagesAPI], Awaitable[Image]]
ANSWERED_WRITES: list[tuple[Write, int | str]] = [
    (lambda api: api.update(7, name="image 8"), 7),
    (lambda api: api.create_custom(**CREATION), "golden"),
]


@pytest.mark.parametrize(("write", "asked"), ANSWERED_WRITES, ids=["update", "create"])
async def test_row_80_a_write_that_is_answered_with_another_image_may_have_been_carried_out(
    server: Server, api: ImagesAPI, write: Write, asked: int | str
) -> None:
    server.script(reply({"image": image_document(8)}, status=202))
    with pytest.raises(errors.WrongResourceError, match="it may have been carried out") as caught:
        await write(api)
    assert caught.value.outcome_unknown
    assert caught.value.asked == asked
    assert len(server.received) == 1


async def test_an_update_that_is_answered_with_the_old_name_may_have_been_carried_out(
    server: Server, api: ImagesAPI
) -> None:
    server.script(reply({"image": image_document(7, name="old")}))
    with pytest.raises(errors.WrongResourceError, match=r"'new'.*'old'") as caught:
        await api.update(7, name="new", description="other")
    assert caught.value.outcome_unknown
    server.script(reply({"image": image_document(7, name="old")}), reply({"image": {"id": 7}}))
    await api.update(7, description="what the server makes of it is its own")
    await api.update(7, name="new")


@pytest.mark.parametrize("name", ["golden", " golden ", ""])
async def test_a_creation_is_known_by_its_name_as_a_server_may_store_it(
    server: Server, api: ImagesAPI, name: str
) -> None:
    server.script(reply({"image": image_document(8, name=name)}, status=202))
    assert (await api.create_custom(**CREATION)).id == 8


async def test_a_wait_continues_after_errors_that_pass(server: Server, api: ImagesAPI) -> None:
    server.script(refusal(503), in_state("pending"), RESET, in_state("available"))
    image = await api.wait_until_available(42, timeout=10, poll_interval=0.005)
    assert image.status == "available"


async def test_every_poll_takes_a_permit(server: Server) -> None:
    server.answer_with(lambda _: in_state("pending"))
    limiter = RateLimiter(TokenBucket(2, per=60))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, max_wait=0) as api:
        with pytest.raises(errors.WaitTimeoutError) as caught:
            await api.wait_until_available(42, timeout=0.5, poll_interval=0.005)
    assert isinstance(caught.value.last_error, errors.QuotaWaitError)
    assert len(server.received) == 2


@pytest.mark.parametrize("name", ["timeout", "poll_interval"])
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        *((value, ValueError) for value in (0, -1, float("nan"), float("inf"))),
        *((value, TypeError) for value in ("5", True, None)),
    ],
)
async def test_times_to_wait_are_seconds(
    server: Server, api: ImagesAPI, name: str, value: Any, kind: type[Exception]
) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(kind, match=name):
        await api.wait_until_available(42, **arguments)
    assert not server.connections
