"""What the wire carries: frozen attrs classes and open enums.

One rule for what is absent: a field that the server did not send, or sent as null, is `None`; a missing
`name` is `""` and missing `regions` are `()`, since neither is ever null.
"""

from __future__ import annotations

from collections.abc import Container
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Self

import attrs
from msgspec import Meta as Constraint

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

Integer = Annotated[int, Constraint(ge=-(2**63), le=2**63 - 1)]
AwareDatetime = Annotated[datetime, Constraint(tz=True)]


class OpenEnum(StrEnum):
    """A string enum that tomorrow's values also fit into: they compare as their string and say so."""

    @property
    def is_known(self) -> bool:
        """Whether the value is one that the API page documents."""
        return self._value_ in type(self)._value2member_map_

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member


class ImageStatus(OpenEnum):
    """The state of an image (API page: `status`). An import goes NEW, pending, available or deleted."""

    NEW = "NEW"
    AVAILABLE = "available"
    PENDING = "pending"
    DELETED = "deleted"
    RETIRED = "retired"


class ImageType(OpenEnum):
    """The kind of an image (API page: `type`). Not what the listing's `type` filter speaks of."""

    BASE = "base"
    SNAPSHOT = "snapshot"
    BACKUP = "backup"
    CUSTOM = "custom"
    ADMIN = "admin"


class ActionStatus(OpenEnum):
    """The state of an action (API page: `status`). It begins in progress and ends as one of the others."""

    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    ERRORED = "errored"


@attrs.frozen(kw_only=True)
class Image:
    """An image as the API describes it (API page: "Retrieve an Existing Image", response 200).

    Attributes:
        id: what every call takes to name the image.
        name: the display name.
        type: the kind of image.
        distribution: the operating system's name, such as "Ubuntu"; any string.
        slug: names a public image beside its id; None for private ones.
        public: whether every account can use it.
        regions: slugs of the regions that hold it. The server may repeat one; it is kept.
        tags: tag names.
        min_disk_size: GB of disk that a Droplet needs to use it.
        size_gigabytes: the image's own size in GB.
        created_at: when it was made; always aware.
        status: the state of the image.
        description: free text.
        error_message: why an import failed; empty when it did not.
    """

    # In the order in which the API sends them, in which the decoder looks for them as well.
    id: Integer
    name: str = ""
    type: ImageType | None = None
    distribution: str | None = None
    slug: str | None = None
    public: bool | None = None
    regions: tuple[str, ...] = ()
    created_at: AwareDatetime | None = None
    min_disk_size: Integer | None = None
    size_gigabytes: float | None = None
    description: str | None = None
    tags: tuple[str, ...] | None = None
    status: ImageStatus | None = None
    error_message: str | None = None


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
    """Something that is being done to an image, or was (API page: "Retrieve an Existing Action").

    Attributes:
        id: names the action, together with the image's id.
        status: the state of the action.
        type: what is done, such as "transfer" or "convert"; any string.
        started_at: when it began; always aware.
        completed_at: when it ended; None while it is in progress.
        resource_id: the image's id.
        resource_type: the kind of resource, here an image.
        region: the region that it concerns.
        region_slug: the same by its slug.
    """

    id: Integer
    status: ActionStatus | None = None
    type: str | None = None
    started_at: AwareDatetime | None = None
    completed_at: AwareDatetime | None = None
    resource_id: Integer | None = None
    resource_type: str | None = None
    region: Region | None = None
    region_slug: str | None = None


@attrs.frozen(kw_only=True)
class AccountTransfer:
    """A transfer of an image to another account, as it was begun.

    Attributes:
        image_id: the image that changes hands.
        transfer_id: names the transfer until the recipient has answered; None when there is nothing left to
            answer, since the transfer was accepted at once.
    """

    image_id: Integer
    transfer_id: Integer | None

    @property
    def accepted(self) -> bool:
        """Whether the image is the recipient's already."""
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

    @property
    def reset_at(self) -> datetime:
        """`reset` as an aware datetime."""
        return datetime.fromtimestamp(self.reset, UTC)


@attrs.frozen(kw_only=True)
class ImagePage:
    """One page of a listing (API page: "List All Images", response 200).

    Attributes:
        images: the page's images, in the server's order.
        total: how many images the whole listing has, as the server says; None when it does not.
        rate_limit: the quota that came with the page.
        page: this page's number, from 1.
        next_page: the following page's number; None on the last.
    """

    images: tuple[Image, ...]
    total: Integer | None = None
    rate_limit: RateLimit | None = None
    page: Integer = 1
    next_page: Integer | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ids(self) -> tuple[int, ...]:
        """The images' ids, in the same order."""
        return tuple([image.id for image in self.images])

    def without(self, ids: Container[int]) -> Self:
        """The page less the images with these ids."""
        return attrs.evolve(self, images=tuple([image for image in self.images if image.id not in ids]))


@attrs.frozen(kw_only=True)
class ActionPage:
    """One page of an image's actions (API page: "List All Actions for an Image").

    Attributes:
        actions: the page's actions, in the server's order.
        total, rate_limit, page, next_page: as for `ImagePage`.
    """

    actions: tuple[Action, ...]
    total: Integer | None = None
    rate_limit: RateLimit | None = None
    page: Integer = 1
    next_page: Integer | None = None

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def ids(self) -> tuple[int, ...]:
        """The actions' ids, in the same order."""
        return tuple([action.id for action in self.actions])

    def without(self, ids: Container[int]) -> Self:
        """The page less the actions with these ids."""
        return attrs.evolve(self, actions=tuple([action for action in self.actions if action.id not in ids]))
