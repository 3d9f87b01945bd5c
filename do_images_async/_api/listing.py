"""Listings of one resource, by items and by pages, with their argument checks; and the filters for images."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Generic, Literal, Protocol, TypedDict, TypeVar, get_args

import attrs

from do_images_async._api.identity import check_listed
from do_images_async._api.pagination import Item, LinkedPages, Page, read_whole
from do_images_async._api.read_once import ReadOnce
from do_images_async._arguments import check_bool, check_choice, check_range, check_text
from do_images_async._http.bodies import Links, Meta
from do_images_async._http.request import Call, Options
from do_images_async._http.transport import Transport
from do_images_async.errors import WrongResourceError
from do_images_async.models import Image, RateLimit

__all__ = ["ImageFilters", "ListType", "Listing", "PageFields", "check_listing", "page_fields"]

logger = logging.getLogger("do_images_async")

ListType = Literal["distribution", "application"]

_MAX_PER_PAGE = 200

T = TypeVar("T", bound=Item)
T_co = TypeVar("T_co", bound=Item, covariant=True)


@attrs.frozen
class ImageFilters:
    """The filters that the API has for a listing of images; see `ImagesAPI.list`."""

    type: ListType | None
    private: bool | None
    tag_name: str | None

    def query(self) -> dict[str, str]:
        """Return the filters as parameters of a query.

        Raises:
            TypeError, ValueError: a filter can't be used.
        """
        query: dict[str, str] = {}
        if self.type is not None:
            query["type"] = check_choice(self.type, "type", get_args(ListType))
        if self.private is not None:
            query["private"] = "true" if check_bool(self.private, "private") else "false"
        if self.tag_name is not None:
            query["tag_name"] = check_text(self.tag_name, "tag_name")
        return query

    def check(self, image: Image) -> None:
        """Check that an image belongs to the listing; raises `WrongResourceError` as `check_listed` does."""
        check_listed(image, type=self.type, private=self.private, tag_name=self.tag_name)


class ListBody(Protocol[T_co]):
    """The body of a page."""

    @property
    def items(self) -> tuple[T_co, ...]: ...
    @property
    def links(self) -> Links | None: ...
    @property
    def meta(self) -> Meta | None: ...


@attrs.frozen(kw_only=True)
class Listing(Generic[T]):
    """A listing, whose pages are read as they are asked for.

    Attributes:
        path: the path of its pages.
        body: the class of a page's body.
        per_page: items in a page, 1 to 200.
        filters: more parameters of the query.
        check: raises an error for an item that does not belong to the listing.
        admit: raises `WrongResourceError` for an item that the filters should have left out; see `pages`.
    """

    transport: Transport
    options: Options
    path: str
    body: type[ListBody[T]]
    per_page: int
    filters: Mapping[str, str] = attrs.field(factory=dict[str, str])
    check: Callable[[T], object] | None = None
    admit: Callable[[T], object] | None = None

    def items(self, *, concurrency: int, strict: bool) -> AsyncGenerator[T, None]:
        """Yield every item once; see `read_whole`."""
        return ReadOnce(self._items(concurrency=concurrency, strict=strict), "listing")

    async def _items(self, *, concurrency: int, strict: bool) -> AsyncGenerator[T, None]:
        async with aclosing(self.pages(concurrency=concurrency, strict=strict)) as pages:
            async for page in pages:
                for item in page.items:
                    yield item

    def pages(self, *, concurrency: int, strict: bool) -> AsyncGenerator[Page[T], None]:
        """Yield every page; see `read_whole`.

        An item that the filters should have left out is an error with `strict`; otherwise the first one is
        logged as a warning. The API page has one example for all filters, and an answer like it is readable.
        """
        fetch = self.page if self.admit is None else _Filtered(self, self.admit, strict).page
        return read_whole(fetch, concurrency=concurrency, strict=strict)

    async def page(self, number: int) -> Page[T]:
        """Read one page; one request.

        Raises:
            TypeError, ValueError: the number or `per_page` can't be used.
            DOImagesError: the request failed, or a link or an item is wrong.
        """
        query = _page_query(number, self.per_page, self.filters)
        call = Call(method="GET", path=self.path, model=self.body, query=query)
        reply = await self.transport.send(call, self.options)
        body = reply.value
        links = LinkedPages.read(body.links, page=number, base_url=self.transport.base_url)
        if self.check is not None:
            for item in body.items:
                self.check(item)
        total = body.meta.total if body.meta else None
        count = len(body.items)
        return Page(
            items=body.items,
            number=number,
            total=total,
            links=links,
            full=count >= self.per_page,
            next_page=_next_page(links, total, count=count, page=number, per_page=self.per_page),
            rate_limit=reply.rate_limit,
        )


@attrs.define
class _Filtered(Generic[T]):
    """The pages of a listing, whose items are checked against its filters."""

    listing: Listing[T]
    admit: Callable[[T], object]
    strict: bool
    warned: bool = False

    async def page(self, number: int) -> Page[T]:
        page = await self.listing.page(number)
        try:
            for item in page.items:
                self.admit(item)
        except WrongResourceError as error:
            if self.strict:
                raise
            if not self.warned:
                self.warned = True
                logger.warning("the listing holds what was not asked for: %s", error)
        return page


class PageFields(TypedDict):
    """The fields that `ImagePage` and `ActionPage` share."""

    total: int | None
    rate_limit: RateLimit | None
    page: int
    next_page: int | None


def check_listing(per_page: object, concurrency: object, strict: object) -> None:
    """Check the arguments that every listing has.

    Args:
        per_page: items in a page.
        concurrency: pages that are prefetched.
        strict: whether the pages are read until one pass shows no movement and brings nothing new.

    Raises:
        TypeError, ValueError: an argument can't be used.
    """
    check_bool(strict, "strict")
    check_range(per_page, "per_page", 1, _MAX_PER_PAGE)
    check_range(concurrency, "concurrency", 1)


def _page_query(page: object, per_page: object, filters: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the parameters of the query for one page."""
    number = check_range(page, "page", 1)
    size = check_range(per_page, "per_page", 1, _MAX_PER_PAGE)
    return {"page": str(number), "per_page": str(size), **(filters or {})}


def page_fields(page: Page[T]) -> PageFields:
    """Return the fields that both public page classes share."""
    return PageFields(
        total=page.total, rate_limit=page.rate_limit, page=page.number, next_page=page.next_page
    )


def _next_page(links: LinkedPages, total: int | None, *, count: int, page: int, per_page: int) -> int | None:
    """Return the number of the page that follows one of `count` items.

    If no next link was sent, there's still a next page when this one isn't empty and the last link or the
    total says so. A server may send smaller pages than it was asked for, so this page is the last by the
    total in two cases: the earlier pages were full, and the total is the sum; or all pages are as small as
    this one, and hold the total.
    """
    if_full, if_small = (page - 1) * per_page + count, page * count
    more = (links.last_page or 0) > page or (total is not None and total != if_full and total > if_small)
    return page + 1 if links.next_page is None and more and count else links.next_page
