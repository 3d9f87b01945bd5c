"""Listings of images that others create and delete meanwhile: each one once, and none left out."""

from __future__ import annotations

import asyncio
import logging
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing

import attrs
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from do_images_async import Image, ImagePage, ImagesAPI, errors
from do_images_async._api.idset import IdSet
from do_images_async._api.pagination import PASSES, STRICT_PASSES, LinkedPages, Page, read_whole
from do_images_async.testing import ImagesEmulator
from tests.conftest import ONCE
from tests.support.servers import Answer, Received, Server, image_document, reply
from tests.support.slow import examples, fewer

LAWS = settings(derandomize=True, deadline=None, database=None, max_examples=examples(60))
STEADY = 12


@attrs.frozen
class Change:
    """A deletion or creation at a position, at once or while the response is in flight."""

    deletes: bool
    place: int
    late: bool = False

    def make(self, emulator: ImagesEmulator) -> None:
        order = [image["id"] for image in emulator.images]
        if not self.deletes:
            emulator.images.add(at=self.place % (len(order) + 1))
        elif order:
            emulator.images.remove(order[self.place % len(order)])


@attrs.define
class Reading:
    """The ids that a listing yielded, and those that it should have yielded."""

    ids: list[int]
    throughout: set[int]
    requests: int
    warnings: int

    @property
    def is_whole(self) -> bool:
        return self.throughout <= set(self.ids)


def changes(*, deletes: st.SearchStrategy[bool], late: bool) -> st.SearchStrategy[list[Change | None]]:
    """Draw the changes before the response to each request, in order."""
    change = st.builds(Change, deletes, st.integers(0, 30), st.booleans() if late else st.just(False))
    return st.lists(st.none() | change, max_size=8)


async def read(plan: list[Change | None], *, strict: bool, per_page: int, concurrency: int) -> Reading:
    """List an emulated account that changes as planned."""
    handler = _Counter()
    logging.getLogger("do_images_async").addHandler(handler)
    try:
        async with (
            ImagesEmulator(images=0, quotas=None) as emulator,
            ImagesAPI(emulator.token, base_url=emulator.url) as api,
        ):
            for image in list(emulator.images):
                emulator.images.remove(image["id"])
            throughout = {emulator.images.add() for _ in range(STEADY)}
            remaining = list(plan)
            loop = asyncio.get_running_loop()

            def disturb(_: web.Request) -> None:
                change = remaining.pop(0) if remaining else None
                if change is not None and change.late:
                    loop.call_soon(change.make, emulator)
                elif change is not None:
                    change.make(emulator)

            emulator.on_request.append(disturb)
            listing = api.list(per_page=per_page, concurrency=concurrency, strict=strict)
            ids = [image.id async for image in listing]
            await asyncio.sleep(0)
            throughout &= {image["id"] for image in emulator.images}
            return Reading(ids, throughout, len(emulator.requests), handler.warnings)
    finally:
        logging.getLogger("do_images_async").removeHandler(handler)


