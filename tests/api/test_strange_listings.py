"""Listings from servers that cap, repeat and miscount: never silently incomplete, never endless."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Literal

import attrs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from do_images_async import ImagePage, ImagesAPI, errors
from tests.conftest import TOKEN
from tests.support.servers import Answer, Received, Server, image_document, reply
from tests.support.slow import examples, fewer

LAWS = settings(derandomize=True, deadline=None, database=None, max_examples=examples(100))
Links = Literal["next", "none", "empty", "counting"]


@attrs.frozen
class Strange:
    """A server of `count` images that does not follow the API page.

    Attributes:
        count: how many images there are.
        cap: the largest page that it gives, whatever was asked for.
        total: what it counts; None to say nothing.
        links: right ones, none at all, an empty object, or a next link on every page.
        ignores_page: every page is the first one.
        clamps_page: beyond the last page, the last one is repeated.
        overlap: how many images of the page before each page begins with.
        ties: the order of even pages is the reverse of that of odd ones, as of a sort key that all share.
        empty_from: pages from this number on are empty.
    """

    count: int
    cap: int = 200
    total: int | None = None
    links: Links = "none"
    ignores_page: bool = False
    clamps_page: bool = False
    overlap: int = 0
    ties: bool = False
    empty_from: int | None = None

    def __call__(self, request: Received) -> Answer:
        asked = int(request.query["page"])
        size = min(int(request.query["per_page"]), self.cap)
        step = max(1, size - self.overlap)
        pages = max(1, 1 + -(-(self.count - size) // step))
        page = 1 if self.ignores_page else min(asked, pages) if self.clamps_page else asked
        start = (page - 1) * step
        order = range(self.count)[::-1] if self.ties and page % 2 == 0 else range(self.count)
        numbers = order[start : start + size]
        if self.empty_from is not None and page >= self.empty_from:
            numbers = range(0)
        document: dict[str, Any] = {"images": [image_document(1 + number) for number in numbers]}
        if self.links != "none":
            more = self.links == "counting" or (self.links == "next" and asked < pages)
            link = f"https://api.digitalocean.com/v2/images?page={asked + 1}"
            document["links"] = {"pages": {"next": link} if more else {}}
        if self.total is not None:
            document["meta"] = {"total": self.total}
        return reply(document)


@attrs.define
class Reading:
    """The result of a listing."""

    ids: list[int]
    warnings: list[str]
    error: errors.DOImagesError | None
    requests: int

    def says_so(self, total: int | None) -> bool:
        """Return whether an error or a warning has both counts."""
        counts = (len(set(self.ids)), total)
        if isinstance(self.error, errors.IncompleteListingError):
            return (self.error.seen, self.error.total) == counts
        return [f"{counts[0]} read, the server counts {counts[1]}" in text for text in self.warnings] == [
            True
        ]


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


async def read(
    strange: Callable[[Received], Answer], *, strict: bool = False, per_page: int = 200, concurrency: int = 4
) -> Reading:
    handler = _Warnings()
    logger = logging.getLogger("do_images_async")
    logger.addHandler(handler)
    found: list[int] = []
    error: errors.DOImagesError | None = None
    try:
        async with Server().running() as server, ImagesAPI(TOKEN, base_url=server.url) as api:
            server.answer_with(strange)
            try:
                async for image in api.list(per_page=per_page, strict=strict, concurrency=concurrency):
                    found.append(image.id)  # noqa: PERF401  (what came before an error counts)
            except errors.DOImagesError as raised:
                error = raised
            return Reading(found, handler.texts, error, len(server.received))
    finally:
        logger.removeHandler(handler)


IGNORING = {
    "a huge total": Strange(1000, total=10**6, ignores_page=True),
    "a total of more pages than are believed to repeat": Strange(1000, total=1000, ignores_page=True),
    "a total of three pages": Strange(1000, total=500, ignores_page=True),
    "no meta": Strange(1000, ignores_page=True),
    "a next link that counts up": Strange(1000, ignores_page=True, links="counting"),
    "both": Strange(1000, total=10**9, ignores_page=True, links="counting"),
    "empty pages": Strange(1000, total=10**9, links="counting", empty_from=2),
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("strange", IGNORING.values(), ids=IGNORING.keys())
async def test_row_75_a_server_that_ignores_the_page_is_an_error(strange: Strange, strict: bool) -> None:
    reading = await read(strange, strict=strict)
    assert isinstance(reading.error, errors.IncompleteListingError)
    assert reading.says_so(strange.total)
    assert reading.ids == list(range(1, 201))
    assert reading.requests <= 10


@pytest.mark.parametrize("links", ["next", "none", "empty"])
@pytest.mark.parametrize("cap", [1, 7, 20, 99])
async def test_row_76_a_server_that_caps_its_pages_is_read_to_its_total(cap: int, links: Links) -> None:
    reading = await read(Strange(100, cap=cap, total=100, links=links))
    assert reading.ids == list(range(1, 101))
    assert not reading.warnings
    assert not reading.error
    assert reading.requests == -(-100 // cap), "one request a page, as from a server that gives what is asked"


@pytest.mark.parametrize("links", ["none", "empty"])
async def test_row_76_pages_that_are_capped_without_a_total_end_with_an_empty_one(links: Links) -> None:
    reading = await read(Strange(300, cap=100, links=links))
    assert reading.ids == list(range(1, 301))
    assert not reading.error


EMPTY_AFTER_ONE = Strange(1000, total=500, empty_from=2)
TOO_LARGE = [
    EMPTY_AFTER_ONE,
    Strange(300, total=301),
    Strange(300, total=10**9, links="next"),
    Strange(300, total=500, cap=100, links="empty"),
    Strange(0, total=3),
]


@pytest.mark.parametrize("strange", TOO_LARGE)
async def test_row_77_a_total_that_the_pages_do_not_reach_is_reported(strange: Strange) -> None:
    reading = await read(strange)
    assert reading.says_so(strange.total)
    assert len(reading.warnings) == 1
    assert reading.requests <= 20
    strict = await read(strange, strict=True)
    assert isinstance(strict.error, errors.IncompleteListingError)
    assert strict.says_so(strange.total)
    assert strict.ids == reading.ids
    assert strict.requests <= 20


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("links", ["next", "none", "empty"])
@pytest.mark.parametrize("total", fewer([0, 199, -5, 3, 5], 3))
async def test_row_78_a_total_below_what_a_page_held_counts_as_absent(
    total: int, links: Links, strict: bool
) -> None:
    reading = await read(Strange(600, total=total, links=links), strict=strict)
    assert reading.ids == list(range(1, 601))
    assert not reading.error
    assert not reading.warnings


@pytest.mark.parametrize(
    ("links", "strict"), [("none", True), ("next", True), ("next", False), ("counting", False)]
)
async def test_pages_that_never_end_are_an_error_at_ten_times_the_total(links: Links, strict: bool) -> None:
    reading = await read(Strange(10**6, total=20, links=links), per_page=4, strict=strict)
    assert isinstance(reading.error, errors.IncompleteListingError)
    assert reading.error.total == 20
    assert len(reading.ids) == 200
    assert reading.requests <= 51 + 4


async def test_windows_that_overlap_are_read_to_the_last_image() -> None:
    reading = await read(Strange(50, cap=10, total=50, overlap=5), per_page=10)
    assert reading.ids == list(range(1, 51))
    assert not reading.error


# --- images that come twice ---


@attrs.frozen
class Pages:
    """A server that always gives these pages, and empty ones behind them; `last` is a link's number."""

    pages: list[list[int]]
    total: int | None
    last: int | None = None
    has_links: bool = True

    def __call__(self, request: Received) -> Answer:
        number = int(request.query["page"])
        ids = self.pages[number - 1] if number <= len(self.pages) else []
        images = [image_document(image_id) for image_id in ids]
        pages = (
            {} if self.last is None else {"last": f"https://api.digitalocean.com/v2/images?page={self.last}"}
        )
        links = {"links": {"pages": pages}} if self.has_links else {}
        return reply({"images": images, "meta": {"total": self.total}} | links)


