"""The finding of a rule, and the context that a rule receives besides the image."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from enum import IntEnum
from typing import Any, Final, TypeGuard, cast

import attrs

from do_images_async.audit.memory import Memory
from do_images_async.models import Image, ImageStatus, ImageType

__all__ = [
    "IMPORTING",
    "PRICE",
    "PRICE_DATE",
    "Context",
    "Finding",
    "Rule",
    "Severity",
    "as_data",
    "is_backup",
    "is_own",
    "is_public",
    "is_stored",
    "lacks_size",
    "worst",
    "worst_first",
]

PRICE: Final = 0.06
"""USD per GB and month of a snapshot or a custom image, as published on `PRICE_DATE`.

An image costs the same in any number of regions. Backups are paid for by their Droplet's plan.
"""

PRICE_DATE: Final = date(2026, 3, 1)
"""The date of `PRICE`."""

IMPORTING: Final = (ImageStatus.NEW, ImageStatus.PENDING)
"""The statuses of an image that is still being imported."""

_NOT_STORED: Final = (*IMPORTING, ImageStatus.DELETED)
_LARGEST: Final = 1e9
"""The largest size that counts as valid, in GB: with 1e308 from a broken answer, sums would overflow."""


def valid_gigabytes(size: float | None) -> float:
    """Return a size in GB: 0 if it is missing or impossible."""
    return size if is_size(size) else 0.0


def is_size(size: float | None) -> TypeGuard[float]:
    """Return whether a size in GB is known and possible."""
    return size is not None and 0 <= size <= _LARGEST


class Severity(IntEnum):
    """The severity of a finding; a higher one compares as greater."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3


@attrs.frozen(kw_only=True)
class Finding:
    """The finding of one rule about one image.

    Attributes:
        rule: the rule's name.
        severity: the severity.
        image_id: the image's id.
        name: the image's name, as the server sent it; escape it before you show it.
        detail: the finding in words.
        action: the recommended action.
        gigabytes: the size of the image, in GB.
        monthly_cost: the cost of the image, in USD a month.
        stale: whether deleting the image is the remedy, which would save its cost.
        account: the account's name where several are audited together.
        regions, tags: the image's regions and tags.
        type: the image's type, such as "snapshot"; None when the server sent none.
    """

    rule: str
    severity: Severity
    image_id: int
    name: str
    detail: str
    action: str
    gigabytes: float
    monthly_cost: float
    stale: bool = False
    account: str | None = None
    regions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    type: str | None = None


def worst_first(finding: Finding) -> tuple[int, float, int, str, str]:
    """Return the sort key that puts the worst finding first: by severity, cost and id, with no ties."""
    return -finding.severity, -finding.monthly_cost, finding.image_id, finding.rule, finding.detail


def worst(findings: Iterable[Finding], keep: int | None) -> tuple[Finding, ...]:
    """Return the worst findings in order, at most so many; all of them if `keep` is None."""
    if keep is None:
        return tuple(sorted(findings, key=worst_first))
    return tuple(heapq.nsmallest(keep, findings, key=worst_first))


def as_data(record: attrs.AttrsInstance) -> dict[str, Any]:
    """Return a finding, or a summary of findings, as JSON data: a severity is its name in lower case."""
    return attrs.asdict(record, value_serializer=lambda _, __, value: _plain(value))


def _plain(value: object) -> object:
    if isinstance(value, Severity):
        return value.name.lower()
    return list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value


@attrs.frozen(kw_only=True)
class Context:
    """The context that a rule receives besides the image.

    Attributes:
        now: the moment that ages are counted to; aware.
        price: USD per GB and month for all images except backups.
        backup_price: the same for backups.
        memory: the memory of earlier images, for rules that compare an image with them.
    """

    now: datetime
    price: float = PRICE
    backup_price: float = 0.0
    memory: Memory = attrs.field(factory=Memory, repr=False, eq=False)

    def age(self, image: Image) -> timedelta | None:
        """Return the image's age: negative if it is dated in the future, None if it has no date."""
        return None if image.created_at is None else self.now - image.created_at

    def gigabytes(self, image: Image) -> float:
        """Return the image's size in GB: 0 if it is deleted, or if its size is missing or impossible."""
        return 0.0 if image.status == ImageStatus.DELETED else valid_gigabytes(image.size_gigabytes)

    def monthly_cost(self, image: Image) -> float:
        """Return the image's cost in USD a month; each GB counts once, whatever the number of regions."""
        if not is_own(image):
            return 0.0
        price = self.backup_price if is_backup(image) else self.price
        return round(self.gigabytes(image) * price, 9)

    def finding(
        self, image: Image, rule: str, severity: Severity, detail: str, action: str, *, stale: bool = False
    ) -> Finding:
        """Return a finding about this image, with its size and cost filled in; arguments as for `Finding`."""
        return Finding(
            rule=rule,
            severity=severity,
            image_id=image.id,
            name=image.name,
            detail=detail,
            action=action,
            gigabytes=self.gigabytes(image),
            monthly_cost=self.monthly_cost(image),
            stale=stale,
            regions=image.regions,
            tags=image.tags or (),
            type=None if image.type is None else str(image.type),
        )


Rule = Callable[[Image, Context], Finding | None]
"""A function that returns what is wrong with one image, or None."""


def is_public(image: Image) -> bool:
    """Return whether every account has the image; False if the image does not say."""
    return image.public is True


def is_own(image: Image) -> bool:
    """Return whether the account pays for the image and may delete it; not so for the provider's images."""
    return not is_public(image) and image.type != ImageType.ADMIN


def is_stored(image: Image) -> bool:
    """Return whether the image is the account's own, and neither deleted nor still being imported."""
    return is_own(image) and image.status not in _NOT_STORED


def lacks_size(image: Image) -> bool:
    """Return whether the account stores the image, and its size is missing or impossible."""
    return is_stored(image) and not is_size(image.size_gigabytes)


def is_backup(image: Image) -> bool:
    """Return whether the image is a backup, which is paid for with its Droplet."""
    return image.type == ImageType.BACKUP
