"""Models of the API's responses: frozen attrs classes and open enums.

A field that the server did not send, or sent as null, is `None`. Two fields are never null: a missing `name`
is `""`, and missing `regions` are `()`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

import attrs
import msgspec
from msgspec import Meta as Constraint

from do_images_async._notebook import html_table

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "AccountTransfer",
    "Action",
    "ActionPage",
    "ActionStatus",
    "Image",
    "ImagePage",
    "ImageStatus",
    "ImageType",
    "RateLimit",
    "Region",
]


class _FromHypothesis:
    """The values that JSON can hold, for `hypothesis.strategies.from_type`, by annotated-types' protocol.

    Args:
        strategy: the name of a strategy of hypothesis.
        arguments: its arguments.
    """

    __is_annotated_types_grouped_metadata__ = True

    def __init__(self, strategy: str, **arguments: object) -> None:
        self._strategy = strategy
        self._arguments = arguments

    def __iter__(self) -> Iterator[SearchStrategy[Any]]:
        from hypothesis import strategies  # only hypothesis asks

        arguments = dict(self._arguments)
        if self._strategy == "datetimes":
            arguments["timezones"] = strategies.just(UTC)
        yield cast("SearchStrategy[Any]", getattr(strategies, self._strategy)(**arguments))


_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)
_LOWEST = -(2**63)
_HIGHEST = 2**63 - 1
Integer = Annotated[
    int,
    Constraint(ge=_LOWEST, le=_HIGHEST),
    _FromHypothesis("integers", min_value=_LOWEST, max_value=_HIGHEST),
]
Float = Annotated[float, _FromHypothesis("floats", allow_nan=False, allow_infinity=False)]
AwareDatetime = Annotated[datetime, Constraint(tz=True), _FromHypothesis("datetimes")]


def _to_dict(model: attrs.AttrsInstance) -> dict[str, Any]:
    """Return a model's fields in their order, as values that `json.dumps` takes."""
    return {field.name: _json_value(getattr(model, field.name)) for field in attrs.fields(type(model))}


def _json_value(value: object) -> Any:
    if attrs.has(type(value)):
        return _to_dict(cast("attrs.AttrsInstance", value))
    if isinstance(value, tuple | list | set | frozenset):
        return [_json_value(each) for each in cast("Iterable[object]", value)]
    if isinstance(value, dict):
        pairs = cast("dict[object, object]", value).items()
        return {msgspec.to_builtins(key): _json_value(each) for key, each in pairs}
    return msgspec.to_builtins(value)


def _short(value: object) -> str:
    """Return the repr of a text, at most 36 characters of it; an enum's is that of its string."""
    text = value if value is None else str(value)
    return repr(text) if text is None or len(text) <= 36 else f"{text[:35]!r}…"


def _few(items: tuple[object, ...]) -> str:
    """Return the repr of the first three items, and how many more there are."""
    shown = ", ".join(map(_short, items[:3]))
    if len(items) > 3:
        return f"({shown}, and {len(items) - 3} more)"
    return f"({shown},)" if len(items) == 1 else f"({shown})"


def _count(items: tuple[object, ...]) -> str:
    return f"<{len(items)}>"


class OpenEnum(StrEnum):
    """A string enum that also takes values that it does not know; they compare as their string."""

    @property
    def is_known(self) -> bool:
        """Return whether the value is one that the API page documents."""
        return self._value_ in type(self)._value2member_map_

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member

    def __reduce_ex__(self, protocol: object) -> tuple[type[Self], tuple[str]]:
        # Some releases of Python 3.11 pickle a member by its name, which an unknown value does not have.
        return type(self), (self._value_,)


class ImageStatus(OpenEnum):
    """The state of an image (API page: `status`): for an import NEW, pending, then available or deleted."""

    NEW = "NEW"
    AVAILABLE = "available"
    PENDING = "pending"
    DELETED = "deleted"
    RETIRED = "retired"


class ImageType(OpenEnum):
    """The kind of an image (API page: `type`). The `type` filter of a listing is something else."""

    BASE = "base"
    SNAPSHOT = "snapshot"
    BACKUP = "backup"
    CUSTOM = "custom"
    ADMIN = "admin"


