"""Find the images that a creation with an ambiguous outcome may have made."""

from __future__ import annotations

from collections.abc import AsyncIterable, Collection
from datetime import datetime, timedelta
from typing import Final

from do_images_async._api.identity import comparable, has_tag
from do_images_async._arguments import shown
from do_images_async.models import Image

__all__ = ["CLOCK_LEEWAY", "check_since", "find_candidates"]

CLOCK_LEEWAY: Final = timedelta(minutes=5)
"""The caller's clock may be ahead of the server's by this much."""


def check_since(since: object) -> datetime:
    """Return the moment if it is an aware datetime."""
    if not isinstance(since, datetime):
        raise TypeError(f"since must be a datetime, not {shown(since)}")
    if since.utcoffset() is None:
        raise ValueError("since must have a time zone, as datetime.now(UTC) has")
    return since


async def find_candidates(
    images: AsyncIterable[Image], *, name: str, since: datetime, tags: Collection[str]
) -> tuple[Image, ...]:
    """Return the images that a creation started at `since` may have made, newest first.

    One without a date or without tags in the answer can't be ruled out, and is among them.
    """
    found = [image async for image in images if _may_be(image, name, since, frozenset(tags))]
    return tuple(sorted(found, key=lambda image: (image.created_at or since, image.id), reverse=True))


def _may_be(image: Image, name: str, since: datetime, tags: frozenset[str]) -> bool:
    if image.public or comparable(image.name) != comparable(name):
        return False
    if image.created_at is not None and since - image.created_at > CLOCK_LEEWAY:
        return False
    return all(has_tag(image, tag) for tag in tags)
