"""The fan-out and the bulk calls: bounded, lazy, and no error ends the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from do_images_async import (
    BulkProgress,
    Image,
    ImagesAPI,
    Outcome,
    RateLimiter,
    TokenBucket,
    errors,
    fan_out,
)
from do_images_async.testing import ImagesEmulator
from tests.conftest import FAST
from tests.support.slow import examples
from tests.support.virtual_time import let_run, run_virtually

LAWS = settings(derandomize=True, deadline=None, database=None, max_examples=examples(60))


async def double(number: int) -> int:
    return 2 * number


async def hang(_: int) -> None:
    await asyncio.sleep(3600)


async def asynchronous(numbers: Iterator[int] | range) -> AsyncGenerator[int, None]:
    for number in numbers:
        await asyncio.sleep(0)
        yield number


class Counted:
    """Keys that count how many were drawn."""

    def __init__(self, numbers: range) -> None:
        self.drawn = 0
        self._numbers = numbers

    def __iter__(self) -> Iterator[int]:
        for number in self._numbers:
            self.drawn += 1
            yield number


async def all_of(outcomes: AsyncGenerator[Outcome[Any, Any], None]) -> list[Outcome[Any, Any]]:
    async with aclosing(outcomes):
        return [outcome async for outcome in outcomes]


# --- the fan-out ---


@LAWS
@given(
    delays=st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=30),
    concurrency=st.integers(1, 8),
    ordered=st.booleans(),
    asynchronously=st.booleans(),
)
def test_every_key_has_its_outcome_within_bounds(
    delays: list[tuple[int, bool]], concurrency: int, ordered: bool, asynchronously: bool
) -> None:
    now = most = 0
    ended: list[int] = []

    async def call(key: int) -> int:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            await asyncio.sleep(delays[key][0])
            if delays[key][1]:
                raise LookupError(key)
            return -key
        finally:
            now -= 1
            ended.append(key)

    async def main() -> None:
        before = asyncio.all_tasks()
        keys = range(len(delays))
        source = asynchronous(keys) if asynchronously else keys
        told: list[BulkProgress] = []
        outcomes: list[Outcome[int, int]] = await all_of(
            fan_out(call, source, concurrency=concurrency, ordered=ordered, progress=told.append)
        )
        yielded = [outcome.key for outcome in outcomes]
        assert yielded == (list(keys) if ordered else ended)
        assert sorted(yielded) == list(keys)
        for outcome in outcomes:
            fails = delays[outcome.key][1]
            assert outcome.ok is not fails
            assert outcome.value == (None if fails else -outcome.key)
            assert type(outcome.error) is (LookupError if fails else type(None))
        assert most <= concurrency
        assert most == min(concurrency, len(delays)) or any(delay == 0 for delay, _ in delays)
        assert [each.done for each in told] == list(range(1, len(delays) + 1))
        if told:
            failures = sum(fails for _, fails in delays)
            assert told[-1] == BulkProgress(len(delays), failures, None if asynchronously else len(delays))
        assert asyncio.all_tasks() == before

    run_virtually(main())


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_million_keys_are_drawn_as_they_are_needed(ordered: bool) -> None:
    keys = Counted(range(1_000_000))
    async with aclosing(fan_out(double, keys, concurrency=10, ordered=ordered)) as outcomes:
        for yielded in range(1, 200):
            await anext(outcomes)
            assert keys.drawn <= yielded + 20
        await let_run(200)  # a reader that stands still is not worked ahead of for ever
        assert keys.drawn <= 199 + 20


def test_in_order_a_slow_first_call_does_not_stop_the_rest() -> None:
    async def call(number: int) -> int:
        await asyncio.sleep(100 if number == 0 else 1)
        return number

    async def main() -> None:
        loop = asyncio.get_running_loop()
        outcomes = await all_of(fan_out(call, range(8), concurrency=4, ordered=True))
        assert [outcome.key for outcome in outcomes] == list(range(8))
        assert loop.time() == 100

    run_virtually(main())


def test_slow_keys_do_not_delay_outcomes() -> None:
    async def keys() -> AsyncGenerator[int, None]:
        yield 1
        await asyncio.sleep(1000)
        yield 2

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with aclosing(fan_out(double, keys())) as outcomes:
            assert (await anext(outcomes)).value == 2
            assert loop.time() == 0
            assert (await anext(outcomes)).value == 4
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)

    run_virtually(main())


@pytest.mark.parametrize("ordered", [True, False])
async def test_leaving_early_leaves_no_task_and_closes_the_keys(ordered: bool) -> None:
    before = asyncio.all_tasks()
    closed = False

    async def keys() -> AsyncGenerator[int, None]:
        nonlocal closed
        try:
            for number in range(1000):
                yield number
                await asyncio.sleep(0)
        finally:
            closed = True

    async def call(number: int) -> None:
        await asyncio.sleep(0 if number == 0 else 3600)

    async with aclosing(fan_out(call, keys(), concurrency=5, ordered=ordered)) as outcomes:
        assert (await anext(outcomes)).key == 0
        await let_run(50)
    assert asyncio.all_tasks() == before
    assert closed


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_reader_that_is_cancelled_stops_at_once_and_leaves_no_task(ordered: bool) -> None:
    before = asyncio.all_tasks()
    reader = asyncio.create_task(all_of(fan_out(hang, range(1000), ordered=ordered)))
    await let_run(50)
    assert len(asyncio.all_tasks()) > 30
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert asyncio.all_tasks() == before


async def test_a_call_that_cancels_itself_is_one_outcome() -> None:
    async def call(number: int) -> int:
        if number == 1:
            raise asyncio.CancelledError
        return number

    outcomes = await all_of(fan_out(call, range(3), ordered=True))
    assert [outcome.value for outcome in outcomes] == [0, None, 2]
    assert isinstance(outcomes[1].error, asyncio.CancelledError)


@pytest.mark.parametrize("ordered", [True, False])
async def test_an_error_of_the_keys_comes_after_their_outcomes(ordered: bool) -> None:
    def keys() -> Iterator[int]:
        yield from range(3)
        raise LookupError("no more")

    got: list[int] = []
    with pytest.raises(LookupError, match="no more"):  # noqa: PT012  (what came before the error counts)
        async for outcome in fan_out(double, keys(), concurrency=1, ordered=ordered):
            got.append(outcome.key)  # noqa: PERF401
    assert got == [0, 1, 2]


async def test_a_hook_that_raises_ends_the_fan_out() -> None:
    before = asyncio.all_tasks()

    def hook(_: BulkProgress) -> None:
        raise LookupError("the hook")

    with pytest.raises(LookupError, match="the hook"):
        await all_of(fan_out(double, range(100), progress=hook))
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("ordered", [True, False])
async def test_no_keys_no_outcomes(ordered: bool) -> None:
    assert await all_of(fan_out(double, [], ordered=ordered)) == []
    assert await all_of(fan_out(double, asynchronous(range(0)), ordered=ordered)) == []


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ({"concurrency": 0}, ValueError, "concurrency"),
        ({"concurrency": True}, TypeError, "concurrency"),
        ({"keys": 5}, TypeError, "keys"),
        ({"keys": None}, TypeError, "keys"),
    ],
)
async def test_bad_arguments(arguments: dict[str, Any], kind: type[Exception], match: str) -> None:
    bad: Any = {"keys": range(3), **arguments}
    with pytest.raises(kind, match=match):
        fan_out(double, **bad)


async def test_keys_that_were_read_already_are_refused(api: ImagesAPI) -> None:
    numbers, slugs = asynchronous(range(3)), (slug for slug in ("a", "b"))
    assert len([each async for each in fan_out(double, numbers)]) == 3
    assert list(slugs) == ["a", "b"]
    for keys in (numbers, slugs):
        refused: list[tuple[str, Callable[[Any], object]]] = [
            ("keys", lambda keys: fan_out(double, keys)),
            ("ids", api.get_many),
            ("ids", api.delete_many),
            ("changes", api.update_many),
        ]
        for name, call in refused:
            with pytest.raises(ValueError, match=f"{name} was read to its end or closed"):
                call(keys)


def test_an_outcome_gives_its_value_or_raises() -> None:
    assert Outcome("a", 5).result() == 5
    assert Outcome("a", None).ok
    failed: Outcome[str, int] = Outcome("a", error=LookupError("gone"))
    with pytest.raises(LookupError, match="gone"):
        failed.result()
    assert not failed.ok


# --- the calls that are made of it ---


@pytest.fixture
async def emulator() -> AsyncIterator[ImagesEmulator]:
    async with ImagesEmulator(images=20) as running:
        yield running


@pytest.fixture
async def account(emulator: ImagesEmulator) -> AsyncIterator[ImagesAPI]:
    async with ImagesAPI(emulator.token, base_url=emulator.url, retry=FAST) as client:
        yield client


async def test_many_are_read_and_each_error_is_one_images(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    mine = [record["id"] for record in emulator.images if not record["public"]]
    keys: list[int | str] = [*mine, 1, "ubuntu-24-04-x64", "../account", 0]
    outcomes = await all_of(account.get_many(keys, ordered=True))
    assert [outcome.key for outcome in outcomes] == keys
    assert [outcome.result().id for outcome in outcomes[:20]] == mine
    assert [type(outcome.error) for outcome in outcomes[20:]] == [
        errors.NotFoundError,
        type(None),
        ValueError,
        ValueError,
    ]


async def test_many_are_read_straight_from_a_listing(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    ids = (image.id async for image in account.list(private=True, per_page=5))
    got: dict[int, Image] = {}
    async for outcome in account.get_many(ids, concurrency=4):
        key: int = outcome.key
        got[key] = outcome.result()
    assert len(got) == 20


async def test_a_reader_of_a_listings_images_that_leaves_leaves_nothing(account: ImagesAPI) -> None:
    await account.get("ubuntu-24-04-x64")
    before = asyncio.all_tasks()
    ids = (image.id async for image in account.list(per_page=2))
    async with aclosing(account.get_many(ids)) as outcomes:
        await anext(outcomes)
    await let_run()
    assert {task for task in asyncio.all_tasks() - before if "RequestHandler" not in repr(task)} == set()


async def test_the_quota_holds_for_many(emulator: ImagesEmulator) -> None:
    limiter = RateLimiter(TokenBucket(5, per=60))
    async with ImagesAPI(emulator.token, base_url=emulator.url, limiter=limiter, max_wait=0) as account:
        outcomes = await all_of(account.get_many([record["id"] for record in emulator.images][:12]))
    assert sum(outcome.ok for outcome in outcomes) == 5
    assert sum(isinstance(outcome.error, errors.QuotaWaitError) for outcome in outcomes) == 7
    assert len(emulator.requests) == 5


@pytest.mark.parametrize("ids", ["ubuntu-24-04-x64", b"12", 12, None])
async def test_one_slug_is_not_many_ids(account: ImagesAPI, ids: Any) -> None:
    with pytest.raises(TypeError, match="ids"):
        account.get_many(ids)
    with pytest.raises(TypeError, match="ids"):
        account.delete_many(ids)


async def test_many_are_deleted_but_for_public_ones(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    public = next(record["id"] for record in emulator.images if record["public"])
    mine = [record["id"] for record in emulator.images if not record["public"]][:5]
    outcomes = {each.key: each async for each in account.delete_many([*mine, public, 1])}
    for number in mine:
        image = outcomes[number].result()
        assert image is not None
        assert image.id == number
        assert number not in emulator.images
    assert isinstance(outcomes[public].error, errors.PublicImageError)
    assert str(public) in str(outcomes[public].error)
    assert isinstance(outcomes[1].error, errors.NotFoundError)
    assert emulator.requests.count("DELETE") == 5


async def test_a_dry_run_deletes_nothing(emulator: ImagesEmulator, account: ImagesAPI) -> None:
    everything = [record["id"] for record in emulator.images]
    outcomes = await all_of(account.delete_many(everything, dry_run=True, ordered=True))
    assert [outcome.ok for outcome in outcomes] == [not record["public"] for record in emulator.images]
    allowed = await all_of(account.delete_many(everything, dry_run=True, allow_public=True))
    assert all(outcome.ok and outcome.value for outcome in allowed)
    assert emulator.requests.count("DELETE") == 0


async def test_allowing_public_images_costs_one_request_for_each(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    public = next(record["id"] for record in emulator.images if record["public"])
    mine = [record["id"] for record in emulator.images if not record["public"]][:3]
    outcomes = {each.key: each async for each in account.delete_many([*mine, public], allow_public=True)}
    assert isinstance(outcomes[public].error, errors.PermissionDeniedError)
    assert sum(outcome.ok for outcome in outcomes.values()) == 3
    assert len(emulator.requests) == 4


async def test_an_image_that_may_be_public_is_not_deleted(
    emulator: ImagesEmulator, account: ImagesAPI
) -> None:
    number = emulator.images.add()
    emulator.images.update(number, public=None)
    [outcome] = await all_of(account.delete_many([number]))
    assert isinstance(outcome.error, errors.PublicImageError)
    assert number in emulator.images


@pytest.mark.parametrize("as_mapping", [True, False])
async def test_many_are_changed(emulator: ImagesEmulator, account: ImagesAPI, as_mapping: bool) -> None:
    one, two = emulator.images.add(type="custom"), emulator.images.add()
    changes: Any = {one: {"name": "a", "description": ""}, two: {"description": "x"}, 1: {"name": "b"}, 2: {}}
    outcomes = {
        each.key: each async for each in account.update_many(changes if as_mapping else iter(changes.items()))
    }
    assert outcomes[one].result().name == "a"
    assert isinstance(outcomes[two].error, errors.UnprocessableEntityError)
    assert isinstance(outcomes[1].error, errors.NotFoundError)
    assert isinstance(outcomes[2].error, ValueError)
    assert emulator.requests.count("PUT") == 3
