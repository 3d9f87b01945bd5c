"""Pagination: an ordered, complete stream of pages, with a prefetch."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Container
from contextlib import aclosing
from typing import Final, Generic, Protocol, Self, TypeVar

import attrs
from yarl import URL

from do_images_async._api.idset import IdSet
from do_images_async._http.bodies import Links
from do_images_async.errors import DecodeError, DOImagesError, IncompleteListingError
from do_images_async.models import RateLimit

__all__ = ["Item", "LinkedPages", "Page", "next_page_number", "read_whole"]

logger = logging.getLogger("do_images_async")

PASSES: Final = 4
"""The largest number of passes over a listing that moves, the first one included."""

STRICT_PASSES: Final = 10
"""The same with `strict`."""

_STALLED_PAGES: Final = 3
"""Pages in a row that may bring nothing new while the total is constant; after more, the listing fails."""

_STALLED_PAGES_MOVING: Final = 12
"""The same while the total changes from page to page: the list may grow as fast as it is read."""

_MOST_TOTALS: Final = 10
"""The listing fails when its pages hold more than so many times its total: perhaps they never end."""

_MAY_LACK: Final = "the listing %s and may lack items: %d read, the server counts %s"


class Item(Protocol):
    """What a listing lists, such as an image or an action, as pagination uses it."""

    @property
    def id(self) -> int | str: ...


T = TypeVar("T", bound=Item)


@attrs.frozen(kw_only=True)
class LinkedPages:
    """The page numbers in the links of a page.

    Attributes:
        next_page: the number of the page that the link `next` leads to.
        last_page: the same of `last`: there are at least so many pages.
        sent: whether there were links at all; without, a page does not say that it is the last.
    """

    next_page: int | None
    last_page: int | None
    sent: bool

    @classmethod
    def read(cls, links: Links | None, *, page: int, base_url: URL) -> Self:
        """Read the links of page number `page`; raises `DecodeError` as `next_page_number` does."""
        return cls(
            next_page=next_page_number(links, page=page, base_url=base_url),
            last_page=_last_page_number(links, base_url=base_url),
            sent=links is not None,
        )


@attrs.frozen(kw_only=True)
class Page(Generic[T]):
    """A page of a listing, with what else its response says.

    Attributes:
        items: the page's items, in the server's order.
        number: this page's number, from 1.
        total: items in the whole listing, as the server counts them; None when it does not say.
        links: what its links say.
        full: whether it held as many items as were asked for.
        next_page: the following page's number; None on the last.
        rate_limit: the quota that came with the page.
    """

    items: tuple[T, ...]
    number: int
    total: int | None
    links: LinkedPages
    full: bool
    next_page: int | None = None
    rate_limit: RateLimit | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ids(self) -> Collection[int | str]:
        """Return the ids of the items, in the same order."""
        return tuple([item.id for item in self.items])

    def without(self, ids: Container[int | str]) -> Self:
        """Return the page without the items that have these ids."""
        return attrs.evolve(self, items=tuple([item for item in self.items if item.id not in ids]))

    def each_once(self) -> Self:
        """Return the page without the items that it repeats.

        Raises:
            IncompleteListingError: two items have the same id but differ; `seen` is the number before them.
        """
        by_id: dict[int | str, T] = {}
        for item in self.items:
            if by_id.setdefault(item.id, item) != item:
                raise IncompleteListingError(
                    f"page {self.number} lists the id {item.id} twice, and not the same",
                    seen=len(by_id),
                    total=self.total,
                )
        return attrs.evolve(self, items=tuple(by_id.values()))


def next_page_number(links: Links | None, *, page: int, base_url: URL) -> int | None:
    """Return the number of the page that follows `page`, read from the links; None on the last page.

    Links are never followed, so the host does not matter: behind a gateway, or in a recording, it is another
    one. A link that does not point forward is an error: a listing that goes in circles can't be read whole.

    Raises:
        DecodeError: the link is not one that the API page describes.
    """
    link = links.pages.next if links and links.pages else None
    if link is None:
        return None
    number = _number_in(link, base_url)
    if number is None:
        raise _bad_link("is no link to a page", page)
    if number <= page:
        raise _bad_link(f"leads back to page {number}", page)
    return number


def _last_page_number(links: Links | None, *, base_url: URL) -> int | None:
    """Return the number of the page that the link `last` leads to; None when there is none to be read."""
    link = links.pages.last if links and links.pages else None
    return None if link is None else _number_in(link, base_url)


def _number_in(link: str, base_url: URL) -> int | None:
    try:
        return int(base_url.join(URL(link)).query["page"])
    except (ValueError, KeyError):
        return None


async def read_whole(
    fetch: Callable[[int], Awaitable[Page[T]]], *, concurrency: int, strict: bool
) -> AsyncGenerator[Page[T], None]:
    """Yield pages until all items have come, each item in one page only.

    Pages are offsets into a list that others change: after a deletion, later items move to an earlier page
    that may have been read already; after a creation, items move to a later page and come twice. So an item
    that an earlier page had is taken out of a page. If a pass over all pages shows that the list moved,
    another pass follows, of which only new items are yielded. A pass shows it by totals that differ, by a
    repeated item, or by fewer different items than the total; without a total, by a page that is smaller than
    another although more follow. Two passes that read the same show that the list is at rest; if it is still
    shorter than the largest total, or, without a total, repeats items or has such a page, that is an error
    with `strict`, and otherwise a warning.

    A list at rest costs one pass, one that moves up to `PASSES`; with `strict` it is two and up to
    `STRICT_PASSES`. A server that sends no links does not say which page is the last: one page more is read
    unless a total shows the end, with `strict` also after a full page. Every page of the first pass is
    yielded, and of later passes each page that holds something new.

    Args:
        fetch: reads the page with this number; the first is 1.
        concurrency: pages that are prefetched ahead of the one being read, at most.
        strict: read until a whole pass shows no movement and brings nothing new. Otherwise such a pass is
            needed only after movement; if none comes, a warning is logged. What one page repeats is then
            kept, and a warning is logged if the total counts it.

    Raises:
        DOImagesError: whatever `fetch` raises, with `page` set to the number of the page.
        IncompleteListingError: `strict`, and no pass was the last one, or a page holds two different items of
            one id; or page after page brings nothing new, or far more than the total.
    """
    seen = IdSet()
    before: _Pass | None = None
    at_rest = False
    for _ in range(STRICT_PASSES if strict else PASSES):
        current = _Pass(seen, first=before is None, strict=strict)
        pages = _read_pages(fetch, current, concurrency=concurrency)
        async with aclosing(pages):
            async for page in pages:
                if before is None or len(page):
                    yield page
        if current.is_last(before, strict=strict):
            if current.lacks_items:
                logger.warning(_MAY_LACK, "repeats items on a page", len(seen), current.total)
            return
        at_rest = current.equals(before)  # although its pages hold less than its total
        before = current
        if at_rest:
            break
    total = before.total if before else None
    if strict:
        raise IncompleteListingError(
            "reading after reading, the listing moved, repeated pages, had gaps or was shorter than its "
            "total",
            seen=len(seen),
            total=total,
        )
    reason = (
        "repeats pages, has gaps or is shorter than its total"
        if at_rest
        else f"did not come to rest in {PASSES} passes"
    )
    logger.warning(_MAY_LACK, reason, len(seen), total)


class _Pass:
    """One pass over all pages: the items that it brought, and the last page to read.

    Attributes:
        total: the largest total that a page said; None if none did.
        digest: a hash of all that the pages held, in order.
        last_page: the number of the last page to read: it exists, or must be read to know that it does not.
    """

    def __init__(self, seen: IdSet, *, first: bool, strict: bool) -> None:
        self.total: int | None = None
        self._latest_total: int | None = None
        self.digest = 0
        self.last_page = 1
        self._seen = seen
        self._strict = strict
        self._read = None if first else IdSet()  # the ids of this pass; in the first, they are those seen
        self._held = 0  # items on its pages, without those of earlier pages
        self._distinct = 0  # the same, without what a page itself repeats
        self._fresh = 0  # items that no pass before had
        self._page_size = 0  # of the first page; less than was asked for where the server caps it
        self._smallest, self._largest = math.inf, 0  # items on a page
        self._has_gap = False  # whether a page was smaller than another although a later one held items
        self._has_links = False
        self._linked = False  # whether a page had a link to a later one
        self._moved = False
        self._repeats = False  # whether a page held an item of an earlier one
        self._repeats_a_page = False  # whether a page held nothing else
        self._stalled = self._stalled_at_rest = 0

    def take(self, page: Page[T]) -> Page[T]:
        """Count a page, and return it without the items that earlier pages had.

        With `strict`, what the page itself repeats is taken out as well.

        Raises:
            IncompleteListingError: too many pages in a row brought nothing new, or the pages hold far more
                than the total, and more are announced; or, `strict`, two items of the page have the same id
                but differ.
        """
        ids = page.ids
        distinct = len(set(ids))
        known = self._seen.absorb(ids)
        repeated = known if self._read is None else self._read.absorb(ids)
        self.digest = hash((self.digest, page.number, page.total, ids))
        moved_now = page.total is not None and self._latest_total not in (None, page.total)
        self._repeats = self._repeats or bool(repeated)
        self._moved = self._moved or bool(repeated) or moved_now
        if page.total is not None:
            self._latest_total = page.total
            self.total = page.total if self.total is None else max(self.total, page.total)
        fresh = page.without(known) if known else page
        if self._strict and distinct < len(page):
            fresh = fresh.each_once()
        self._fresh += len(fresh)
        new = distinct - len(repeated)
        self._repeats_a_page = self._repeats_a_page or (len(page) > 0 and not new)
        self._held += len(page.without(repeated)) if repeated else len(page)
        self._distinct += new
        self._page_size = self._page_size or len(page)
        self._look_for_a_gap(page)
        links = page.links
        self._has_links = self._has_links or links.sent
        self._linked = self._linked or links.next_page is not None or (links.last_page or 0) > page.number
        self.last_page = self._known_last_page(page, new=new)
        self._check_progress(page, new=new, moved_now=moved_now)
        return fresh

    def is_last(self, before: _Pass | None, *, strict: bool) -> bool:
        """Return whether no reason for another pass is known."""
        if self._is_short():
            return False
        unproved = strict and (before is None or self._fresh)
        return self.equals(before) or not (self._moved or unproved)

    def equals(self, before: _Pass | None) -> bool:
        """Return whether it read the same as the pass before."""
        return before is not None and self.digest == before.digest

    def _is_short(self) -> bool:
        """Return whether the pages may hold less than the listing.

        A total counts items that differ: an item that comes twice stands where another may be missing. On one
        page it is the server's way (the API page's own example does so), and counts only with `strict`. Of
        totals that differ the largest counts: two passes in which they differ alike show no rest. If the
        total is missing or too small, so does a repeated item; and a page that is smaller than another,
        although more follow, shows that a part may be missing. A page that only repeats others stands where
        another may be, whatever the total is.
        """
        if self._repeats_a_page:
            return True
        if self.total is None or self.total < self._distinct:
            return self._repeats or self._has_gap
        return (self._distinct if self._strict else self._held) < self.total

    @property
    def lacks_items(self) -> bool:
        """Return whether it brought fewer different items than its total."""
        return self.total is not None and self._distinct < self.total

    def _look_for_a_gap(self, page: Page[T]) -> None:
        if len(page):
            self._largest = max(self._largest, len(page))
            self._has_gap = self._has_gap or self._smallest < self._largest
        self._smallest = min(self._smallest, len(page))

    def _known_last_page(self, page: Page[T], *, new: int) -> int:
        """Return the number of the last page to read, as far as is known after this page.

        A next link is always believed. The total and the last link are believed until a page is empty, and
        the total until the pages have held more different items than it says. If none of these is there, a
        page that is as full as the first one is not the last.
        """
        announced = page.number if page.links.next_page is None else page.number + 1
        if not len(page):
            return announced
        announced = max(announced, page.links.last_page or 0)
        full = len(page) >= self._page_size
        total = self._latest_total
        if total is None or total < self._distinct:
            more = full and not self._linked
        else:
            more = self._held < total or (self._distinct < total and page.full and not self._has_links)
            announced = max(announced, -(-total // self._page_size))
        if more or (new and not self._proves_its_end(page)):
            announced = max(announced, page.number + 1)
        return announced

    def _proves_its_end(self, page: Page[T]) -> bool:
        """Return whether this page, which announces no other, is certain to be the last.

        It is if the server sends links, or a total that agrees with what was read. Without links, the total
        of a full page may be the page's own count.
        """
        if self._has_links:
            return True
        total = self._latest_total
        if total is None or total < self._distinct:
            return False
        return not page.full or not (self._strict or total == len(page))

    def _check_progress(self, page: Page[T], *, new: int, moved_now: bool) -> None:
        # A total that is no larger than a page may be that page's own count.
        total = self.total or 0
        if total > self._largest and self._distinct > _MOST_TOTALS * total and self.last_page > page.number:
            raise IncompleteListingError(
                f"the pages hold more than {_MOST_TOTALS} times the total, and more are announced",
                seen=len(self._seen),
                total=self.total,
            )
        if new:
            self._stalled = self._stalled_at_rest = 0
            return
        self._stalled += 1
        self._stalled_at_rest = 0 if moved_now and len(page) else self._stalled_at_rest + 1
        if self.last_page <= page.number:
            return
        if self._stalled_at_rest > _STALLED_PAGES or self._stalled > _STALLED_PAGES_MOVING:
            raise IncompleteListingError(
                f"pages {page.number - self._stalled + 1} to {page.number} brought nothing new, "
                "and more are announced",
                seen=len(self._seen),
                total=self.total,
            )


async def _read_pages(
    fetch: Callable[[int], Awaitable[Page[T]]], current: _Pass, *, concurrency: int
) -> AsyncGenerator[Page[T], None]:
    """Yield all pages of a pass in order, each read whole, without what earlier pages had.

    The first page costs one request and tells how many follow. Then pages are prefetched ahead of the one
    that the reader asks for: two ahead of the second page, four ahead of the third, up to `concurrency`. If
    the reader leaves, they are cancelled.
    """
    yield current.take(await _numbered(fetch, 1))
    prefetch = _Prefetch(fetch)
    width = 1
    try:
        while True:
            width = min(2 * width, concurrency)
            prefetch.extend(current.last_page, 1 + width)
            if not prefetch.tasks:
                return
            # Send the requests now: a reader that blocks the loop from here on must not delay them.
            await asyncio.sleep(0)
            yield current.take(await prefetch.tasks.popleft())
    finally:
        await prefetch.cancel()


class _Prefetch(Generic[T]):
    """The pages that are in flight, in order."""

    def __init__(self, fetch: Callable[[int], Awaitable[Page[T]]]) -> None:
        self.tasks: deque[asyncio.Task[Page[T]]] = deque()
        self._fetch = fetch
        self._launched = 1

    def extend(self, last: int, width: int) -> None:
        """Start to fetch pages up to number `last`, until `width` are in flight."""
        while self._launched < last and len(self.tasks) < width:
            self._launched += 1
            self.tasks.append(asyncio.create_task(_numbered(self._fetch, self._launched)))

    async def cancel(self) -> None:
        """Cancel the pages in flight, and wait until they have ended."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def _numbered(fetch: Callable[[int], Awaitable[Page[T]]], number: int) -> Page[T]:
    try:
        return await fetch(number)
    except DOImagesError as error:
        error.page = number
        raise


def _bad_link(reason: str, page: int) -> DecodeError:
    error = DecodeError(f"the listing's next link {reason} - at `$.links.pages.next` of page {page}")
    error.page = page
    return error