class _Counter(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.warnings += "come to rest" in record.getMessage()


# --- the laws ---


@LAWS
@given(
    plan=changes(deletes=st.booleans(), late=True),
    per_page=st.integers(1, 5),
    concurrency=st.sampled_from([1, 4]),
)
def test_strict_yields_every_image_that_was_there_throughout_once(
    plan: list[Change | None], per_page: int, concurrency: int
) -> None:
    reading = asyncio.run(read(plan, strict=True, per_page=per_page, concurrency=concurrency))
    assert reading.is_whole
    assert max(Counter(reading.ids).values(), default=1) == 1


@LAWS
@given(plan=changes(deletes=st.booleans(), late=False), per_page=st.integers(1, 5))
def test_changes_that_totals_show_hide_no_image(plan: list[Change | None], per_page: int) -> None:
    # One request at a time and one change before it: each change shows in the totals of two pages.
    reading = asyncio.run(read(plan, strict=False, per_page=per_page, concurrency=1))
    assert reading.is_whole or reading.warnings == 1
    assert max(Counter(reading.ids).values(), default=1) == 1


@LAWS
@given(plan=changes(deletes=st.just(True), late=True), per_page=st.integers(1, 5))
def test_deletions_during_the_prefetch_hide_no_image(plan: list[Change | None], per_page: int) -> None:
    reading = asyncio.run(read(plan, strict=False, per_page=per_page, concurrency=4))
    assert reading.is_whole or reading.warnings == 1
    assert max(Counter(reading.ids).values(), default=1) == 1


def test_the_properties_fail_for_a_reader_of_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("do_images_async._api.pagination.PASSES", 1)
    plan = [None, Change(deletes=True, place=0)]
    reading = asyncio.run(read(plan, strict=False, per_page=3, concurrency=1))
    assert not reading.is_whole
    assert reading.warnings == 1


# --- single changes ---


@pytest.mark.parametrize("strict", [True, False])
async def test_row_44_a_deletion_between_two_pages_hides_no_image(strict: bool) -> None:
    reading = await read([None, Change(deletes=True, place=0)], strict=strict, per_page=3, concurrency=1)
    assert reading.is_whole
    assert reading.warnings == 0
    assert reading.requests == 4 + 4 + (4 if strict else 0)


async def test_row_45_a_creation_between_two_pages_repeats_no_image() -> None:
    reading = await read([None, Change(deletes=False, place=0)], strict=False, per_page=3, concurrency=1)
    assert reading.is_whole
    assert len(reading.ids) == len(set(reading.ids)) == STEADY + 1


async def test_an_unchanged_list_costs_one_pass_and_two_when_strict() -> None:
    for strict, passes in ((False, 1), (True, 2)):
        reading = await read([], strict=strict, per_page=3, concurrency=4)
        assert (reading.requests, len(reading.ids)) == (4 * passes, STEADY)


async def test_strict_finds_changes_that_totals_do_not_show() -> None:
    """One deleted early, one created late: the total stands still, and an image falls between two pages."""
    for strict in (False, True):
        async with (
            ImagesEmulator(images=0, quotas=None) as emulator,
            ImagesAPI(emulator.token, base_url=emulator.url) as api,
        ):
            for image in list(emulator.images):
                emulator.images.remove(image["id"])
            numbers = [emulator.images.add() for _ in range(6)]
            async with aclosing(api.list(per_page=3, strict=strict)) as images:
                got = [(await anext(images)).id for _ in range(3)]
                emulator.images.remove(numbers[0])
                emulator.images.add()
                got += [image.id async for image in images]
        assert (numbers[3] in got) is strict


# --- totals that are wrong for good ---


def with_total(count: int, total: Callable[[int], int]) -> Callable[[Received], Answer]:
    requests = 0

    def answer(request: Received) -> Answer:
        nonlocal requests
        requests += 1
        page, per_page = int(request.query["page"]), int(request.query["per_page"])
        numbers = range(1, count + 1)[(page - 1) * per_page : page * per_page]
        links = (
            {"next": f"http://{request.headers['host']}/?page={page + 1}"} if page * per_page < count else {}
        )
        return reply(
            {
                "images": [image_document(number) for number in numbers],
                "links": {"pages": links},
                "meta": {"total": total(requests)},
            }
        )

    return answer


@pytest.mark.parametrize(("total", "requests"), [(8, 3), (11, 2 * 4), (30, 2 * 5)])
async def test_row_48_and_row_77_a_total_that_stays_wrong_is_logged_and_no_error(
    server: Server, api: ImagesAPI, total: int, requests: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer_with(with_total(9, lambda _: total))
    assert [image.id async for image in api.list(per_page=3, concurrency=1)] == list(range(1, 10))
    assert len(server.received) == requests, "one empty page ends a pass, with what was prefetched behind it"
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == (total > 9)
    assert all(f"may lack items: 9 read, the server counts {total}" in warning for warning in warnings)


async def test_strict_says_both_counts_of_a_list_that_is_shorter_than_its_total(
    server: Server, api: ImagesAPI
) -> None:
    server.answer_with(with_total(9, lambda _: 11))
    with pytest.raises(errors.IncompleteListingError) as caught:
        _ = [image async for image in api.list(per_page=3, strict=True)]
    assert (caught.value.seen, caught.value.total) == (9, 11)
    assert len(server.received) < 12 * STRICT_PASSES / 2


async def test_strict_takes_a_list_that_is_longer_than_its_total(server: Server, api: ImagesAPI) -> None:
    server.answer_with(with_total(9, lambda _: 8))
    assert len([image async for image in api.list(per_page=3, strict=True)]) == 9


async def test_totals_that_always_change_are_logged_and_the_listing_ends(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer_with(with_total(9, lambda requests: 8 - requests % 7))
    assert [image.id async for image in api.list(per_page=3, concurrency=1)] == list(range(1, 10))
    [warning] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "did not come to rest" in warning
    assert len(server.received) == PASSES * 3


async def test_strict_raises_on_totals_that_always_change(server: Server, api: ImagesAPI) -> None:
    server.answer_with(with_total(9, lambda requests: 8 - requests % 7))
    with pytest.raises(errors.IncompleteListingError) as caught:
        _ = [image async for image in api.list(per_page=3, concurrency=1, strict=True)]
    assert caught.value.seen == 9
    assert len(server.received) == STRICT_PASSES * 3


async def test_row_45_an_id_that_a_page_repeats_is_kept_unless_strict_but_not_across_pages(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture
) -> None:
    pages = {"1": [5, 6, 6], "2": [6, 7, 7]}

    def answer(request: Received) -> Answer:
        numbers = pages.get(request.query["page"], [])
        return reply({"images": [image_document(number) for number in numbers], "meta": {"total": 3}})

    server.answer_with(answer)
    assert [image.id async for image in api.list(per_page=3)] == [5, 6, 6, 7, 7]
    assert [image.id async for image in api.list(per_page=3, strict=True)] == [5, 6, 7]
    # A repeat that stays is the server's way: two passes, each with an empty page that shows the end.
    assert len(server.received) == 2 * 6
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_pages_hold_only_what_is_new(server: Server, api: ImagesAPI) -> None:
    pages = {"1": [5, 6], "2": [6, 7]}

    def answer(request: Received) -> Answer:
        numbers = pages.get(request.query["page"], [])
        return reply({"images": [image_document(number) for number in numbers], "meta": {"total": 4}})

    server.answer_with(answer)
    got = [(page.page, page.ids) async for page in api.list_pages(per_page=2)]
    assert got == [(1, (5, 6)), (2, (7,)), (3, ())]


async def test_a_page_that_fails_in_a_later_pass_fails_the_listing(server: Server, api: ImagesAPI) -> None:
    answers = with_total(9, lambda _: 9)

    def answer(request: Received) -> Answer:
        again = sum(each.query == request.query for each in server.received) > 1
        return reply({}, status=500) if again and request.query["page"] == "2" else answers(request)

    server.answer_with(answer)
    with pytest.raises(errors.ServerError) as caught:
        _ = [image async for image in api.with_options(retry=ONCE).list(per_page=3, strict=True)]
    assert caught.value.page == 2


# --- memory ---


@LAWS
@given(st.lists(st.lists(st.integers(1, 2**63 - 1) | st.integers(1, 300), max_size=20), max_size=30))
def test_a_set_of_ids_is_a_set(groups: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("do_images_async._api.idset._RECENT", 5)
        patch.setattr("do_images_async._api.idset._SPARSE", 10)
        ids, model = IdSet(), set[int]()
        for group in groups:
            assert ids.known(set(group)) == set(group) & model
            assert ids.absorb(group) == set(group) & model
            model.update(group)
            assert len(ids) == len(model)
        neighbours = {number + 1 for number in model}
        assert ids.absorb(model | neighbours) == model


def test_a_set_of_ids_takes_strings() -> None:
    ids = IdSet()
    volumes = [f"fbe805e8-866b-11e6-96bf-{number:012}" for number in range(5000)]
    assert ids.absorb(volumes[:4000]) == set()
    assert ids.absorb(volumes[3000:]) == set(volumes[3000:4000])
    assert ids.absorb(volumes) == set(volumes)
    assert len(ids) == 5000


LINKS = LinkedPages(next_page=None, last_page=None, sent=True)


@pytest.mark.parametrize("gap", fewer([7, 1]))
async def test_memory_stays_flat_however_long_the_list_is(gap: int) -> None:
    count, per_page = 100_000, 200

    async def fetch(number: int) -> Page[Image]:
        await asyncio.sleep(0)
        return _Ids(items=(), number=number, total=count, links=LINKS, full=True, gap=gap, per_page=per_page)

    pages = read_whole(fetch, concurrency=4, strict=False)
    read = 0
    async with aclosing(pages):
        read += len(await anext(pages))
        tracemalloc.start()
        try:
            async for page in pages:
                read += len(page)
            growth = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert read == count
    assert growth < 500_000 + 1.2 * count  # a byte for each, and what is never more


@attrs.frozen(kw_only=True)
class _Ids(Page[Image]):
    """A page of nothing but ids."""

    gap: int
    per_page: int

    @property
    def ids(self) -> range:
        start = (self.number - 1) * self.per_page
        return range(start * self.gap + 1, (start + self.per_page) * self.gap + 1, self.gap)

    def __len__(self) -> int:
        return self.per_page

    def without(self, ids: object) -> _Ids:
        raise AssertionError(f"nothing is repeated, and yet {ids} are taken out")


def test_a_page_can_leave_out_images() -> None:
    page = ImagePage(images=(Image(id=1), Image(id=2), Image(id=1)))
    assert page.ids == (1, 2, 1)
    assert page.without({1}).ids == (2,)
