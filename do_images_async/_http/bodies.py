"""Bodies of responses: the JSON objects that the API puts around images and actions."""

from __future__ import annotations

from typing import Annotated, Final, cast

import attrs
from msgspec import Meta as Constraint

from do_images_async.models import Action, Image, Integer

__all__ = [
    "BODIES",
    "AccountTransferBody",
    "ActionBody",
    "ActionListBody",
    "ImageBody",
    "ImageListBody",
    "Links",
    "Meta",
    "holds_models",
    "listed_field",
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
    """The answer to the start of an account transfer; 0 means that it is already accepted.

    The API page has no `image_id` in it; one that is there must be the image's.
    """

    transfer_id: Annotated[int, Constraint(ge=0, le=2**63 - 1)]
    image_id: Integer | None = None


@attrs.frozen(kw_only=True)
class PageLinks:
    """The links of a listing that are used."""

    next: str | None = None
    last: str | None = None


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

    @property
    def items(self) -> tuple[Image, ...]:
        """Return what the page lists."""
        return self.images


@attrs.frozen(kw_only=True)
class ActionListBody:
    """The body of a listing of actions; `actions` is required, as `images` is."""

    actions: tuple[Action, ...]
    links: Links | None = None
    meta: Meta | None = None

    @property
    def items(self) -> tuple[Action, ...]:
        """Return what the page lists."""
        return self.actions


BODIES: Final[dict[type, tuple[str, type] | None]] = {
    ImageBody: ("image", Image),
    ImageListBody: ("images", Image),
    ActionBody: ("action", Action),
    ActionListBody: ("actions", Action),
    AccountTransferBody: None,
}
"""Every body: the field that holds its model, or a listing's models, and their class; None if it has none."""


def listed_field(body: object) -> str | None:
    """Return the field that holds a listing's items; None if the class is no listing's body."""
    content = BODIES.get(body) if isinstance(body, type) else None
    return content[0] if content and _is_listing(cast("type", body)) else None


def holds_models(body: object, model: type[object]) -> bool:
    """Return whether a body is one of this class that holds its models: a user's hook made them.

    Raises:
        KeyError: `BODIES` lacks the class.
    """
    content = BODIES[model]
    if not isinstance(body, model):
        return False
    if content is None:
        return True
    field, kind = content
    value = getattr(body, field)
    return all(isinstance(item, kind) for item in (value if _is_listing(model) else (value,)))


def _is_listing(body: type) -> bool:
    return "links" in attrs.fields_dict(body)
