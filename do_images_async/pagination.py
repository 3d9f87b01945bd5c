"""Page numbers to an ordered, complete stream of pages, fetched ahead of the reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from yarl import URL

from do_images_async.errors import DecodeError, DOImagesError, IncompleteListingError
from do_images_async.models import Links

__all__ = ["next_page_number", "read_pages"]

_EMPTY_PAGES = 3


class Page(Protocol):
    """What pagination has to know of a page."""

    @property
    def page(self) -> int: ...
    @property
    def next_page(self) -> int | None: ...
    @property
    def total(self) -> int | None: ...
    def __len__(self) -> int: ...


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


async def read_pages(
    fetch: Callable[[int], Awaitable[P]], *, per_page: int, concurrency: int
) -> AsyncGenerator[P, None]:
    """Yield all pages in order, each read whole before it is yielded.

    The first page costs one request and tells how many follow. From then on pages are fetched ahead, twice as
    many with every page that is consumed, up to `concurrency`; leaving cancels what is under way.

    Args:
        fetch: reads one page, by its number from 1.
        per_page: the page size that `fetch` asks for.
        concurrency: pages under way or waiting to be consumed, at most.

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
            ahead.extend(_last_page(page, per_page), width)
            if not ahead.tasks:
                return
            page = await ahead.tasks.popleft()
            width = min(2 * width, concurrency)
            ahead.extend(_last_page(page, per_page), width)
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
