"""Pages of a listing that changes while it is read, or whose links are wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from yarl import URL

from do_images_async.testing.faults import Pages

__all__ = ["altered_page"]

Document = dict[str, Any]


async def altered_page(
    kind: Pages, number: int, page: Document, another: Callable[[int], Awaitable[Document]]
) -> Document:
    """Return the page as the fault changes it; other documents are returned unchanged.

    Args:
        kind: the fault's `pages`.
        number: the number of the page.
        page: the correct page.
        another: returns another page by its number.
    """
    if "links" not in page:
        return page
    (key,) = page.keys() - {"links", "meta"}
    items, total = page[key], page["meta"]["total"]
    if kind == "looping":
        return page | {"links": {"pages": _looping(page["links"]["pages"], number)}}
    if kind == "deleted":
        following = (await another(number + 1))[key]
        shown = items if number == 1 else [*items[1:], *following[:1]]
        return page | {key: shown, "meta": {"total": max(0, total - 1)}}
    if number == 1:
        return page
    before = (await another(number - 1))[key]
    if kind == "duplicated":
        return page | {key: before}
    return page | {key: [*before[-1:], *items][: len(before)], "meta": {"total": total + 1}}


def _looping(links: dict[str, str], number: int) -> dict[str, str]:
    if "next" not in links:
        return links
    return links | {"next": str(URL(links["next"]).update_query(page=number))}