TWICE = {
    "a sort key with ties": Strange(8, total=8, ties=True),
    "the same with next links": Strange(8, total=8, ties=True, links="next"),
    "one image": Pages([[1, 2, 3], [3, 4]], total=5),
    "most of a page": Pages([[1, 2, 3], [2, 3, 4], [7]], total=7),
    "no total": Pages([[1, 2, 3], [3, 4]], total=None),
    "a total that is too small": Pages([[1, 2, 3], [3, 4]], total=2),
    "the same page again": Pages([[1, 2, 3], [1, 2, 3]], total=3, last=2),
    "on one page": Pages([[1, 1]], total=2),
    "on the last page": Pages([[1, 2, 3], [4, 4]], total=5),
    "on one page and on two": Pages([[8, 8, 7], [7, 6]], total=5),
}


@pytest.mark.parametrize("strange", TWICE.values(), ids=TWICE.keys())
async def test_an_image_that_comes_twice_does_not_make_up_for_one_that_is_missing(
    strange: Strange | Pages,
) -> None:
    """Every reading is the same, so that no movement explains it."""
    reading = await read(strange, per_page=3)
    assert reading.says_so(strange.total)
    assert not reading.error
    strict = await read(strange, per_page=3, strict=True)
    assert isinstance(strict.error, errors.IncompleteListingError)
    assert strict.says_so(strange.total)
    assert strict.ids == list(dict.fromkeys(reading.ids))
    once = len(set(reading.ids)) < len(reading.ids) == strange.total
    assert strict.requests == reading.requests * (1 + once), "no page tells more when it is read again"


