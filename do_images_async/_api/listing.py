"""What listings share: argument checks, the query and the next page; and the filters for images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, TypedDict, TypeVar, get_args

import attrs

from do_images_async._api.pagination import LinkedPages
from do_images_async._arguments import check_bool, check_choice, check_range, check_text
from do_images_async._http.bodies import Links, Meta
from do_images_async._http.request import Reply
from do_images_async.models import RateLimit

__all__ = ["ImageFilters", "ListType", "PageFields", "check_listing", "page_fields", "page_query"]

ListType = Literal["distribution", "application"]

_MAX_PER_PAGE = 200


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
            check_choice(self.type, "type", get_args(ListType))
            query["type"] = self.type
        if self.private is not None:
            query["private"] = "true" if check_bool(self.private, "private") else "false"
        if self.tag_name is not None:
            query["tag_name"] = check_text(self.tag_name, "tag_name")
        return query


class ListBody(Protocol):
    """The body of a page without its items."""

    @property
    def links(self) -> Links | None: ...
    @property
    def meta(self) -> Meta | None: ...


B = TypeVar("B", bound=ListBody)


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


def page_query(page: object, per_page: object, filters: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the parameters of the query for one page."""
    number = check_range(page, "page", 1)
    size = check_range(per_page, "per_page", 1, _MAX_PER_PAGE)
    return {"page": str(number), "per_page": str(size), **(filters or {})}


def page_fields(reply: Reply[B], links: LinkedPages, *, count: int, page: int, per_page: int) -> PageFields:
    """Return the fields that both page classes share, for a page that holds `count` items.

    If no next link was sent, there's still a next page when this one isn't empty and the last link or the
    total says so. A server may send smaller pages than it was asked for, so this page is the last by the
    total in two cases: the earlier pages were full, and the total is the sum; or all pages are as small as
    this one, and hold the total.
    """
    meta = reply.value.meta
    total = meta.total if meta else None
    if_full, if_small = (page - 1) * per_page + count, page * count
    more = (links.last_page or 0) > page or (total is not None and total != if_full and total > if_small)
    return PageFields(
        total=total,
        rate_limit=reply.rate_limit,
        page=page,
        next_page=page + 1 if links.next_page is None and more and count else links.next_page,
    )
