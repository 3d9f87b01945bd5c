"""Bodies of responses: the JSON objects that the API puts around images and actions."""

from __future__ import annotations

from typing import Annotated, Final

import attrs
from msgspec import Meta as Constraint

from do_images_async.models import Action, Image, Integer

__all__ = [
    "LISTINGS",
    "AccountTransferBody",
    "ActionBody",
    "ActionListBody",
    "ImageBody",
    "ImageListBody",
    "Links",
    "Meta",
]


@attrs.frozen(kw_only=True)
class ImageBody:
    """The body around one image."""

    image: Image


@attrs.frozen(kw_only=True)
class ActionBody:
    """The body around one action; the converter also reads an action without `action` around it."""

    action: Action


@attrs.frozen(kw_only=True)
class AccountTransferBody:
    """The answer to the start of an account transfer; 0 means that it is already accepted."""

    transfer_id: Annotated[int, Constraint(ge=0, le=2**63 - 1)]


@attrs.frozen(kw_only=True)
class PageLinks:
    """The one link of a listing that is used."""

    next: str | None = None


@attrs.frozen(kw_only=True)
class Links:
    """A listing's links; `pages` is `{}`, or missing, when there is one page."""

    pages: PageLinks | None = None


@attrs.frozen(kw_only=True)
class Meta:
    """A listing's total."""

    total: Integer | None = None


@attrs.frozen(kw_only=True)
class ImageListBody:
    """The body of a listing. `images` is required: a body without it is an error, not an empty listing."""

    images: tuple[Image, ...]
    links: Links | None = None
    meta: Meta | None = None


@attrs.frozen(kw_only=True)
class ActionListBody:
    """The body of a listing of actions; `actions` is required, as `images` is."""

    actions: tuple[Action, ...]
    links: Links | None = None
    meta: Meta | None = None


LISTINGS: Final = {ImageListBody: "images", ActionListBody: "actions"}
"""The field that holds a listing's items."""
