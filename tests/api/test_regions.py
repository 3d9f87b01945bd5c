"""`ensure_regions`: start missing transfers once, and wait for those in progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from do_images_async import Action, ImagesAPI, Outcome, RateLimiter, TokenBucket, errors
from do_images_async.testing import Fault, ImagesEmulator
from tests.conftest import FAST, TOKEN
from tests.support.copying import CopyingAccount
from tests.support.servers import (
    HANG,
    RESET,
    Answer,
    Received,
    Server,
    eventually,
    image_document,
    refusal,
    reply,
)
from tests.support.slow import fewer


@pytest.fixture
async def emulator() -> AsyncIterator[ImagesEmulator]:
    async with ImagesEmulator(images=0, action_seconds=0.05) as running:
        yield running


@pytest.fixture
async def account(emulator: ImagesEmulator) -> AsyncIterator[ImagesAPI]:
    async with ImagesAPI(emulator.token, base_url=emulator.url, retry=FAST) as client:
        yield client


Outcomes = dict[str, Outcome[str, Action | None]]


async def ensure(account: ImagesAPI, image: int, *regions: str, **options: Any) -> Outcomes:
    options = {"timeout": 30, "poll_interval": 0.01, **options}
    return {each.key: each async for each in account.ensure_regions(image, regions, **options)}


async def test_what_is_missing_is_transferred_and_waited_for(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    image = emulator.images.add(regions=["nyc3"])
    outcomes = await ensure(account, image, "nyc3", "ams3", "fra1", "nowhere")
    assert outcomes["nyc3"].result() is None, "it was there"
    for region in ("ams3", "fra1"):
        action = outcomes[region].result()
        assert action is not None
        assert (action.region_slug, action.status) == (region, "completed")
    assert isinstance(outcomes["nowhere"].error, errors.UnprocessableEntityError)
    assert sorted(emulator.images[image]["regions"]) == ["ams3", "fra1", "nyc3"]


async def test_a_second_run_costs_one_request_and_changes_nothing(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    image = emulator.images.add(regions=["nyc3"])
    await ensure(account, image, "ams3")
    before = len(emulator.requests)
    outcomes = await ensure(account, image, "ams3", "nyc3")
    assert [outcome.result() for outcome in outcomes.values()] == [None, None]
    assert len(emulator.requests) == before + 1
    assert len(emulator.actions) == 1


class Clock:
    """The time, ahead by what a test has let pass."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def slow_emulator(clock: Clock) -> AsyncIterator[ImagesEmulator]:
    """Serve actions that take a minute of the clock."""
    async with ImagesEmulator(images=0, action_seconds=60, clock=clock) as running:
        yield running


@pytest.fixture
async def slow_account(slow_emulator: ImagesEmulator) -> AsyncIterator[ImagesAPI]:
    async with ImagesAPI(slow_emulator.token, base_url=slow_emulator.url, retry=FAST) as client:
        yield client


async def test_a_transfer_in_progress_is_waited_for_and_not_doubled(
    clock: Clock, slow_emulator: ImagesEmulator, slow_account: ImagesAPI
) -> None:
    reports: list[tuple[str, int]] = []

    def progress(region: str, action: Action) -> None:
        reports.append((region, action.id))
        clock.ahead = 60.0  # it ends, once it was seen

    image = slow_emulator.images.add(regions=["nyc3"])
    begun = await slow_account.actions.transfer(image, "ams3")
    outcomes = await ensure(slow_account, image, "ams3", progress=progress)
    done = outcomes["ams3"].result()
    assert done is not None
    assert done.id == begun.id
    assert set(reports) == {("ams3", begun.id)}
    assert slow_emulator.requests.count("POST") == 1


async def test_a_transfer_that_ends_after_the_image_was_read_is_not_doubled(
    clock: Clock, slow_emulator: ImagesEmulator, slow_account: ImagesAPI
) -> None:
    def hook(request: web.Request) -> None:
        if request.method == "GET" and request.path.endswith("/actions"):
            clock.ahead = 60.0

    image = slow_emulator.images.add(regions=["nyc3"])
    await slow_account.actions.transfer(image, "ams3")
    slow_emulator.on_request.append(hook)
    outcomes = await ensure(slow_account, image, "ams3")
    assert outcomes["ams3"].result() is None
    assert slow_emulator.requests.count("POST") == 1


async def test_many_at_once_begin_each_transfer_once(
    clock: Clock, slow_emulator: ImagesEmulator, slow_account: ImagesAPI
) -> None:
    reports: set[tuple[int, str]] = set()

    async def ensure_both(caller: int) -> Outcomes:
        def progress(region: str, _: Action) -> None:
            reports.add((caller, region))
            clock.ahead = 60.0 * (len(reports) == 10)  # they end, once everybody waits for both

        return await ensure(slow_account, image, "ams3", "fra1", progress=progress)

    image = slow_emulator.images.add(regions=["nyc3"])
    every = await asyncio.gather(*map(ensure_both, range(5)))
    assert all(outcome.ok for outcomes in every for outcome in outcomes.values())
    assert len(slow_emulator.actions) == 2


