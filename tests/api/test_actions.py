"""Image actions and account transfers, against the emulator and a scripted server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest

from do_images_async import (
    AccountTransfer,
    Action,
    ActionPage,
    ActionStatus,
    ImagesAPI,
    ImageType,
    RateLimiter,
    Region,
    TokenBucket,
    converter,
    errors,
)
from do_images_async.testing import ImagesEmulator
from tests.conftest import FAST, ONCE, TOKEN
from tests.support.servers import HANG, RESET, Answer, Received, Server, image_reply, refusal, reply
from tests.support.slow import fewer

TEAM = "4f6c71e2-1e90-4762-9fee-6cc4a0a9f2cf"


@pytest.fixture
async def emulator() -> AsyncIterator[ImagesEmulator]:
    async with ImagesEmulator(images=10, action_seconds=0.1) as running:
        yield running


@pytest.fixture
async def account(emulator: ImagesEmulator) -> AsyncIterator[ImagesAPI]:
    async with ImagesAPI(emulator.token, base_url=emulator.url, retry=FAST) as client:
        yield client


def action_document(status: str | None = "in-progress", **fields: object) -> dict[str, object]:
    return {
        "id": 5,
        "status": status,
        "type": "transfer",
        "started_at": "2014-11-14T16:42:45Z",
        "completed_at": None,
        "resource_id": 42,
        "resource_type": "image",
        "region": None,
        "region_slug": "ams3",
        **fields,
    }


def in_state(status: str | None, **fields: object) -> Answer:
    return reply({"action": action_document(status, **fields)})


# --- the models ---


@pytest.mark.parametrize("wrapped", [True, False])
async def test_an_action_is_read_with_and_without_its_wrapping(
    server: Server, api: ImagesAPI, wrapped: bool
) -> None:
    document = action_document(
        "completed", completed_at="2014-11-14T17:42:45.25+01:00", region={"slug": "ams3"}
    )
    server.script(reply({"action": document} if wrapped else document))
    action = await api.actions.get(42, 5)
    assert action == Action(
        id=5,
        status=ActionStatus.COMPLETED,
        type="transfer",
        started_at=datetime(2014, 11, 14, 16, 42, 45, tzinfo=UTC),
        completed_at=datetime(2014, 11, 14, 16, 42, 45, 250000, tzinfo=UTC),
        resource_id=42,
        resource_type="image",
        region=Region(slug="ams3"),
        region_slug="ams3",
    )
    assert action.completed_at is not None
    assert action.completed_at.tzinfo is not None


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"action": {"id": "5"}}, "$.action.id"),
        ({"action": None}, "$.action"),
        ({"action": {}}, "$.action"),
        ({"id": True}, "$.id"),
        ({}, "id"),
        ([], "array"),
        ({"id": 5, "started_at": "2014-11-14T16:42:45"}, "$.started_at"),
        ({"action": {"id": 5, "region": {"slug": None}}}, "$.action.region.slug"),
    ],
)
async def test_what_is_no_action_is_an_error_with_its_place(
    server: Server, api: ImagesAPI, document: object, place: str
) -> None:
    server.script(reply(document))
    with pytest.raises(errors.DecodeError) as caught:
        await api.with_options(retry=ONCE).actions.get(42, 5)
    assert place in str(caught.value)


async def test_an_unknown_status_is_kept(server: Server, api: ImagesAPI) -> None:
    server.script(in_state("paused", type="defrost"))
    action = await api.actions.get(42, 5)
    assert (action.status, action.type) == ("paused", "defrost")
    assert isinstance(action.status, ActionStatus)
    assert not action.status.is_known


def test_models_survive_the_converter() -> None:
    action = converter.structure(action_document(region={"slug": "ams3", "sizes": ["s"]}), Action)
    assert converter.structure(converter.unstructure(action), Action) == action


# --- actions against the emulator ---


async def test_a_transfer_ends_with_the_image_in_the_region(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    number = emulator.images.add(regions=["nyc3"])
    action = await account.actions.transfer(number, "ams3")
    assert (action.status, action.type, action.resource_id) == (ActionStatus.IN_PROGRESS, "transfer", number)
    assert action.region is not None
    assert (action.region.slug, action.region.name, action.region_slug) == ("ams3", "Amsterdam 3", "ams3")
    assert action.completed_at is None
    assert (await account.get(number)).regions == ("nyc3",)
    done = await account.actions.wait(number, action.id, timeout=30, poll_interval=0.02)
    assert (done.id, done.status) == (action.id, ActionStatus.COMPLETED)
    assert done.completed_at is not None
    assert (await account.get(number)).regions == ("nyc3", "ams3")
    assert await account.actions.get(number, action.id) == done


async def test_a_conversion_makes_a_snapshot_of_a_backup(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    number = emulator.images.add(type="backup")
    action = await account.actions.convert(number)
    assert (action.type, action.region) == ("convert", None)
    await account.actions.wait(number, action.id, timeout=30, poll_interval=0.02)
    assert (await account.get(number)).type is ImageType.SNAPSHOT


async def test_an_images_actions_are_listed_by_page(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    emulator.actions.seconds = 600.0  # none changes between two readings
    number, other = emulator.images.add(), emulator.images.add()
    started = [emulator.actions.start(number, "transfer", "ams3")["id"] for _ in range(7)]
    emulator.actions.start(other, "transfer", "ams3")
    actions = [action async for action in account.actions.list(number, per_page=3)]
    assert [action.id for action in actions] == started[::-1]
    assert emulator.requests.count("GET", f"/v2/images/{number}/actions") == 3
    page = await account.actions.list_page(number, page=2, per_page=3)
    assert (len(page), page.total, page.page, page.next_page) == (3, 7, 2, 3)
    assert [action async for action in account.actions.list(number, strict=True)] == actions


async def test_actions_that_end_at_once_all_take_effect(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    number = emulator.images.add(type="backup", regions=["nyc3"])
    emulator.actions.seconds = 0.0
    for region in ("ams3", "fra1", "sgp1"):
        emulator.actions.start(number, "transfer", region)
    emulator.actions.start(number, "convert")
    image = await account.get(number)
    assert (image.regions, image.type) == (("nyc3", "ams3", "fra1", "sgp1"), ImageType.SNAPSHOT)
    assert [action["status"] for action in emulator.actions] == ["completed"] * 4


async def test_an_action_that_fails_says_which(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    number = emulator.images.add()
    emulator.actions.fails = lambda action: action["region_slug"] == "ams3"
    action = await account.actions.transfer(number, "ams3")
    with pytest.raises(errors.ActionFailedError) as caught:
        await account.actions.wait(number, action.id, timeout=30, poll_interval=0.02)
    assert (caught.value.action.id, caught.value.action.status) == (action.id, ActionStatus.ERRORED)
    assert "ams3" in str(caught.value)
    assert (await account.get(number)).regions == ("nyc3",)


async def test_an_image_deleted_meanwhile_takes_its_actions_along(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    number = emulator.images.add()
    action = await account.actions.transfer(number, "ams3")
    await account.delete(number)
    with pytest.raises(errors.NotFoundError):
        await account.actions.get(number, action.id)


@pytest.mark.parametrize(
    ("fields", "region", "error"),
    [
        ({}, "nowhere", errors.UnprocessableEntityError),
        ({}, "nyc3", errors.UnprocessableEntityError),
        ({"status": "pending"}, "ams3", errors.UnprocessableEntityError),
        ({"public": True}, "ams3", errors.PermissionDeniedError),
    ],
)
async def test_an_impossible_transfer_is_refused(
    emulator: ImagesEmulator, account: ImagesAPI, fields: dict[str, Any], region: str, error: type[Exception]
) -> None:
    number = emulator.images.add(**fields)
    with pytest.raises(error):
        await account.actions.transfer(number, region)
    assert not emulator.actions


async def test_the_same_transfer_twice_is_a_conflict(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    number = emulator.images.add()
    await account.actions.transfer(number, "ams3")
    with pytest.raises(errors.ConflictError):
        await account.actions.transfer(number, "ams3")
    await account.actions.transfer(number, "fra1")


async def test_a_snapshot_is_not_converted(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    with pytest.raises(errors.UnprocessableEntityError):
        await account.actions.convert(emulator.images.add())


@pytest.mark.parametrize("image", [1, None])
async def test_actions_of_what_is_not_there(
    emulator: ImagesEmulator, account: ImagesAPI, image: int | None
) -> None:
    number = image or emulator.images.add()
    with pytest.raises(errors.NotFoundError):
        await account.actions.get(number, 99)
    if image is not None:
        with pytest.raises(errors.NotFoundError):
            await account.actions.transfer(number, "ams3")
        with pytest.raises(errors.NotFoundError) as caught:
            _ = [action async for action in account.actions.list(number)]
        assert caught.value.page == 1


async def test_a_transfer_whose_response_is_lost_is_not_retried(server: Server, api: ImagesAPI) -> None:
    server.script(RESET)
    with pytest.raises(errors.TransportError) as caught:
        await api.actions.transfer(42, "ams3")
    assert caught.value.outcome_unknown
    assert len(server.received) == 1


async def begin_transfer(api: ImagesAPI) -> Action:
    return await api.actions.transfer(42, "ams3")


async def begin_conversion(api: ImagesAPI) -> Action:
    return await api.actions.convert(42)


@pytest.mark.parametrize(
    ("start", "answered"),
    [
        (begin_transfer, {"region_slug": "nyc1"}),
        (begin_transfer, {"region_slug": None, "region": {"slug": "nyc1"}}),
        (begin_transfer, {"region_slug": "nyc3", "status": "completed"}),
        (begin_transfer, {"type": "convert"}),
        (begin_conversion, {"type": "transfer"}),
    ],
)
async def test_another_action_than_the_one_asked_for_may_have_been_begun(
    server: Server,
    api: ImagesAPI,
    start: Callable[[ImagesAPI], Awaitable[Action]],
    answered: dict[str, object],
) -> None:
    server.answer_with(
        lambda request: (
            image_reply(42, regions=["nyc3"])
            if request.method == "GET"
            else reply({"action": action_document() | answered})
        )
    )
    with pytest.raises(errors.WrongResourceError) as caught:
        await start(api)
    assert caught.value.outcome_unknown
    assert server.methods.count("POST") == 1


@pytest.mark.parametrize("told", [{"type": None, "region_slug": None}, {}, {"region_slug": "nyc3"}])
async def test_an_action_may_leave_out_its_type_and_region_or_name_where_the_image_comes_from(
    server: Server, api: ImagesAPI, told: dict[str, object]
) -> None:
    server.answer_with(
        lambda request: (
            image_reply(42, regions=["nyc3"]) if request.method == "GET" else in_state("in-progress", **told)
        )
    )
    assert (await api.actions.transfer(42, "ams3")).id == 5


@pytest.mark.parametrize("hooked", [False, True])
async def test_a_region_is_not_done_before_it_has_the_image(server: Server, *, hooked: bool) -> None:
    mapper = converter.copy()
    if hooked:
        mapper.register_structure_hook(ActionStatus, lambda value, _: value)
    held = [["nyc3"], ["nyc3"], ["nyc3", "ams3"]]

    def answer(request: Received) -> Answer:
        if request.path == "/v2/images/42":
            return image_reply(42, regions=held.pop(0))
        return in_state("in-progress" if request.method == "POST" else "completed", region_slug="nyc3")

    server.answer_with(answer)
    async with ImagesAPI(TOKEN, base_url=server.url, retry=FAST, converter=mapper) as api:
        outcomes = api.actions.transfer_to_regions(42, ["ams3"], timeout=30, poll_interval=0.005)
        [outcome] = [each async for each in outcomes]
    assert outcome.result().status == "completed"
    assert not held


# --- waiting ---


async def test_a_wait_polls_until_the_action_is_completed(server: Server, api: ImagesAPI) -> None:
    server.script(in_state("in-progress"), in_state("tomorrow's"), in_state(None), in_state("completed"))
    action = await api.actions.wait(42, 5, timeout=30, poll_interval=0.005)
    assert action.status is ActionStatus.COMPLETED
    assert [request.target for request in server.received] == ["/v2/images/42/actions/5"] * 4


async def test_a_wait_that_is_too_long_keeps_the_last_action(server: Server, api: ImagesAPI) -> None:
    server.answer_with(lambda _: in_state("in-progress", region_slug="tor1"))
    with pytest.raises(errors.WaitTimeoutError) as caught:
        await api.actions.wait(42, 5, timeout=0.6, poll_interval=0.01)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.image is None
    assert caught.value.action is not None
    assert (caught.value.action.id, caught.value.action.region_slug) == (5, "tor1")
    assert "in-progress" in str(caught.value)


@pytest.mark.parametrize("times", fewer([5, 12]))
async def test_row_83_the_wait_for_an_action_continues_after_errors_that_pass(
    server: Server, times: int
) -> None:
    server.script(*[refusal(404), refusal(503), RESET, refusal(429), refusal(522)][:times])
    server.script(*[refusal(502)] * (times - 5), in_state("in-progress"), RESET, in_state("completed"))
    # Large: a limiter that was refused goes evenly, at the pace of its bucket.
    limiter = RateLimiter(TokenBucket(100_000, per=60))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, retry=ONCE) as api:
        action = await api.actions.wait(42, 5, timeout=30, poll_interval=0.002)
    assert action.status is ActionStatus.COMPLETED
    assert len(server.received) == times + 3, "each failure costs one poll"


async def test_row_83_a_transfer_to_regions_continues_after_errors_that_pass(
    server: Server, api: ImagesAPI
) -> None:
    server.script(reply(action_document(), status=201), refusal(404), refusal(500), in_state("completed"))
    outcomes = api.with_options(retry=ONCE).actions.transfer_to_regions(42, ["ams3"], poll_interval=0.002)
    assert [outcome.ok async for outcome in outcomes] == [True]
    assert server.methods == ["POST", "GET", "GET", "GET"]


ANOTHERS: list[tuple[str, dict[str, object], str]] = [
    ("get", {"id": 6}, "action 6"),
    ("get", {"resource_id": 43}, "image 43"),
    ("transfer", {"resource_id": 43}, "image 43"),
    ("convert", {"resource_id": 43}, "image 43"),
]


@pytest.mark.parametrize(("method", "fields", "named"), ANOTHERS)
async def test_row_80_an_answer_about_another_action_is_an_error(
    server: Server, api: ImagesAPI, method: str, fields: dict[str, object], named: str
) -> None:
    server.script(reply({"action": action_document() | fields}))
    second = {"transfer": ("ams3",), "convert": ()}.get(method, (5,))
    with pytest.raises(errors.WrongResourceError, match=named) as caught:
        await getattr(api.actions, method)(42, *second)
    assert (caught.value.asked, caught.value.answered) in [(5, 6), (42, 43)]
    assert caught.value.outcome_unknown is (method in ("transfer", "convert"))
    assert len(server.received) == 1


async def test_a_wait_without_any_answer_has_no_action(server: Server, api: ImagesAPI) -> None:
    server.script(HANG)
    with pytest.raises(errors.WaitTimeoutError) as caught:
        await api.actions.wait(42, 5, timeout=0.05)
    assert caught.value.action is None


# --- several regions ---


async def test_each_region_has_its_outcome(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    number = emulator.images.add(regions=["nyc3"])
    emulator.actions.fails = lambda action: action["region_slug"] == "fra1"
    told: list[tuple[str, str | None]] = []
    outcomes = {
        outcome.key: outcome
        async for outcome in account.actions.transfer_to_regions(
            number,
            ["ams3", "fra1", "nowhere", "sgp1"],
            timeout=30,
            poll_interval=0.02,
            progress=lambda region, action: told.append((region, action.status)),
        )
    }
    assert sorted(outcomes) == ["ams3", "fra1", "nowhere", "sgp1"]
    assert outcomes["ams3"].result().status is ActionStatus.COMPLETED
    assert outcomes["sgp1"].ok
    assert isinstance(outcomes["fra1"].error, errors.ActionFailedError)
    assert isinstance(outcomes["nowhere"].error, errors.UnprocessableEntityError)
    assert sorted((await account.get(number)).regions) == ["ams3", "nyc3", "sgp1"]
    for region, last in (("ams3", "completed"), ("fra1", "errored"), ("sgp1", "completed")):
        states = [status for slug, status in told if slug == region]
        assert (states[0], states[-1]) == ("in-progress", last)
    assert len(emulator.actions) == 3


async def test_all_regions_are_begun_before_any_is_done(server: Server, api: ImagesAPI) -> None:
    regions = ["ams3", "fra1", "sgp1", "tor1"]
    begun = 0

    def answer(request: Received) -> Answer:
        nonlocal begun
        if request.method == "POST":
            begun += 1
            return reply(
                {"action": action_document(id=begun, region_slug=request.json()["region"])}, status=201
            )
        number = int(request.path.rpartition("/")[2])
        status = "completed" if begun == len(regions) else "in-progress"
        return in_state(status, id=number, region_slug=regions[number - 1])

    server.answer_with(answer)
    outcomes = api.actions.transfer_to_regions(42, regions, timeout=30, poll_interval=0.005)
    assert sorted([outcome.key async for outcome in outcomes if outcome.ok]) == sorted(regions)


async def test_the_time_of_a_region_is_an_argument(server: Server, api: ImagesAPI) -> None:
    server.answer_with(lambda request: HANG if request.method == "GET" else in_state("in-progress"))
    outcomes = api.actions.transfer_to_regions(42, ["ams3"], timeout=0.1, poll_interval=0.005)
    [outcome] = [each async for each in outcomes]
    assert isinstance(outcome.error, errors.WaitTimeoutError)
    assert outcome.error.action is not None
    assert outcome.error.action.id == 5


async def test_closing_the_generator_ends_the_waits(server: Server, api: ImagesAPI) -> None:
    before = asyncio.all_tasks()
    server.answer_with(
        lambda request: (
            in_state(
                "completed" if request.target.endswith("/1") else "in-progress", id=int(request.target[-1])
            )
            if request.method == "GET"
            else reply(action_document(id=1 if b"ams3" in request.body else 2), status=201)
        )
    )
    async with aclosing(
        api.actions.transfer_to_regions(42, ["ams3", "fra1"], poll_interval=0.005)
    ) as outcomes:
        assert (await anext(outcomes)).key == "ams3"
    assert not asyncio.all_tasks() - before - server.tasks


# --- account transfers ---


async def test_a_transfer_to_an_address_waits_for_its_recipient(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    number = emulator.images.add()
    transfer = await account.account_transfers.create(number, email="alice@example.com")
    assert transfer.image_id == number
    assert not transfer.accepted
    assert transfer.transfer_id is not None
    assert number in emulator.images
    await account.account_transfers.accept(number, transfer.transfer_id, team_uuid=TEAM)
    assert number not in emulator.images
    assert [each.state for each in emulator.transfers] == ["accepted"]
    assert emulator.requests[-1].body == {"transfer_id": transfer.transfer_id, "recipient_uuid": TEAM}


async def test_a_transfer_to_an_own_team_is_accepted_at_once(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    number = emulator.images.add()
    emulator.transfers.own_teams.add(TEAM)
    transfer = await account.account_transfers.create(number, team_uuid=TEAM)
    assert transfer == AccountTransfer(image_id=number, transfer_id=None)
    assert transfer.accepted
    with pytest.raises(errors.NotFoundError):
        await account.get(number)


@pytest.mark.parametrize(("verb", "state"), [("cancel", "cancelled"), ("decline", "declined")])
async def test_a_transfer_that_is_not_accepted_leaves_the_image(
    emulator: ImagesEmulator, account: ImagesAPI, verb: str, state: str
) -> None:
    number = emulator.images.add()
    transfers = account.account_transfers
    transfer = await transfers.create(number, team_uuid=TEAM)
    assert transfer.transfer_id is not None
    with pytest.raises(errors.ConflictError):
        await transfers.create(number, email="bob@example.com")
    await getattr(transfers, verb)(number, transfer.transfer_id)
    assert [each.state for each in emulator.transfers] == [state]
    assert number in emulator.images
    with pytest.raises(errors.ConflictError):
        await getattr(transfers, verb)(number, transfer.transfer_id)
    with pytest.raises(errors.NotFoundError):
        await transfers.accept(number, transfer.transfer_id + 1, team_uuid=TEAM)


async def test_only_the_team_that_was_meant_accepts(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    number = emulator.images.add()
    transfer = await account.account_transfers.create(number, team_uuid=TEAM)
    assert transfer.transfer_id is not None
    with pytest.raises(errors.PermissionDeniedError):
        await account.account_transfers.accept(number, transfer.transfer_id, team_uuid=TEAM.replace("4", "5"))


async def test_only_snapshots_change_accounts(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    with pytest.raises(errors.UnprocessableEntityError):
        await account.account_transfers.create(emulator.images.add(type="custom"), email="a@example.com")


@pytest.mark.parametrize("document", [{}, {"transfer_id": None}, {"transfer_id": -1}, {"transfer_id": "3"}])
async def test_a_transfer_without_an_id_is_an_error(server: Server, api: ImagesAPI, document: object) -> None:
    server.script(reply(document, status=201))
    with pytest.raises(errors.DecodeError) as caught:
        await api.account_transfers.create(42, email="a@example.com")
    assert caught.value.outcome_unknown


async def test_scopes_are_those_that_are_documented(emulator: ImagesEmulator) -> None:
    emulator.tokens.issue(token="reader", scopes={"image:read", "image:update"})
    number = emulator.images.add()
    async with ImagesAPI("reader", base_url=emulator.url) as reader:
        await reader.actions.transfer(number, "ams3")
        with pytest.raises(errors.PermissionDeniedError, match="image:delete"):
            await reader.account_transfers.create(number, email="a@example.com")


# --- arguments ---

BAD: list[tuple[str, tuple[object, ...], dict[str, Any], type[Exception], str]] = [
    ("actions.get", (0, 5), {}, ValueError, "image_id"),
    ("actions.get", ("slug", 5), {}, TypeError, "image_id"),
    ("actions.get", (5, True), {}, TypeError, "action_id"),
    ("actions.transfer", (5, ""), {}, ValueError, "region"),
    ("actions.transfer", (5, 3), {}, TypeError, "region"),
    ("actions.convert", ("5",), {}, TypeError, "image_id"),
    ("actions.wait", (5, 0), {}, ValueError, "action_id"),
    ("actions.wait", (5, 1), {"timeout": 0}, ValueError, "timeout"),
    ("actions.wait", (5, 1), {"poll_interval": float("nan")}, ValueError, "poll_interval"),
    ("actions.list_page", (5,), {"page": 0}, ValueError, "page"),
    ("account_transfers.create", (5,), {}, ValueError, "email and team_uuid"),
    ("account_transfers.create", (5,), {"email": "a", "team_uuid": "b"}, ValueError, "email and team_uuid"),
    ("account_transfers.create", (5,), {"email": ""}, ValueError, "email"),
    ("account_transfers.create", (5,), {"team_uuid": 5}, TypeError, "team_uuid"),
    ("account_transfers.accept", (5, 0), {"team_uuid": "b"}, ValueError, "transfer_id"),
    ("account_transfers.accept", (5, 3), {"team_uuid": ""}, ValueError, "team_uuid"),
    ("account_transfers.cancel", (5, None), {}, TypeError, "transfer_id"),
    ("account_transfers.decline", (-5, 5), {}, ValueError, "image_id"),
]


@pytest.mark.parametrize(("name", "arguments", "more", "kind", "match"), BAD)
async def test_bad_arguments_send_nothing(
    server: Server,
    api: ImagesAPI,
    name: str,
    arguments: tuple[object, ...],
    more: dict[str, Any],
    kind: type[Exception],
    match: str,
) -> None:
    group, method = name.split(".")
    with pytest.raises(kind, match=match):
        await getattr(getattr(api, group), method)(*arguments, **more)
    assert not server.connections


@pytest.mark.parametrize(
    ("regions", "kind"),
    [("ams3", TypeError), (["ams3", "ams3"], ValueError), ([""], ValueError), ([3], TypeError)],
)
async def test_bad_regions_send_nothing(
    server: Server, api: ImagesAPI, regions: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="regions"):
        api.actions.transfer_to_regions(42, regions)
    assert not server.connections


async def test_options_reach_the_actions(server: Server, api: ImagesAPI) -> None:
    server.answer_with(lambda _: refusal(503))
    with pytest.raises(errors.ServerError):
        await api.with_options(retry=ONCE).actions.get(42, 5)
    assert len(server.received) == 1


async def test_a_page_of_actions_beyond_the_last_is_empty(server: Server, api: ImagesAPI) -> None:
    server.script(reply({"actions": [], "meta": {"total": 3}}))
    assert await api.actions.list_page(42, page=9) == ActionPage(actions=(), total=3, page=9)
