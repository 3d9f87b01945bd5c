"""The newest image of a listing, among those that match."""

from __future__ import annotations

from collections.abc import AsyncIterable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final, Literal, TypeGuard, get_args

import attrs

from do_images_async._api.identity import has_tag
from do_images_async._api.listing import ImageFilters, ListType
from do_images_async._arguments import check_bool, check_choice, check_text
from do_images_async.models import Image, ImageStatus

__all__ = ["LatestFilter", "LatestType", "newest"]

LatestType = Literal["distribution", "application", "snapshot", "backup", "custom"]

_OLDEST: Final = datetime.min.replace(tzinfo=UTC)


@attrs.frozen
class LatestFilter:
    """The filters of `ImagesAPI.latest`; the API applies some of them, the client the rest.

    Raises:
        TypeError, ValueError: a filter can't be used.
    """

    name: str | None
    tag_name: str | None
    distribution: str | None
    type: LatestType | None
    private: bool

    def __attrs_post_init__(self) -> None:
        for name in ("name", "distribution"):
            if getattr(self, name) is not None:
                check_text(getattr(self, name), name)
        if self.type is not None:
            check_choice(self.type, "type", get_args(LatestType))
        check_bool(self.private, "private")
        if self.private and _is_list_type(self.type):
            raise ValueError(f"type {self.type!r} is of public images: pass private=False")

    @property
    def listing(self) -> ImageFilters:
        """Return the filters that the API applies."""
        return ImageFilters(
            type=self.type if _is_list_type(self.type) else None,
            private=True if self.private else None,
            tag_name=self.tag_name,
        )

    def matches(self, image: Image) -> bool:
        """Return whether an image matches the filters and is available."""
        if image.status not in (ImageStatus.AVAILABLE, None):
            return False
        # The API applies these two as well; what it does not say is believed.
        if self.private and image.public:
            return False
        if self.tag_name is not None and not has_tag(image, self.tag_name):
            return False
        if self.name is not None and not fnmatchcase(image.name, self.name):
            return False
        if self.distribution is not None:
            named = image.distribution or ""
            if named.casefold() != self.distribution.casefold():
                return False
        return self.type is None or _is_list_type(self.type) or image.type == self.type


async def newest(images: AsyncIterable[Image], wanted: LatestFilter) -> Image | None:
    """Return the image that matches with the latest `created_at`, of equals the highest id; or None."""
    best: Image | None = None
    async for image in images:
        if wanted.matches(image) and (best is None or _age_key(image) > _age_key(best)):
            best = image
    return best


def _age_key(image: Image) -> tuple[datetime, int]:
    return (image.created_at or _OLDEST, image.id)


def _is_list_type(value: LatestType | None) -> TypeGuard[ListType | None]:
    return value in ("distribution", "application")