async def test_calls_of_a_client_that_overlap_transfer_once_whatever_the_server_accepts(
    server: Server, api: ImagesAPI
) -> None:
    account = CopyingAccount()
    server.answer_with(account)
    clients = (api, api.with_options(timeout=5), api)
    every = await asyncio.gather(*(ensure(client, 7, "ams3", "fra1") for client in clients))
    assert all(outcome.ok for outcomes in every for outcome in outcomes.values())
    assert sorted(account.targets) == ["ams3", "fra1"]


async def test_a_call_that_is_left_holds_up_no_other(server: Server, api: ImagesAPI) -> None:
    account = CopyingAccount()
    server.script(HANG)
    left = asyncio.create_task(ensure(api, 7, "ams3"))
    await eventually(lambda: bool(server.received))
    server.answer_with(account)
    waiting = asyncio.create_task(ensure(api, 7, "ams3"))
    left.cancel()
    assert (await waiting)["ams3"].ok
    assert len(account.actions) == 1


async def test_a_call_waits_no_longer_than_max_wait_for_one_that_waits_for_quota(server: Server) -> None:
    server.answer_with(CopyingAccount())
    limiter = RateLimiter(TokenBucket(1, per=600))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter) as api:
        first = asyncio.create_task(ensure(api, 7, "ams3"))
        await eventually(lambda: bool(limiter.stats().waiting))
        for max_wait in (0, 0.01):
            with pytest.raises(errors.QuotaWaitError) as caught:
                await ensure(api.with_options(max_wait=max_wait), 7, "ams3")
            assert caught.value.wait > 300
        first.cancel()
    assert len(server.received) == 1


async def test_a_call_with_max_wait_waits_for_one_whose_answer_takes_time(
    server: Server, api: ImagesAPI
) -> None:
    account = CopyingAccount()
    server.script(HANG)
    first = asyncio.create_task(ensure(api, 7, "ams3"))
    await eventually(lambda: bool(server.received))
    second = asyncio.create_task(ensure(api.with_options(max_wait=0), 7, "ams3"))
    await asyncio.sleep(0.25)
    assert not second.done()
    server.answer_with(account)
    first.cancel()
    assert (await second)["ams3"].ok


@pytest.mark.parametrize("broken", fewer([{"broken": "reset"}, {"status": 502}]))
async def test_a_transfer_whose_response_is_lost_is_found_and_not_repeated(
    emulator: ImagesEmulator, account: ImagesAPI, broken: dict[str, Any]
) -> None:
    image = emulator.images.add(regions=["nyc3"])
    emulator.actions.seconds = 1.0
    emulator.faults.add(Fault(method="POST", after=True, **broken))
    outcomes = await ensure(account, image, "ams3")
    assert outcomes["ams3"].ok
    assert len(emulator.actions) == 1
    assert emulator.images[image]["regions"] == ["nyc3", "ams3"]


@pytest.mark.parametrize("search", [refusal(503), refusal(403), RESET])
async def test_a_transfer_that_can_not_be_searched_may_have_been_started(
    server: Server, api: ImagesAPI, search: Answer
) -> None:
    account = CopyingAccount()

    def answer(request: Received) -> Answer:
        if request.method == "POST":
            account(request)
            return RESET
        return search if account.targets else account(request)

    server.answer_with(answer)
    error = (await ensure(api, 7, "ams3"))["ams3"].error
    assert isinstance(error, errors.DOImagesError)
    assert error.outcome_unknown
    assert str(error).startswith(f"POST {server.url}/v2/images/7/actions failed")
    [note] = error.__notes__
    assert note.startswith("whether it was started all the same could not be seen: GET ")


async def test_a_transfer_that_names_where_the_image_comes_from_is_not_doubled(
    server: Server, api: ImagesAPI
) -> None:
    account = CopyingAccount(names="nyc3", completes=False)
    account.start("ams3")
    server.answer_with(account)
    ensuring = asyncio.create_task(ensure(api, 7, "nyc3", "ams3", "fra1"))
    await eventually(lambda: any("/actions/" in request.path for request in server.received))
    account.completes = True
    outcomes = await ensuring
    assert all(outcome.ok for outcome in outcomes.values())
    assert account.targets == ["ams3", "fra1"]
    assert sorted(account.regions) == ["ams3", "fra1", "nyc3"]


