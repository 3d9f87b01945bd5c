"""Page numbers to an ordered, complete stream of pages, fetched ahead of the reader."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Container
from contextlib import aclosing
from typing import Final, Generic, Protocol, Self, TypeVar

from yarl import URL

from do_images_async._api.idset import IdSet
from do_images_async._http.bodies import Links
from do_images_async.errors import DecodeError, DOImagesError, IncompleteListingError

__all__ = ["next_page_number", "read_whole"]

logger = logging.getLogger("do_images_async")

_EMPTY_PAGES: Final = 3

PASSES: Final = 4
"""How often a listing that moves is read at most, the first time included."""

STRICT_PASSES: Final = 10
"""The same where it must come to rest."""


class Page(Protocol):
    """What pagination has to know of a page."""

    @property
    def page(self) -> int: ...
    @property
    def next_page(self) -> int | None: ...
    @property
    def total(self) -> int | None: ...
    @property
    def ids(self) -> Collection[int]: ...
    def __len__(self) -> int: ...
    def without(self, ids: Container[int], /) -> Self: ...


P = TypeVar("P", bound=Page)


def next_page_number(links: Links | None, *, page: int, base_url: URL) -> int | None:
    """The number of the page that follows `page`, taken from the links; None on the last page.

    Links are never followed. One that points to another origin, or not forward, is an error all the same: a
    listing that goes on elsewhere can't be read whole.

    Raises:
        DecodeError: the link is not one that the API page describes.
    """
    link = links.pages.next if links and links.pages else None
    if link is None:
        return None
    try:
        url = base_url.join(URL(link))
        number = int(url.query["page"])
        same_origin = url.origin() == base_url.origin()
    except (ValueError, KeyError):
        raise _bad_link("is no link to a page", page) from None
    if not same_origin:
        raise _bad_link(f"leads to {url.host}, where the token must not go", page)
    if number <= page:
        raise _bad_link(f"leads back to page {number}", page)
    return number


async def read_whole(
    fetch: Callable[[int], Awaitable[P]], *, per_page: int, concurrency: int, strict: bool
) -> AsyncGenerator[P, None]:
    """Yield pages until all items have come, each item in one page only.

    Pages are offsets into a list that others change: what is deleted moves the rest forward past the reader,
    what is created moves it back. So what an earlier page has had is taken out of a page, and a pass over all
    pages that shows that the list moved is followed by another one, of which only what is new is yielded. A
    pass shows it by totals that differ, by a repeat, or by fewer items than the total. What two passes in a
    row show alike is no movement but the server's way.

    A list at rest costs one pass, one that moves up to `PASSES`; with `strict` it is two and up to
    `STRICT_PASSES`. Of the first pass every page is yielded, of the others those that hold something new.

    Args:
        fetch: reads one page, by its number from 1.
        per_page: the page size that `fetch` asks for.
        concurrency: pages that are fetched ahead of the one being read, at most.
        strict: read until a whole pass shows no movement and brings nothing new. Without, such a pass is only
            asked for when there was movement, and its absence is logged.

    Raises:
        DOImagesError: whatever `fetch` raises, with `page` set to the number of the page.
        IncompleteListingError: `strict`, and no pass was the last one; or page after page is empty.
    """
    seen = IdSet()
    before: _Pass | None = None
    for _ in range(STRICT_PASSES if strict else PASSES):
        current = _Pass(seen, first=before is None)
        pages = read_pages(fetch, per_page=per_page, concurrency=concurrency)
        async with aclosing(pages):
            async for page in pages:
                fresh = current.take(page)
                if before is None or len(fresh):
                    yield fresh
        if current.is_last(before, strict=strict):
            return
        at_rest = current.equals(before)  # and yet not whole: the total is wrong for good
        before = current
        if at_rest:
            break
    total = before.total if before else None
    if strict:
        raise IncompleteListingError(
            "reading after reading, the listing moved or was shorter than its total",
            seen=len(seen),
            total=total,
        )
    logger.warning(
        "the listing did not come to rest in %d passes and may lack images: %d read, the server counts %s",
        PASSES,
        len(seen),
        total,
    )


class _Pass:
    """One reading of all pages.

    Attributes:
        count: items on the pages, with all that were read before.
        fresh: how many of them no earlier page had.
        total: what the server says, on the last page that says so.
        moved: whether the list has changed meanwhile, by all that one can see.
        digest: stands for all that the pages held, in order.
    """

    def __init__(self, seen: IdSet, *, first: bool) -> None:
        self.count = 0
        self.fresh = 0
        self.total: int | None = None
        self.moved = False
        self.digest = 0
        self._seen = seen
        self._read = None if first else IdSet()  # what this pass has read; of the first, it is what was seen

    def take(self, page: P) -> P:
        """Count a page, and return it without what earlier pages had."""
        ids = page.ids
        known = self._seen.absorb(ids)
        repeated = known if self._read is None else self._read.absorb(ids)
        self.digest = hash((self.digest, page.page, page.total, ids))
        other_total = page.total is not None and self.total not in (None, page.total)
        self.moved = self.moved or bool(repeated) or other_total
        if page.total is not None:
            self.total = page.total
        fresh = page.without(known) if known else page
        self.count += len(page)
        self.fresh += len(fresh)
        return fresh

    def is_last(self, before: _Pass | None, *, strict: bool) -> bool:
        """Whether nothing can be seen that would be a reason for another pass."""
        short = self.total is not None and self.count < self.total
        if self.equals(before):
            return not (strict and short)
        return not (self.moved or short or (strict and self.fresh))

    def equals(self, before: _Pass | None) -> bool:
        """Whether it read just what the pass before did."""
        return before is not None and self.digest == before.digest


async def read_pages(
    fetch: Callable[[int], Awaitable[P]], *, per_page: int, concurrency: int
) -> AsyncGenerator[P, None]:
    """Yield all pages in order, each read whole before it is yielded.

    The first page costs one request and tells how many follow. Then more and more are fetched ahead of the
    page that the reader asks for: two of the second, four of the third, up to `concurrency`; leaving cancels
    them.

    Args:
        fetch: reads one page, by its number from 1.
        per_page: the page size that `fetch` asks for.
        concurrency: pages that are fetched ahead of the one being read, at most.

    Raises:
        DOImagesError: whatever `fetch` raises, with `page` set to the number of the page.
        IncompleteListingError: page after page is empty and the server still announces more.
    """
    page = await _numbered(fetch, 1)
    yield page
    ahead = _Ahead(fetch)
    seen = len(page)
    empty = 0
    width = 1
    try:
        while True:
            width = min(2 * width, concurrency)
            ahead.extend(_last_page(page, per_page), 1 + width)
            if not ahead.tasks:
                return
            # What is asked for goes out now: a reader that is busy from here on can't hold it up.
            await asyncio.sleep(0)
            page = await ahead.tasks.popleft()
            seen += len(page)
            empty = empty + 1 if page.next_page and not len(page) else 0
            if empty > _EMPTY_PAGES:
                raise IncompleteListingError(
                    f"page {page.page} is the {empty}th empty one in a row, and more are announced",
                    seen=seen,
                    total=page.total,
                )
            yield page
    finally:
        await ahead.cancel()


class _Ahead(Generic[P]):
    """The pages that are under way, in order."""

    def __init__(self, fetch: Callable[[int], Awaitable[P]]) -> None:
        self.tasks: deque[asyncio.Task[P]] = deque()
        self._fetch = fetch
        self._launched = 1

    def extend(self, last: int, width: int) -> None:
        while self._launched < last and len(self.tasks) < width:
            self._launched += 1
            self.tasks.append(asyncio.create_task(_numbered(self._fetch, self._launched)))

    async def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def _numbered(fetch: Callable[[int], Awaitable[P]], number: int) -> P:
    try:
        return await fetch(number)
    except DOImagesError as error:
        error.page = number
        raise


def _last_page(page: Page, per_page: int) -> int:
    """The last page that is known to exist, or must be looked at to know that it does not.

    The total is believed as long as pages are not empty; beyond it only a link announces more.
    """
    more = page.next_page is not None or (page.total is None and len(page) >= per_page)
    announced = page.page + 1 if more else page.page
    if page.total is None or not len(page):
        return announced
    return max(announced, -(-page.total // per_page))


def _bad_link(reason: str, page: int) -> DecodeError:
    error = DecodeError(f"the listing's next link {reason} - at `$.links.pages.next` of page {page}")
    error.page = page
    return error
