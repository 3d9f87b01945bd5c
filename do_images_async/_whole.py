"""A listing that is known to be complete, with its own type for type checkers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import final

from do_images_async.models import Image

__all__ = ["WholeListing", "whole_listing"]


@final
class WholeListing(Collection[Image]):
    """All images of a listing, each once; only `ImagesAPI.list_whole` makes it.

    A function that needs the complete listing, such as `retention.plan`, takes this type. A list of images,
    which may lack some, is then an error for type checkers, and at run time.
    """

    __slots__ = ("_images",)
    _images: tuple[Image, ...]

    def __init__(self) -> None:
        raise TypeError("a WholeListing is read: await images.list_whole()")

    def __iter__(self) -> Iterator[Image]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)

    def __contains__(self, image: object) -> bool:
        return image in self._images

    def __repr__(self) -> str:
        return f"<WholeListing of {len(self)} images>"


def whole_listing(images: Iterable[Image]) -> WholeListing:
    """Return the listing of these images, which the caller has read with `strict` to the end."""
    whole = object.__new__(WholeListing)
    whole._images = tuple(images)  # pyright: ignore[reportPrivateUsage]
    return whole