async def test_a_transfer_that_may_be_to_any_region_and_never_ends_is_the_error_of_those_that_lack_the_image(
    server: Server, api: ImagesAPI
) -> None:
    account = CopyingAccount(names="nyc3", completes=False)
    account.start("ams3")
    server.answer_with(account)
    outcomes = await ensure(api, 7, "nyc3", "ams3", "fra1", timeout=0.05)
    assert outcomes["nyc3"].ok
    for region in ("ams3", "fra1"):
        error = outcomes[region].error
        assert isinstance(error, errors.WaitTimeoutError)
        assert str(error).startswith(
            "nothing was begun, since a transfer that is may be to the same region: "
        )
        assert error.action is None
    assert account.targets == ["ams3"]


@pytest.mark.parametrize("names", [None, "nyc3"])
async def test_a_transfer_that_ends_between_two_looks_is_not_doubled_whatever_it_names(
    server: Server, api: ImagesAPI, names: str | None
) -> None:
    account = CopyingAccount(names=names)
    account.start("ams3")

    def answer(request: Received) -> Answer:
        if request.path.endswith("/actions"):
            account.poll(1)
        return account(request)

    server.answer_with(answer)
    assert (await ensure(api, 7, "ams3"))["ams3"].ok
    assert account.targets == ["ams3"]


@pytest.mark.parametrize("names", [None, "nyc3"])
async def test_a_call_knows_what_another_of_the_client_has_started_though_the_list_does_not_show_it(
    server: Server, api: ImagesAPI, names: str | None
) -> None:
    account = CopyingAccount(names=names, lists=False, completes=False)
    server.answer_with(account)
    for _ in range(2):
        outcomes = await ensure(api, 7, "ams3", timeout=0.05)
        assert isinstance(outcomes["ams3"].error, errors.WaitTimeoutError)
    account.completes = True
    assert (await ensure(api.with_options(timeout=5), 7, "ams3"))["ams3"].ok
    assert account.targets == ["ams3"]


async def test_a_transfer_that_failed_is_started_again_at_once(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    image = emulator.images.add(regions=["nyc3"])
    emulator.actions.fails = lambda _: True
    assert isinstance((await ensure(account, image, "ams3"))["ams3"].error, errors.ActionFailedError)
    emulator.actions.fails = lambda _: False
    assert (await ensure(account, image, "ams3"))["ams3"].ok


async def test_a_transfer_that_has_just_ended_is_not_doubled_while_the_image_does_not_show_it(
    server: Server, api: ImagesAPI
) -> None:
    account = CopyingAccount(shows=False)
    account.start("ams3")
    account.poll(1)
    server.answer_with(account)
    done = (await ensure(api, 7, "ams3"))["ams3"].result()
    assert done is not None
    assert done.id == 1
    account.actions[0]["completed_at"] = "2026-01-01T00:00:00Z"
    assert (await ensure(api, 7, "ams3"))["ams3"].ok
    assert account.targets == ["ams3", "ams3"]


async def test_a_completed_transfer_that_the_image_does_not_show_is_called_so(
    server: Server, api: ImagesAPI
) -> None:
    account = CopyingAccount(names="nyc3", shows=False)
    looked = False

    def answer(request: Received) -> Answer:
        nonlocal looked
        if looked:
            return HANG  # the time is up within a later poll
        polled = any("/actions/" in each.path for each in server.received)
        looked = polled and request.path == "/v2/images/7"
        return account(request)

    server.answer_with(answer)
    error = (await ensure(api, 7, "ams3", timeout=1))["ams3"].error
    assert isinstance(error, errors.WaitTimeoutError)
    assert str(error) == (
        "action 1 of image 7, which names 'nyc3', is completed, but the image is not in 'ams3' after 1 s"
    )
    assert error.action is not None
    assert error.action.status == "completed"


async def test_a_transfer_that_was_not_started_is_the_regions_error(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    image = emulator.images.add(regions=["nyc3"])
    emulator.faults.add(Fault(method="POST", status=403))
    outcomes = await ensure(account, image, "ams3")
    assert isinstance(outcomes["ams3"].error, errors.PermissionDeniedError)
    emulator.actions.fails = lambda _: True
    outcomes = await ensure(account, image, "fra1")
    assert isinstance(outcomes["fra1"].error, errors.ActionFailedError)


async def test_row_80_nothing_is_transferred_because_another_image_lacks_a_region(
    server: Server, api: ImagesAPI
) -> None:
    server.answer_with(lambda _: reply({"image": image_document(8, regions=[])}))
    with pytest.raises(errors.WrongResourceError):
        await ensure(api, 7, "ams3")
    assert server.methods == ["GET"]


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("image_id", ("web", ["ams3"]), {}),
        ("regions", (7, "ams3"), {}),
        ("regions", (7, ["ams3", "ams3"]), {}),
        ("timeout", (7, ["ams3"]), {"timeout": 0}),
        ("poll_interval", (7, ["ams3"]), {"poll_interval": None}),
        ("progress", (7, ["ams3"]), {"progress": 5}),
    ],
)
async def test_bad_arguments_raise_when_it_is_called(
    api: ImagesAPI, name: str, arguments: Any, options: dict[str, Any]
) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        api.ensure_regions(*arguments, **options)
