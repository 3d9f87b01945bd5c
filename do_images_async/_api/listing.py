"""Filters of a listing, and a page's position in it, for images and actions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, TypedDict, TypeVar

import attrs

from do_images_async._api.pagination import LinkedPages
from do_images_async._arguments import check_bool, check_range, check_text, shown
from do_images_async._http.bodies import Links, Meta
from do_images_async._http.request import Reply
from do_images_async.models import RateLimit

__all__ = ["ImageFilters", "ListType", "PagePosition", "check_listing", "page_position", "page_query"]

ListType = Literal["distribution", "application"]

_LARGEST_PAGE = 200


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
            if self.type not in ("distribution", "application"):
                raise ValueError(f"type must be 'distribution' or 'application', not {shown(self.type)}")
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


class PagePosition(TypedDict):
    """The fields that `ImagePage` and `ActionPage` share."""

    total: int | None
    rate_limit: RateLimit | None
    page: int
    next_page: int | None


def check_listing(per_page: object, concurrency: object, strict: object) -> None:
    """Check the arguments that every listing has."""
    check_bool(strict, "strict")
    check_range(per_page, "per_page", 1, _LARGEST_PAGE)
    check_range(concurrency, "concurrency", 1)


def page_query(page: object, per_page: object, filters: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the parameters of the query for one page."""
    number = check_range(page, "page", 1)
    size = check_range(per_page, "per_page", 1, _LARGEST_PAGE)
    return {"page": str(number), "per_page": str(size), **(filters or {})}


def page_position(
    reply: Reply[B], links: LinkedPages, *, count: int, page: int, per_page: int
) -> PagePosition:
    """Return the position in its listing of a page of `count` items.

    Without a link to the next page, there is one if the last link or the total says so.
    """
    meta = reply.value.meta
    total = meta.total if meta else None
    read = (page - 1) * per_page + count
    more = count > 0 and ((links.last_page or 0) > page or (total is not None and total > read))
    return PagePosition(
        total=total,
        rate_limit=reply.rate_limit,
        page=page,
        next_page=page + 1 if links.next_page is None and more else links.next_page,
    )
