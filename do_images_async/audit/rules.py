"""The rules: each is a pure function of the image and a context.

A rule of your own takes three lines:

    def no_owner(image: Image, context: Context) -> Finding | None:
        owned = any(tag.startswith("team-") for tag in image.tags or ())
        return None if owned else context.finding(image, "no-owner", Severity.LOW, "no team tag", "tag it")
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from datetime import date, timedelta
from typing import Final

from do_images_async._arguments import ids_of, shown
from do_images_async.audit.context import (
    IMPORTING,
    Context,
    Finding,
    Rule,
    Severity,
    is_backup,
    is_own,
    is_public,
    is_stored,
)
from do_images_async.audit.lifecycle import END_OF_SUPPORT
from do_images_async.audit.settings import NamedRule, checked_number, matches_tag
from do_images_async.models import Image, ImageStatus, ImageType

__all__ = [
    "DEFAULT_RULES",
    "RULE_NAMES",
    "duplicate_names",
    "failed_import",
    "near_retirement",
    "older_than",
    "orphaned_backups",
    "orphaned_snapshots",
    "oversized",
    "required_tags",
    "retired",
    "single_region",
    "stuck_import",
    "untagged",
]

RULE_NAMES: Final = (
    "old",
    "oversized",
    "untagged",
    "missing-tag",
    "failed-import",
    "stuck-import",
    "retired",
    "one-region",
    "duplicate-name",
    "orphaned-backup",
    "orphaned-snapshot",
    "near-retirement",
)
"""The names of this module's rules."""

OF_PUBLIC_IMAGES: Final = frozenset({"retired", "near-retirement"})
"""Those of the rules that find the provider's images, too, which every account has."""

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


def older_than(days: float = 365.0) -> NamedRule:
    """Find images of the account older than so many days; from twice that age the severity is high."""
    days = _limit(days, "days")

    def rule(image: Image, context: Context) -> Finding | None:
        age = context.age(image)
        if age is None or age / _DAY <= days or not is_stored(image):
            return None
        severity = Severity.HIGH if age / _DAY >= 2 * days else Severity.MEDIUM
        detail = f"{age.days:,} days old"
        return context.finding(image, "old", severity, detail, "delete it if unused", stale=True)

    return NamedRule("old", rule, {"days": days})


def oversized(gigabytes: float = 50.0) -> NamedRule:
    """Find images of the account larger than so many GB."""
    gigabytes = _limit(gigabytes, "gigabytes")

    def rule(image: Image, context: Context) -> Finding | None:
        size = context.gigabytes(image)
        if size <= gigabytes or not is_stored(image):
            return None
        detail = f"larger than {gigabytes:g} GB"
        return context.finding(image, "oversized", Severity.MEDIUM, detail, "rebuild it smaller")

    return NamedRule("oversized", rule, {"gigabytes": gigabytes})


def untagged() -> NamedRule:
    """Find snapshots and custom images without a tag. Backups are made by the provider, without tags."""

    def rule(image: Image, context: Context) -> Finding | None:
        if image.tags or is_backup(image) or not is_stored(image):
            return None
        return context.finding(image, "untagged", Severity.LOW, "no tag says whose it is", "tag it")

    return NamedRule("untagged", rule)


def failed_import() -> NamedRule:
    """Find custom images whose import failed: the API keeps them as deleted, with the reason."""

    def rule(image: Image, context: Context) -> Finding | None:
        # A deleted snapshot or backup was no import, unless it has an import's error.
        is_import = image.type in (ImageType.CUSTOM, None) or image.error_message
        if image.status != ImageStatus.DELETED or not is_own(image) or not is_import:
            return None
        detail = image.error_message or "deleted; the API gives no reason"
        action = "import it again"
        return context.finding(image, "failed-import", Severity.MEDIUM, detail, action, stale=True)

    return NamedRule("failed-import", rule)


def stuck_import(hours: float = 24.0) -> NamedRule:
    """Find images of the account that are still being imported after so many hours."""
    hours = _limit(hours, "hours")

    def rule(image: Image, context: Context) -> Finding | None:
        age = context.age(image)
        if image.status not in IMPORTING or age is None or age / _HOUR <= hours or not is_own(image):
            return None
        detail = f"{image.status} for {_duration(age)}"
        action = "delete, import again"
        return context.finding(image, "stuck-import", Severity.MEDIUM, detail, action, stale=True)

    return NamedRule("stuck-import", rule, {"hours": hours})


def retired() -> NamedRule:
    """Find retired images; those that are not the account's own get the severity INFO."""

    def rule(image: Image, context: Context) -> Finding | None:
        if image.status != ImageStatus.RETIRED:
            return None
        if is_own(image):
            action = "replace, then delete"
            return context.finding(image, "retired", Severity.MEDIUM, "retired", action, stale=True)
        detail = f"retired: {image.slug}" if image.slug else "retired"
        return context.finding(image, "retired", Severity.INFO, detail, "build on a newer one")

    return NamedRule("retired", rule)


