"""Listings: complete, in order, with a bounded prefetch, and an error where a part is missing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Sized
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest

from do_images_async import Image, ImagePage, ImagesAPI, errors
from do_images_async.events import Event, PermitGranted
from tests.conftest import ONCE, TOKEN
from tests.support.servers import (
    RESET,
    Answer,
    Received,
    Server,
    eventually,
    image_document,
    listing,
    refusal,
    reply,
)


def pages_asked(server: Server) -> list[int]:
    return [int(request.query["page"]) for request in server.received]


async def ids(images: AsyncGenerator[Image, None]) -> list[int]:
    return [image.id async for image in images]


async def ids_until_error(images: AsyncGenerator[Image, None]) -> tuple[list[int], errors.DOImagesError]:
    """Return the ids that came before the listing failed, and its error."""
    seen: list[int] = []
    try:
        async for image in images:
            seen.append(image.id)  # noqa: PERF401  (what came before the error counts)
    except errors.DOImagesError as error:
        return seen, error
    raise AssertionError(f"the listing ended without an error after {seen}")


async def settled(server: Server) -> int:
    """Return the number of requests after no more come in."""
    count = -1
    while count != len(server.received):
        count = len(server.received)
        await asyncio.sleep(0.03)
    return count


def page_document(numbers: list[int], **more: object) -> dict[str, object]:
    return {"images": [image_document(number) for number in numbers], **more}


# --- whole and in order ---


@pytest.mark.parametrize("concurrency", [1, 2, 4, 32])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 95])
async def test_every_image_comes_once_in_order_and_costs_one_request_a_page(
    server: Server, api: ImagesAPI, count: int, concurrency: int
) -> None:
    server.answer_with(listing(count))
    assert await ids(api.list(per_page=10, concurrency=concurrency)) == list(range(1, count + 1))
    assert sorted(pages_asked(server)) == list(range(1, max(1, -(-count // 10)) + 1))
    assert api.limiter.stats().granted == len(server.received)


async def test_the_order_does_not_depend_on_which_page_comes_first(server: Server, api: ImagesAPI) -> None:
    catalogue = listing(120)

    async def answer(request: Received) -> Answer:
        await asyncio.sleep(0.02 if int(request.query["page"]) % 2 == 0 else 0.0)
        answer = catalogue(request)
        assert isinstance(answer, Answer)
        return answer

    server.answer_with(answer)
    assert await ids(api.list(per_page=10, concurrency=8)) == list(range(1, 121))


async def test_pages_know_their_number(server: Server, api: ImagesAPI) -> None:
    server.answer_with(listing(25))
    pages = [page async for page in api.list_pages(per_page=10)]
    assert [(page.page, len(page), page.total) for page in pages] == [(1, 10, 25), (2, 10, 25), (3, 5, 25)]
    assert [page.next_page for page in pages] == [2, 3, None]


async def test_every_page_asks_for_the_same_filters(server: Server, api: ImagesAPI) -> None:
    server.answer_with(listing(30, tags=["x"]))
    await ids(api.list(type="application", private=True, tag_name="x", per_page=10))
    filters = {"type": "application", "private": "true", "tag_name": "x", "per_page": "10"}
    assert sorted(request.query["page"] for request in server.received) == ["1", "2", "3"]
    for request in server.received:
        assert {name: value for name, value in request.query.items() if name != "page"} == filters


async def test_row_45_an_id_that_a_page_repeats_is_kept(server: Server, api: ImagesAPI) -> None:
    server.script(reply(page_document([5, 6, 6], links={"pages": {}}, meta={"total": 3})))
    assert await ids(api.list()) == [5, 6, 6]
    assert len(server.received) == 1


# --- what the server says of its size ---


@pytest.mark.parametrize("count", [0, 5, 10, 25, 30])
@pytest.mark.parametrize(("links", "total"), [(True, False), (False, True), (False, False)])
async def test_row_50_links_or_total_may_be_missing(
    server: Server, api: ImagesAPI, count: int, links: bool, total: bool
) -> None:
    server.answer_with(listing(count, links=links, total=total))
    assert await ids(api.list(per_page=10)) == list(range(1, count + 1))


@pytest.mark.parametrize(
    "links", [None, {}, {"pages": None}, {"pages": {}}, {"pages": {"next": None}}, {"pages": {"last": "x"}}]
)
async def test_row_50_no_next_link_ends_a_listing(server: Server, api: ImagesAPI, links: object) -> None:
    server.script(reply(page_document([1, 2], links=links, meta={"total": 2})))
    assert await ids(api.list()) == [1, 2]
    assert len(server.received) == 1


@pytest.mark.parametrize("claimed", [0, 3, 10, 19])
async def test_row_48_a_total_that_is_too_small_hides_no_image(
    server: Server, api: ImagesAPI, claimed: int
) -> None:
    def answer(request: Received) -> Answer:
        page = int(request.query["page"])
        links = {"next": f"{server.url}/v2/images?page={page + 1}"} if page < 4 else {}
        numbers = list(range(10 * page - 9, 10 * page + 1))
        return reply(page_document(numbers, links={"pages": links}, meta={"total": claimed}))

    server.answer_with(answer)
    assert await ids(api.list(per_page=10)) == list(range(1, 41))


async def test_row_48_a_total_that_is_too_large_does_not_go_on_for_ever(
    server: Server, api: ImagesAPI
) -> None:
    def answer(request: Received) -> Answer:
        numbers = [1, 2] if request.query["page"] == "1" else []
        return reply(page_document(numbers, links={"pages": {}}, meta={"total": 10**9}))

    server.answer_with(answer)
    images: list[int] = []
    try:
        images += await ids(api.list(per_page=2))
    except errors.IncompleteListingError:
        images = [1, 2]
    assert images == [1, 2]
    assert len(server.received) < 20


async def test_row_49_pages_that_stay_empty_and_announce_more_are_an_error(
    server: Server, api: ImagesAPI
) -> None:
    def answer(request: Received) -> Answer:
        page = int(request.query["page"])
        links = {"next": f"{server.url}/v2/images?page={page + 1}"}
        numbers = [1, 2] if page == 1 else []
        return reply(page_document(numbers, links={"pages": links}, meta={"total": 2}))

    server.answer_with(answer)
    seen, error = await ids_until_error(api.list(per_page=2))
    assert isinstance(error, errors.IncompleteListingError)
    assert (seen, error.seen, error.total) == ([1, 2], 2, 2)
    assert len(server.received) < 20


async def test_row_49_one_empty_page_in_the_middle_hides_no_image(server: Server, api: ImagesAPI) -> None:
    def answer(request: Received) -> Answer:
        page = int(request.query["page"])
        links = {"next": f"{server.url}/v2/images?page={page + 1}"} if page < 3 else {}
        numbers = {1: [1, 2], 2: [], 3: [3, 4]}[page]
        return reply(page_document(numbers, links={"pages": links}, meta={"total": 4}))

    server.answer_with(answer)
    assert await ids(api.list(per_page=2)) == [1, 2, 3, 4]


# --- links that lead astray ---

BAD_LINKS = {
    "the same page": "{url}/v2/images?page=1",
    "page 0": "{url}/v2/images?page=0",
    "page -1": "{url}/v2/images?page=-1",
    "no page": "{url}/v2/images",
    "no number": "{url}/v2/images?page=two",
    "many digits": "{url}/v2/images?page=" + "9" * 5000,
    "no link": "http://[",
    "empty": "",
}


@pytest.mark.parametrize("link", BAD_LINKS.values(), ids=BAD_LINKS.keys())
async def test_row_46_a_next_link_to_a_wrong_page_is_an_error(
    server: Server, api: ImagesAPI, link: str
) -> None:
    links = {"pages": {"next": link.replace("{url}", server.url)}}
    server.script(reply(page_document([1, 2], links=links, meta={"total": 9})))
    with pytest.raises(errors.DecodeError) as caught:
        await ids(api.list(per_page=2))
    assert caught.value.page == 1
    assert "$.links.pages.next" in str(caught.value)
    assert len(server.received) == 1


async def test_row_46_a_later_page_that_links_back_is_an_error(server: Server, api: ImagesAPI) -> None:
    def answer(request: Received) -> Answer:
        page = int(request.query["page"])
        back = min(page + 1, 2)
        links = {"next": f"{server.url}/v2/images?page={back}"}
        return reply(page_document([page], links={"pages": links}))

    server.answer_with(answer)
    seen, error = await ids_until_error(api.list(per_page=1))
    assert isinstance(error, errors.DecodeError)
    assert (seen, error.page) == ([1], 2)


@pytest.mark.parametrize(
    "link",
    [
        "https://api.digitalocean.com/v2/images?page=2&per_page=2",
        "https://evil.example/v2/images/?page=2",
        "http://127.0.0.1:1/v2/images?page=2",
        "https://127.0.0.1/v2/images?page=2",
        "//evil.example/v2/images?page=2",
        "ftp://user:password@evil.example/?page=2",
    ],
)
async def test_row_47_the_next_link_of_another_host_is_read_for_its_number_and_never_followed(
    server: Server, api: ImagesAPI, link: str
) -> None:
    server.script(
        reply(page_document([1, 2], links={"pages": {"next": link}}, meta={"total": 3})),
        reply(page_document([3], links={"pages": {"prev": link}}, meta={"total": 3})),
    )
    assert await ids(api.list(per_page=2)) == [1, 2, 3]
    assert [request.target for request in server.received] == [
        "/v2/images?page=1&per_page=2",
        "/v2/images?page=2&per_page=2",
    ]


@pytest.mark.parametrize("link", ["/v2/images?page=2", "?page=2", "{url}/v2/images?per_page=2&page=2&x=1"])
async def test_a_next_link_in_another_spelling_is_read(server: Server, api: ImagesAPI, link: str) -> None:
    links = {"pages": {"next": link.replace("{url}", server.url)}}
    server.script(reply(page_document([1, 2], links=links)), reply(page_document([3])))
    assert await ids(api.list(per_page=2)) == [1, 2, 3]


# --- reading ahead ---


async def test_leaving_after_the_first_image_has_cost_one_request(server: Server, api: ImagesAPI) -> None:
    server.answer_with(listing(100))
    async with aclosing(api.list(per_page=10)) as images:
        first = await anext(images)
        assert (first.id, await settled(server)) == (1, 1)
    assert await settled(server) == 1


async def test_the_prefetch_grows_with_the_pages_read(server: Server, api: ImagesAPI) -> None:
    server.answer_with(listing(1000))
    ahead: list[int] = []
    async with aclosing(api.list_pages(per_page=10, concurrency=5)) as pages:
        for consumed in range(1, 8):
            await anext(pages)
            ahead.append(await settled(server) - consumed)
    assert ahead == [0, 2, 4, 5, 5, 5, 5]


async def test_two_pages_are_prefetched_ahead_of_the_second_one(server: Server, api: ImagesAPI) -> None:
    catalogue, blocked = listing(1000), asyncio.Event()

    async def answer(request: Received) -> Answer:
        if request.query["page"] != "1":
            await blocked.wait()
        answer = catalogue(request)
        assert isinstance(answer, Answer)
        return answer

    server.answer_with(answer)
    await api.list_page()
    server.received.clear()
    async with aclosing(api.list(per_page=10)) as images:
        for _ in range(10):
            await anext(images)
        assert await settled(server) == 1
        following = asyncio.ensure_future(anext(images))
        await eventually(lambda: len(server.received) > 1)
        await settled(server)
        assert sorted(pages_asked(server)) == [1, 2, 3, 4]
        blocked.set()
        assert (await following).id == 11


async def test_prefetch_requests_are_sent_before_the_reader_continues(server: Server) -> None:
    server.answer_with(listing(1000))
    sent: list[Event] = []
    async with (
        ImagesAPI(TOKEN, base_url=server.url, on_event=sent.append) as api,
        aclosing(api.list_pages(per_page=10, concurrency=5)) as pages,
    ):
        for _ in range(2):
            await anext(pages)
        assert await settled(server) == 4
        await anext(pages)
        # The page was there, so the reader has not waited; and from here on it might compute for a minute.
        assert sum(isinstance(event, PermitGranted) for event in sent) == 7


@pytest.mark.parametrize("concurrency", [1, 3, 4])
async def test_no_more_pages_are_in_flight_than_allowed(
    server: Server, api: ImagesAPI, concurrency: int
) -> None:
    catalogue = listing(300)
    now = most = 0
    all_under_way = asyncio.Event()

    async def answer(request: Received) -> Answer:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == concurrency + 1:
            all_under_way.set()
        if int(request.query["page"]) >= 10:
            # The look-ahead has its full width by now: on a busy machine, too, all of it is asked for.
            await asyncio.wait_for(all_under_way.wait(), 20)
        await asyncio.sleep(0.003)
        now -= 1
        answer = catalogue(request)
        assert isinstance(answer, Answer)
        return answer

    server.answer_with(answer)
    assert len(await ids(api.list(per_page=10, concurrency=concurrency))) == 300
    assert most == concurrency + 1


async def test_the_prefetch_for_a_stopped_reader_is_bounded(server: Server, api: ImagesAPI) -> None:
    server.answer_with(listing(10_000))
    async with aclosing(api.list_pages(per_page=10, concurrency=4)) as pages:
        for _ in range(20):
            await anext(pages)
        assert await settled(server) <= 24


# --- leaving ---


def strangers(server: Server, before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - before - server.tasks


@pytest.mark.parametrize("consumed", [1, 11, 31])
async def test_closing_the_generator_cancels_pages_in_flight(
    server: Server, api: ImagesAPI, consumed: int
) -> None:
    before = asyncio.all_tasks()
    server.answer_with(listing(1000))
    async with aclosing(api.list(per_page=10)) as images:
        for _ in range(consumed):
            await anext(images)
    assert not strangers(server, before)
    assert api.limiter.stats().in_flight == 0
    assert api.limiter.stats().waiting == 0


async def test_a_cancelled_reader_leaves_nothing_behind(server: Server, api: ImagesAPI) -> None:
    catalogue = listing(1000)

    async def answer(request: Received) -> Answer:
        if int(request.query["page"]) > 3:
            await asyncio.sleep(3600)
        answer = catalogue(request)
        assert isinstance(answer, Answer)
        return answer

    server.answer_with(answer)
    before = asyncio.all_tasks()
    reader = asyncio.create_task(ids(api.list(per_page=10)))
    await eventually(lambda: len(server.received) > 3)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert not strangers(server, before)
    assert api.limiter.stats().in_flight == 0
    await api.aclose()
    await eventually(lambda: server.open_connections == 0)


async def test_row_69_a_listing_that_is_simply_dropped_leaves_nothing_behind(
    server: Server, api: ImagesAPI
) -> None:
    server.answer_with(listing(1000))
    before = asyncio.all_tasks()
    async for page in api.list_pages(per_page=10):
        if page.page == 3:
            break
    gc.collect()
    await eventually(lambda: not strangers(server, before))
    await eventually(lambda: api.limiter.stats().in_flight == 0)
    await api.aclose()
    await eventually(lambda: server.open_connections == 0)


# --- errors midway ---


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("fault", [refusal(500), RESET, reply({"images": [{"id": "x"}]}), refusal(404)])
async def test_row_52_an_error_midway_says_the_page_after_the_pages_before_it(
    server: Server, api: ImagesAPI, fault: Answer, concurrency: int
) -> None:
    catalogue = listing(60)
    server.answer_with(lambda request: fault if request.query["page"] == "4" else catalogue(request))
    before = asyncio.all_tasks()
    once = api.with_options(retry=ONCE)
    seen, error = await ids_until_error(once.list(per_page=10, concurrency=concurrency))
    assert error.page == 4
    assert seen == list(range(1, 31))
    assert not strangers(server, before)


async def test_an_empty_answer_is_read_again_where_the_list_must_be_whole(
    server: Server, api: ImagesAPI
) -> None:
    """A replica that lags, or a service that restarts, may list nothing for a moment."""
    action = {"id": 1, "status": "completed", "type": "transfer", "resource_id": 7}
    one: object = {"images": [image_document(1, public=False)], "actions": [action], "meta": {"total": 1}}
    none: object = {"images": [], "actions": [], "meta": {"total": 0}}
    server.answer_with(lambda _: reply(none if len(server.received) == 1 else one))
    since = datetime.min.replace(tzinfo=UTC)
    reads: list[Callable[[], Awaitable[Sized]]] = [
        lambda: ids(api.list(strict=True)),
        api.list_whole,
        lambda: api.find_created(name="image 1", since=since),
        lambda: actions_of(api, 7),
    ]
    for read in reads:
        server.received.clear()
        assert len(await read()) == 1


async def actions_of(api: ImagesAPI, image_id: int) -> list[int]:
    return [action.id async for action in api.actions.list(image_id, strict=True)]


async def test_a_second_loop_over_a_listing_is_an_error(server: Server, api: ImagesAPI) -> None:
    server.answer_with(lambda _: reply({"images": [image_document(1)], "actions": [], "meta": {"total": 1}}))
    begin: list[Callable[[Any], object]] = [aiter, api.get_many, lambda read: (item async for item in read)]
    for read in (api.list(), api.list_pages(), api.actions.list(7)):
        assert repr(read) == "<listing that has not begun>"
        async for _ in read:
            assert repr(read) == "<listing that has begun>"
        assert repr(read) == "<listing that was read to its end or closed>"
        for again in begin:
            with pytest.raises(ValueError, match="this listing was read to its end or closed: make a new"):
                again(read)
        with pytest.raises(StopAsyncIteration):
            await anext(read)


async def test_a_loop_that_is_tried_again_after_an_error_or_a_close_is_an_error(
    server: Server, api: ImagesAPI
) -> None:
    catalogue = listing(60)
    server.answer_with(lambda request: refusal(404) if request.query["page"] == "4" else catalogue(request))
    failed, closed = api.list(per_page=10), api.list(per_page=10)
    await ids_until_error(failed)
    assert (await anext(closed)).id == 1
    async for image in closed:  # a loop that goes on where another one stopped
        assert image.id == 2
        break
    await closed.aclose()
    for images in (failed, closed):
        with pytest.raises(ValueError, match="this listing was read"):
            await ids(images)


async def test_row_52_a_listing_can_be_continued_from_the_page_that_failed(
    server: Server, api: ImagesAPI
) -> None:
    server.answer_with(listing(30))
    page = await api.list_page(page=3, per_page=10)
    assert [image.id for image in page.images] == list(range(21, 31))


async def test_a_page_with_a_passing_failure_is_retried(server: Server, api: ImagesAPI) -> None:
    catalogue = listing(60)
    failed: set[str] = set()

    def answer(request: Received) -> Any:
        page = request.query["page"]
        if page in failed:
            return catalogue(request)
        failed.add(page)
        return refusal(503)

    server.answer_with(answer)
    assert await ids(api.list(per_page=10)) == list(range(1, 61))


async def test_a_wrong_token_is_an_error_of_the_first_page(server: Server, api: ImagesAPI) -> None:
    server.script(refusal(401))
    with pytest.raises(errors.AuthenticationError) as caught:
        await ids(api.list())
    assert caught.value.page == 1


# --- arguments ---

BAD: list[tuple[dict[str, Any], type[Exception]]] = [
    *(({"per_page": value}, ValueError) for value in (0, -1, 201)),
    *(({"per_page": value}, TypeError) for value in (True, "20", 20.0, None)),
    *(({"type": value}, ValueError) for value in ("snapshot", "Distribution", "")),
    *(({"private": value}, TypeError) for value in ("true", 1, 0)),
    ({"tag_name": ""}, ValueError),
    ({"tag_name": "\ud800"}, ValueError),
    *(({"tag_name": value}, TypeError) for value in (5, b"x", ["x"])),
]
BAD_PAGE: list[tuple[dict[str, Any], type[Exception]]] = [
    *(({"page": value}, ValueError) for value in (0, -1)),
    *(({"page": value}, TypeError) for value in (True, "1", 1.0, None)),
]
BAD_CONCURRENCY: list[tuple[dict[str, Any], type[Exception]]] = [
    *(({"concurrency": value}, ValueError) for value in (0, -1)),
    *(({"concurrency": value}, TypeError) for value in (True, "4", 4.0, None)),
]


@pytest.mark.parametrize(("arguments", "kind"), BAD + BAD_PAGE)
async def test_row_51_a_page_with_bad_arguments_is_not_asked_for(
    server: Server, api: ImagesAPI, arguments: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=next(iter(arguments))):
        await api.list_page(**arguments)
    assert not server.connections


@pytest.mark.parametrize(("arguments", "kind"), BAD + BAD_CONCURRENCY)
async def test_row_51_a_listing_with_bad_arguments_sends_nothing(
    server: Server, api: ImagesAPI, arguments: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=next(iter(arguments))):
        api.list(**arguments)
    with pytest.raises(kind, match=next(iter(arguments))):
        api.list_pages(**arguments)
    assert not server.connections


@pytest.mark.parametrize("per_page", [1, 200])
async def test_the_page_sizes_at_the_bounds_are_fine(server: Server, api: ImagesAPI, per_page: int) -> None:
    server.answer_with(listing(2))
    assert await ids(api.list(per_page=per_page)) == [1, 2]


@pytest.mark.parametrize(
    "tag",
    ["a&b=c", "a#b", "a+b", "a b", "50%", "%41", "caf\u00e9", "\U0001f427", "a\0b", "a;b", "?", "\n", "x=y"],
)
async def test_tags_arrive_as_they_are(server: Server, api: ImagesAPI, tag: str) -> None:
    server.answer_with(
        lambda _: reply({"images": [image_document(1, tags=[tag])], "links": {}, "meta": {"total": 1}})
    )
    await ids(api.list(tag_name=tag, per_page=2))
    assert [request.query["tag_name"] for request in server.received] == [tag]


async def test_not_private_is_not_the_same_as_not_given(server: Server, api: ImagesAPI) -> None:
    server.answer_with(listing(1))
    await api.list_page(private=False)
    await api.list_page()
    assert [request.query.get("private") for request in server.received] == ["false", None]


async def test_a_page_beyond_the_last_is_empty(server: Server, api: ImagesAPI) -> None:
    server.answer_with(listing(3))
    page = await api.list_page(page=9)
    assert page == ImagePage(images=(), total=3, page=9)
    assert len(page) == 0
