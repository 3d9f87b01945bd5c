"""What may be wrong with one image: each rule is a pure function of the image and a context.

A rule of your own takes three lines:

    def no_owner(image: Image, context: Context) -> Finding | None:
        owned = any(tag.startswith("team-") for tag in image.tags or ())
        return None if owned else context.finding(image, "no-owner", Severity.LOW, "no team tag", "tag it")
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final

import attrs

from do_images_async.models import Image, ImageStatus, ImageType

__all__ = [
    "DEFAULT_RULES",
    "PRICE",
    "Context",
    "Finding",
    "Rule",
    "Severity",
    "failed_import",
    "older_than",
    "oversized",
    "retired",
    "stuck_import",
    "untagged",
    "worst_first",
]

PRICE: Final = 0.06
"""USD per GB and month that the provider takes for a snapshot or a custom image, as published in March 2026.

Each image is paid once, in however many regions it is. Backups are paid with their Droplet, by its plan.
"""

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_IMPORTING: Final = (ImageStatus.NEW, ImageStatus.PENDING)
_NOT_STORED: Final = (*_IMPORTING, ImageStatus.DELETED)


class Severity(IntEnum):
    """How much a finding matters; a higher one compares as greater."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3


@attrs.frozen(kw_only=True)
class Finding:
    """What a rule says of one image.

    Attributes:
        rule: the rule's name.
        severity: how much it matters.
        image_id: the image's id.
        name: the image's name, as the server sent it; treat it as hostile when you show it.
        detail: what was found.
        action: what to do about it.
        gigabytes: what the image occupies, in GB.
        monthly_cost: what the image costs, in USD a month.
        stale: whether deleting the image is the remedy, so that its cost would be saved.
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


def worst_first(finding: Finding) -> tuple[int, float, int, str, str]:
    """The sort key that puts the worst finding first: severity, then cost, then id; never a tie by chance."""
    return -finding.severity, -finding.monthly_cost, finding.image_id, finding.rule, finding.detail


@attrs.frozen(kw_only=True)
class Context:
    """What rules know beside the image.

    Attributes:
        now: the moment that ages are counted to; aware.
        price: USD per GB and month for whatever is not a backup.
        backup_price: the same for backups.
    """

    now: datetime
    price: float = PRICE
    backup_price: float = 0.0

    def age(self, image: Image) -> timedelta | None:
        """How old the image is: negative when it is dated in the future, None when it has no date."""
        return None if image.created_at is None else self.now - image.created_at

    def gigabytes(self, image: Image) -> float:
        """What the image occupies, in GB: a deleted one, and one whose size is not known, nothing."""
        size = image.size_gigabytes
        if size is None or image.status == ImageStatus.DELETED or not 0 < size < math.inf:
            return 0.0
        return size

    def monthly_cost(self, image: Image) -> float:
        """What the image costs in USD a month: each GB once, whatever the number of regions."""
        if not is_own(image):
            return 0.0
        price = self.backup_price if is_backup(image) else self.price
        return round(self.gigabytes(image) * price, 9)

    def finding(
        self, image: Image, rule: str, severity: Severity, detail: str, action: str, *, stale: bool = False
    ) -> Finding:
        """A finding about this image, with its size and cost filled in; arguments as for `Finding`."""
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
        )


Rule = Callable[[Image, Context], Finding | None]
"""Looks at one image and says what is wrong with it, if anything."""


def is_public(image: Image) -> bool:
    """Whether every account has the image; one that does not say is taken as private."""
    return image.public is True


def is_own(image: Image) -> bool:
    """Whether the account pays for the image and may delete it: the provider's own are of no concern."""
    return not is_public(image) and image.type != ImageType.ADMIN


def is_backup(image: Image) -> bool:
    """Whether the image is paid with a Droplet."""
    return image.type == ImageType.BACKUP


def _is_stored(image: Image) -> bool:
    return is_own(image) and image.status not in _NOT_STORED


def older_than(days: float = 365.0) -> Rule:
    """Images of the account that are older than so many days; from twice that on, of high severity."""
    _check_limit(days, "days")

    def rule(image: Image, context: Context) -> Finding | None:
        age = context.age(image)
        if age is None or age / _DAY <= days or not _is_stored(image):
            return None
        severity = Severity.HIGH if age / _DAY >= 2 * days else Severity.MEDIUM
        detail = f"{age.days:,} days old"
        return context.finding(image, "old", severity, detail, "delete it if unused", stale=True)

    return rule


def oversized(gigabytes: float = 50.0) -> Rule:
    """Images of the account that are larger than so many GB."""
    _check_limit(gigabytes, "gigabytes")

    def rule(image: Image, context: Context) -> Finding | None:
        size = context.gigabytes(image)
        if size <= gigabytes or not _is_stored(image):
            return None
        detail = f"larger than {gigabytes:g} GB"
        return context.finding(image, "oversized", Severity.MEDIUM, detail, "rebuild it smaller")

    return rule


def untagged() -> Rule:
    """Snapshots and custom images without a tag; backups are made by the provider, without."""

    def rule(image: Image, context: Context) -> Finding | None:
        if image.tags or is_backup(image) or not _is_stored(image):
            return None
        return context.finding(image, "untagged", Severity.LOW, "no tag says whose it is", "tag it")

    return rule


def failed_import() -> Rule:
    """Custom images whose import failed: the API keeps them as deleted, with its reason."""

    def rule(image: Image, context: Context) -> Finding | None:
        if image.status != ImageStatus.DELETED or not is_own(image):
            return None
        detail = image.error_message or "deleted; the API gives no reason"
        action = "import it again"
        return context.finding(image, "failed-import", Severity.MEDIUM, detail, action, stale=True)

    return rule


def stuck_import(hours: float = 24.0) -> Rule:
    """Images of the account that are still being imported after so many hours."""
    _check_limit(hours, "hours")

    def rule(image: Image, context: Context) -> Finding | None:
        age = context.age(image)
        if image.status not in _IMPORTING or age is None or age / _HOUR <= hours or not is_own(image):
            return None
        detail = f"{image.status} for {_duration(age)}"
        action = "delete, import again"
        return context.finding(image, "stuck-import", Severity.MEDIUM, detail, action, stale=True)

    return rule


def retired() -> Rule:
    """Images that are retired; public ones are only of interest, as nothing new should be built on them."""

    def rule(image: Image, context: Context) -> Finding | None:
        if image.status != ImageStatus.RETIRED:
            return None
        if is_own(image):
            action = "replace, then delete"
            return context.finding(image, "retired", Severity.MEDIUM, "retired", action, stale=True)
        detail = f"retired: {image.slug}" if image.slug else "retired"
        return context.finding(image, "retired", Severity.INFO, detail, "build on a newer one")

    return rule


def _check_limit(value: float, name: str) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number from 0, not {value}")


def _duration(age: timedelta) -> str:
    return f"{age.days:,} days" if age.days >= 2 else f"{age / _HOUR:.0f} hours"


DEFAULT_RULES: Final[tuple[Rule, ...]] = (
    older_than(),
    oversized(),
    untagged(),
    failed_import(),
    stuck_import(),
    retired(),
)
"""Every rule of this module, with its default limit."""