def required_tags(*patterns: str) -> NamedRule:
    """Find snapshots and custom images that lack a required tag.

    Args:
        patterns: the required tags, each a tag or a pattern such as "team-*"; at least one.
    """
    if not patterns:
        raise ValueError("patterns must hold at least one tag")
    if not all(patterns):
        raise ValueError("patterns must not hold an empty string")

    def rule(image: Image, context: Context) -> Finding | None:
        if is_backup(image) or not is_stored(image):
            return None
        tags = image.tags or ()
        missing = [each for each in patterns if not matches_tag(tags, (each,))]
        if not missing:
            return None
        detail = f"lacks {', '.join(missing)}"
        return context.finding(image, "missing-tag", Severity.MEDIUM, detail, "tag it")

    return NamedRule("missing-tag", rule, {"patterns": patterns})


def single_region() -> NamedRule:
    """Find snapshots and custom images in one region only: an outage there makes them unavailable."""

    def rule(image: Image, context: Context) -> Finding | None:
        regions = set(image.regions)
        if len(regions) != 1 or is_backup(image) or not is_stored(image):
            return None
        detail = f"only in {image.regions[0]}"
        return context.finding(image, "one-region", Severity.INFO, detail, "transfer it to a second one")

    return NamedRule("one-region", rule)


def duplicate_names() -> NamedRule:
    """Find snapshots and custom images that have the name of an earlier one.

    The audit remembers a fixed number of names, about 260,000 (see `Memory`): in a larger account it may
    miss a duplicate, but never reports one wrongly.
    """

    def rule(image: Image, context: Context) -> Finding | None:
        if not image.name or is_backup(image) or not is_stored(image):
            return None
        first = context.memory.first("name", image.name, image.id)
        if first == image.id:
            return None
        detail = f"has the name of {first}"
        return context.finding(image, "duplicate-name", Severity.LOW, detail, "rename or delete one")

    return NamedRule("duplicate-name", rule)


def orphaned_backups(backup_ids: Container[int]) -> NamedRule:
    """Find backups whose Droplet no longer exists.

    An image does not name its Droplet, but a Droplet names its backups. So the caller reads the Droplets.

    Args:
        backup_ids: the `backup_ids` of every Droplet that exists.

    Raises:
        TypeError: `backup_ids` is no collection, or holds something that is no id.
        ValueError: `backup_ids` is a generator that was read to its end or closed.
    """
    ids = ids_of(backup_ids, "backup_ids")

    def rule(image: Image, context: Context) -> Finding | None:
        if not is_backup(image) or image.id in ids or not is_stored(image):
            return None
        action = "convert or delete it"
        return context.finding(
            image, "orphaned-backup", Severity.MEDIUM, "its Droplet is gone", action, stale=True
        )

    return NamedRule("orphaned-backup", rule)


def orphaned_snapshots(snapshot_ids: Container[int]) -> NamedRule:
    """Find snapshots that no Droplet lists: their Droplet is gone, or belonged to another account.

    Such a snapshot may be the only remaining copy, so this finding does not make it stale. Other findings,
    such as that of `older_than`, may.

    Args:
        snapshot_ids: the `snapshot_ids` of every Droplet that exists, and the images they were made from.

    Raises:
        TypeError: `snapshot_ids` is no collection, or holds something that is no id.
        ValueError: `snapshot_ids` is a generator that was read to its end or closed.
    """
    ids = ids_of(snapshot_ids, "snapshot_ids")

    def rule(image: Image, context: Context) -> Finding | None:
        if image.type != ImageType.SNAPSHOT or image.id in ids or not is_stored(image):
            return None
        detail, action = "its Droplet is gone", "keep it if it is the only copy"
        return context.finding(image, "orphaned-snapshot", Severity.LOW, detail, action)

    return NamedRule("orphaned-snapshot", rule)


def near_retirement(days: float = 180.0, dates: Mapping[str, date] = END_OF_SUPPORT) -> NamedRule:
    """Find public base images whose distribution's support ends within so many days, or has ended.

    Args:
        days: the number of days before the end of support from which an image is a finding.
        dates: the ends of support by the beginning of the slug, such as "ubuntu-22-04".
    """
    days = _limit(days, "days")

    def rule(image: Image, context: Context) -> Finding | None:
        if not is_public(image) or image.type != ImageType.BASE or image.status == ImageStatus.RETIRED:
            return None
        slug = image.slug or ""
        end = next((when for key, when in dates.items() if slug == key or slug.startswith(f"{key}-")), None)
        if end is None or (end - context.now.date()) / _DAY > days:
            return None
        verb = "ended" if end < context.now.date() else "ends"
        detail = f"{slug}: support {verb} {end}"
        return context.finding(image, "near-retirement", Severity.INFO, detail, "build on a newer one")

    return NamedRule("near-retirement", rule, {"days": days})


def _limit(value: object, name: str) -> float:
    number = checked_number(value, name)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be a finite number from 0, not {shown(value)}")
    return number


def _duration(age: timedelta) -> str:
    return f"{age.days:,} days" if age.days >= 2 else f"{age / _HOUR:.0f} hours"


DEFAULT_RULES: Final[tuple[Rule, ...]] = (
    older_than(),
    oversized(),
    untagged(),
    failed_import(),
    stuck_import(),
    retired(),
    single_region(),
    duplicate_names(),
    near_retirement(),
)
"""Every rule of this module that needs no argument, with its default limit."""