@pytest.mark.parametrize("strict", [False, True])
async def test_rows_that_come_twice_are_read_to_the_last_one(strict: bool) -> None:
    """A query that joins tables gives some images twice, and its total may count each once."""
    reading = await read(
        Pages([[5, 6, 6], [7, 8, 8], [9]], total=5, has_links=False), per_page=3, strict=strict
    )
    assert sorted(set(reading.ids)) == [5, 6, 7, 8, 9]
    assert not reading.error
    assert not reading.warnings
    assert reading.requests == 3 * (1 + strict)


READERS: dict[str, Callable[[ImagesAPI], Awaitable[object]]] = {
    "list_whole": lambda api: api.list_whole(),
    "latest": lambda api: api.latest(),
    "find_created": lambda api: api.find_created(name="golden", since=datetime(2020, 1, 1, tzinfo=UTC)),
}


@pytest.mark.parametrize("call", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("strange", [Strange(500, total=500, ties=True), Pages([[1, 1]], total=2)])
async def test_nothing_is_concluded_from_a_list_that_lacks_an_image(
    server: Server,
    api: ImagesAPI,
    strange: Strange | Pages,
    call: Callable[[ImagesAPI], Awaitable[object]],
) -> None:
    server.answer_with(strange)
    with pytest.raises(errors.IncompleteListingError):
        await call(api)


# --- the law ---


@st.composite
def strange_servers(draw: st.DrawFn) -> Strange:
    """Draw a server whose total or links show when images are missing."""
    count = draw(st.integers(0, 40))
    first = min(count, draw(st.integers(1, 12)))
    total = draw(
        st.none() | st.just(count) | st.integers(count, 200) | st.integers(-5, max(-5, min(first, count) - 1))
    )
    return Strange(
        count,
        cap=max(1, first),
        total=total,
        links=draw(st.sampled_from(["next", "none", "empty", "counting"])),
        ignores_page=draw(st.booleans()),
        clamps_page=draw(st.booleans()),
        overlap=draw(st.integers(0, 3)),
        ties=draw(st.booleans()),
        empty_from=draw(st.none() | st.integers(2, 5)) if total == count else None,
    )


@LAWS
@given(
    strange=strange_servers(),
    per_page=st.integers(1, 12),
    concurrency=st.sampled_from([1, 4]),
    strict=st.booleans(),
)
def test_a_listing_is_never_silently_short_and_always_ends(
    strange: Strange, per_page: int, concurrency: int, strict: bool
) -> None:
    # A total that is too small, but not smaller than the first page, can vouch for a part of the list.
    assume(strange.total is None or not min(strange.cap, per_page) <= strange.total < strange.count)
    reading = asyncio.run(read(strange, strict=strict, per_page=per_page, concurrency=concurrency))
    assert len(reading.ids) == len(set(reading.ids))
    ids = sorted(reading.ids) if strange.ties else reading.ids
    whole = ids == list(range(1, strange.count + 1))
    assert whole or reading.error or reading.warnings
    if strict:
        assert whole or reading.error
    pages = -(-strange.count // max(1, min(strange.cap, per_page) - strange.overlap))
    passes = 10 if strict else 4
    assert reading.requests <= passes * (pages + 14 + concurrency)


async def follow_next_page(api: ImagesAPI, *, per_page: int) -> list[ImagePage]:
    """Read page after page by `next_page`, as a caller of `list_page` does."""
    pages = [await api.list_page(per_page=per_page)]
    while (number := pages[-1].next_page) is not None:
        pages.append(await api.list_page(page=number, per_page=per_page))
    return pages


LAST = {"pages": {"last": "https://api.digitalocean.com/v2/images?page=3"}}
UNDERSTATED: dict[str, Callable[[int, int], dict[str, object]]] = {
    "a last link is a lower bound": lambda _, __: {"links": LAST, "meta": {"total": 200}},
    "a last link without a total": lambda _, __: {"links": LAST},
    "neither links nor a total": lambda _, __: {},
    "the total is the page's own": lambda _, count: {"meta": {"total": count}},
}


def pages_of(*sizes: int, said: Callable[[int, int], dict[str, object]]) -> Callable[[Received], Answer]:
    """Return a server of pages of these sizes that says this of a page by its number and size."""

    def answer(request: Received) -> Answer:
        page = int(request.query["page"])
        numbers = range(200 * (page - 1), 200 * (page - 1) + (sizes[page - 1] if page <= len(sizes) else 0))
        images = [image_document(1 + number) for number in numbers]
        return reply({"images": images} | said(page, len(images)))

    return answer


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("said", UNDERSTATED.values(), ids=UNDERSTATED.keys())
async def test_a_listing_that_says_too_little_is_read_to_its_end(
    said: Callable[[int, int], dict[str, object]], strict: bool
) -> None:
    reading = await read(pages_of(200, 200, 50, said=said), strict=strict)
    assert len(reading.ids) == 450
    assert not reading.error
    assert not reading.warnings


@pytest.mark.parametrize("sizes", [(200, 199, 50), (200, 0, 50), (7, 200, 50), (200, 7, 0, 200)], ids=str)
@pytest.mark.parametrize("said", UNDERSTATED.values(), ids=UNDERSTATED.keys())
async def test_where_no_total_vouches_for_it_a_page_smaller_than_a_later_one_is_a_gap(
    said: Callable[[int, int], dict[str, object]], sizes: tuple[int, ...]
) -> None:
    """Pages but the last are equally large: what a smaller one lacks may be what the listing lacks."""

    def linked(page: int, count: int) -> dict[str, object]:
        more = (
            {"next": f"https://api.digitalocean.com/v2/images?page={page + 1}"} if page < len(sizes) else {}
        )
        return said(page, count) | {"links": {"pages": more}}

    reading = await read(pages_of(*sizes, said=linked))
    assert len(reading.ids) == sum(sizes)
    assert [f"{sum(sizes)} read" in text for text in reading.warnings] == [True]
    strict = await read(pages_of(*sizes, said=linked), strict=True)
    assert strict.ids == reading.ids
    assert isinstance(strict.error, errors.IncompleteListingError)


@pytest.mark.parametrize(
    ("sizes", "totals"),
    [
        ((200, 100, 100), (500, 400, 400)),
        ((200, 100, 100), (500, 100, 100)),
        ((200, 100, 100), (400, 500, 400)),
        ((200, 200, 50), (450, 450, 451)),
        ((200, 0, 0), (500, 200, 200)),
    ],
    ids=str,
)
async def test_totals_that_differ_alike_in_every_reading_show_no_rest(
    sizes: tuple[int, ...], totals: tuple[int, ...]
) -> None:
    """A replica that lags behind: of totals that contradict each other, none may vouch for the listing."""
    server = pages_of(*sizes, said=lambda page, _: {"meta": {"total": [*totals, totals[-1]][page - 1]}})
    reading = await read(server)
    assert len(reading.ids) == sum(sizes)
    assert reading.says_so(max(totals))
    strict = await read(server, strict=True)
    assert isinstance(strict.error, errors.IncompleteListingError)
    assert strict.says_so(max(totals))
    assert strict.ids == reading.ids


@pytest.mark.parametrize("links", ["none", "empty", "next"])
async def test_next_page_leads_to_the_end_with_and_without_links(
    server: Server, api: ImagesAPI, links: Links
) -> None:
    server.answer_with(Strange(45, total=45, links=links))
    assert [len(page) for page in await follow_next_page(api, per_page=20)] == [20, 20, 5]
    assert (await api.list_page(page=9)).next_page is None
    assert [page.next_page async for page in api.list_pages(per_page=20)] == [2, 3, None]


@pytest.mark.parametrize(("count", "sizes"), [(250, [100, 100, 50, 0]), (200, [100, 100]), (70, [70])])
@pytest.mark.parametrize("links", ["none", "empty"])
async def test_next_page_leads_to_the_end_of_pages_that_are_smaller_than_asked_for(
    server: Server, api: ImagesAPI, links: Links, count: int, sizes: list[int]
) -> None:
    server.answer_with(Strange(count, cap=100, total=count, links=links))
    pages = await follow_next_page(api, per_page=200)
    assert [len(page) for page in pages] == sizes
    assert [id_ for page in pages for id_ in page.ids] == list(range(1, count + 1))


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 400, 450])
@pytest.mark.parametrize("links", ["none", "empty", "next"])
async def test_following_next_page_costs_no_request_too_many(
    server: Server, api: ImagesAPI, links: Links, count: int
) -> None:
    server.answer_with(Strange(count, total=count, links=links))
    assert len(await follow_next_page(api, per_page=200)) == max(1, -(-count // 200))