class ActionStatus(OpenEnum):
    """The state of an action (API page: `status`). It is in progress first and ends as one of the others."""

    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    ERRORED = "errored"


@attrs.frozen(kw_only=True)
class Image:
    """An image as the API describes it (API page: "Retrieve an Existing Image", response 200).

    Attributes:
        id: the number that every call takes.
        name: the display name.
        type: the kind of image.
        distribution: the operating system's name, such as "Ubuntu"; any string.
        slug: the name of a public image; None, or empty, for private ones.
        public: whether every account can use it.
        regions: slugs of the regions that hold it; a repeated one is kept.
        tags: tag names.
        min_disk_size: GB of disk that a Droplet needs to use it.
        size_gigabytes: the image's own size in GB.
        created_at: when it was created, with a time zone.
        status: the state of the image.
        description: free text.
        error_message: why an import failed; empty if it did not.
    """

    # In the order in which the API sends them, in which the decoder looks for them as well.
    id: Integer
    # A repr fits a line or two: it has what one looks for first. `to_dict` has everything.
    name: str = attrs.field(default="", repr=_short)
    type: ImageType | None = attrs.field(default=None, repr=_short)
    distribution: str | None = attrs.field(default=None, repr=False)
    slug: str | None = attrs.field(default=None, repr=_short)
    public: bool | None = None
    regions: tuple[str, ...] = attrs.field(default=(), repr=_few)
    created_at: AwareDatetime | None = attrs.field(default=None, repr=False)
    min_disk_size: Integer | None = attrs.field(default=None, repr=False)
    size_gigabytes: Float | None = None
    description: str | None = attrs.field(default=None, repr=False)
    tags: tuple[str, ...] | None = attrs.field(default=None, repr=False)
    status: ImageStatus | None = attrs.field(default=None, repr=_short)
    error_message: str | None = attrs.field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, those of a subclass too, as values that `json.dumps` takes.

        Dates are strings in RFC 3339, enums their strings, tuples lists.

        Raises:
            TypeError: a subclass has a field that JSON has no value for.
        """
        return _to_dict(self)


@attrs.frozen(kw_only=True)
class Region:
    """A region as an action carries it (API page: an action's `region`).

    Attributes:
        slug: what names the region, such as "nyc3".
        name: the display name.
        available: whether new Droplets can be created there.
        features: what the region offers.
        sizes: slugs of the Droplet sizes it offers; the token needs the scope `sizes:read` to see them.
    """

    slug: str
    name: str | None = None
    available: bool | None = None
    features: tuple[str, ...] | None = None
    sizes: tuple[str, ...] | None = None


@attrs.frozen(kw_only=True)
class Action:
    """A change to an image, in progress or ended (API page: "Retrieve an Existing Action").

    Attributes:
        id: the action's number, which is used together with the image's id.
        status: the state of the action.
        type: what is done, such as "transfer" or "convert"; any string.
        started_at: when it began, with a time zone.
        completed_at: when it ended; None while it is in progress, and sometimes afterwards.
        resource_id: the image's id.
        resource_type: the kind of resource, here an image.
        region: the region that it concerns; from a server that sends a slug alone, a region with that slug.
        region_slug: the region's slug.
    """

    id: Integer
    status: ActionStatus | None = attrs.field(default=None, repr=_short)
    type: str | None = attrs.field(default=None, repr=_short)
    started_at: AwareDatetime | None = attrs.field(default=None, repr=False)
    completed_at: AwareDatetime | None = attrs.field(default=None, repr=False)
    resource_id: Integer | None = None
    resource_type: str | None = attrs.field(default=None, repr=False)
    region: Region | None = attrs.field(default=None, repr=False)
    region_slug: str | None = attrs.field(default=None, repr=_short)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as values that `json.dumps` takes; see `Image.to_dict`."""
        return _to_dict(self)


@attrs.frozen(kw_only=True)
class AccountTransfer:
    """A transfer of an image to another account, as it was started.

    Attributes:
        image_id: the image that changes hands.
        transfer_id: names the transfer until the recipient has answered; None when there is nothing left to
            answer, since the transfer was accepted at once.
    """

    image_id: Integer
    transfer_id: Integer | None

    @property
    def accepted(self) -> bool:
        """Return whether the recipient already has the image."""
        return self.transfer_id is None


@attrs.frozen(kw_only=True)
class RateLimit:
    """The hour's quota as the server last reported it (API page: the `ratelimit-*` headers).

    Attributes:
        limit: requests an hour.
        remaining: how many of them are left.
        reset: when the oldest counted request expires, in seconds of Unix time.
    """

    limit: Integer
    remaining: Integer
    reset: Integer

    def __str__(self) -> str:
        reset = self.reset_at.replace(tzinfo=None).isoformat(" ", "seconds")
        return f"{self.remaining:,} of {self.limit:,} requests left, reset at {reset} UTC"

    @property
    def reset_at(self) -> datetime:
        """Return `reset` as an aware datetime; beyond the calendar, its first or last moment."""
        try:
            return datetime.fromtimestamp(self.reset, UTC)
        except (ValueError, OverflowError, OSError):
            return _LATEST if self.reset > 0 else _EARLIEST


_IMAGE_COLUMNS = (
    *("id", "name", "type", "status", "distribution"),
    *("slug", "regions", "size_gigabytes", "created_at"),
)
_ACTION_COLUMNS = ("id", "type", "status", "region_slug", "resource_id", "started_at", "completed_at")


def _cell(value: object) -> object:
    return ", ".join(map(str, cast("tuple[object, ...]", value))) if isinstance(value, tuple) else value


def _caption(page: ImagePage | ActionPage) -> str:
    return f"page {page.page}: {len(page)} of {'unknown' if page.total is None else page.total}"


@attrs.frozen(kw_only=True)
class ImagePage:
    """One page of a listing (API page: "List All Images", response 200).

    Attributes:
        images: the page's images, in the server's order.
        total: images in the whole listing, as the server counts them; None when it does not say.
        rate_limit: the quota that came with the page.
        page: this page's number, from 1.
        next_page: the following page's number; None on the last.
    """

    images: tuple[Image, ...] = attrs.field(repr=_count)
    total: Integer | None = None
    rate_limit: RateLimit | None = attrs.field(default=None, repr=False)
    page: Integer = 1
    next_page: Integer | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the page and its images as values that `json.dumps` takes; see `Image.to_dict`."""
        return _to_dict(self)

    def _repr_html_(self) -> str:
        """Return a table for a notebook."""
        names = _IMAGE_COLUMNS
        rows = [[_cell(getattr(each, name)) for name in names] for each in self.images]
        return html_table(_caption(self), names, rows)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ids(self) -> tuple[int, ...]:
        """Return the ids of the images, in the same order."""
        return tuple([image.id for image in self.images])

    def without(self, ids: Container[int]) -> Self:
        """Return the page without the images that have these ids."""
        return attrs.evolve(self, images=tuple([image for image in self.images if image.id not in ids]))


@attrs.frozen(kw_only=True)
class ActionPage:
    """One page of an image's actions (API page: "List All Actions for an Image").

    Attributes:
        actions: the page's actions, in the server's order.
        total, rate_limit, page, next_page: as for `ImagePage`.
    """

    actions: tuple[Action, ...] = attrs.field(repr=_count)
    total: Integer | None = None
    rate_limit: RateLimit | None = attrs.field(default=None, repr=False)
    page: Integer = 1
    next_page: Integer | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the page and its actions as values that `json.dumps` takes; see `Image.to_dict`."""
        return _to_dict(self)

    def _repr_html_(self) -> str:
        """Return a table for a notebook."""
        names = _ACTION_COLUMNS
        rows = [[_cell(getattr(each, name)) for name in names] for each in self.actions]
        return html_table(_caption(self), names, rows)

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def ids(self) -> tuple[int, ...]:
        """Return the ids of the actions, in the same order."""
        return tuple([action.id for action in self.actions])

    def without(self, ids: Container[int]) -> Self:
        """Return the page without the actions that have these ids."""
        return attrs.evolve(self, actions=tuple([action for action in self.actions if action.id not in ids]))
