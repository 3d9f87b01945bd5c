"""The options of `prune` for the policy, and their conversion."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, timedelta, tzinfo
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo, available_timezones

import attrs
import click

from do_images_async import Image
from do_images_async.cli.completion import complete_time_zones
from do_images_async.cli.options import split_given
from do_images_async.retention import (
    GroupBy,
    Policy,
    by_distribution,
    by_name,
    by_pattern,
    by_regions,
    by_tags,
    one_group,
)

__all__ = ["POLICY_PARAMETERS", "Selection", "policy_of", "policy_options", "selection_of"]

Command = TypeVar("Command", bound=Callable[..., Any])

_COUNTS: Final = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
_COUNT_HELP: Final = {
    "last": "Keep the newest N images of each group; those of one date count as one.",
    "hourly": "Keep the newest image of each of the last N hours that have one.",
    "daily": "The same for days.",
    "weekly": "The same for ISO weeks, which begin on Monday.",
    "monthly": "The same for months.",
    "yearly": "The same for years.",
}


def _by_own_name(image: Image) -> str:
    return image.name


_GROUPS: Final[Mapping[str, GroupBy]] = {
    "tags": by_tags,
    "distribution": by_distribution,
    "regions": by_regions,
    "name": _by_own_name,
    "none": one_group,
}
_TYPES: Final = ("snapshot", "backup", "custom")
_HOURS: Final = {"h": 1, "d": 24, "w": 7 * 24}

POLICY_PARAMETERS: Final = (
    *(f"keep_{name}" for name in _COUNTS),
    *("keep_within", "keep_tags", "min_keep", "names", "pattern", "group_by", "types", "time_zone"),
    *("droplets", "price"),
)
"""The parameters that shape a plan; one that is carried out from a file takes none of them."""


@attrs.frozen(kw_only=True)
class Selection:
    """The images that a policy applies to, and their groups.

    Attributes:
        group_by: returns the group of an image, or None if it is not selected.
        types: the types of images that may be removed.
        time_zone: the zone in which days, weeks, months and years begin.
    """

    group_by: GroupBy
    types: Collection[str]
    time_zone: tzinfo


def _span(value: str) -> timedelta:
    parts = re.findall(r"(\d{1,6})([hdw])", value)
    if not parts or "".join(map("".join, parts)) != value:
        raise click.BadParameter(f"{value!r} is no span such as 12h, 30d or 6w.")
    return timedelta(hours=sum(int(number) * _HOURS[unit] for number, unit in parts))


def _zone(value: str) -> tzinfo:
    try:
        return UTC if value == "UTC" else ZoneInfo(value)
    except (OSError, ValueError, LookupError):  # the zone is unknown, or the text is no zone name
        if not available_timezones():
            raise click.BadParameter("this machine has no time zones: pip install tzdata") from None
        raise click.BadParameter(f"{value!r} is no time zone such as Europe/Berlin.") from None


def policy_options(command: Command) -> Command:
    """Add the options of the policy: the rules, the selected images, and their groups."""
    rules = [
        click.option(f"--keep-{name}", type=click.IntRange(0), default=0, metavar="N", help=_COUNT_HELP[name])
        for name in _COUNTS
    ]
    options = (
        *rules,
        click.option(
            "--keep-within", type=_span, metavar="SPAN", help="Keep what is younger: 12h, 30d, 6w, 1w12h."
        ),
        click.option(
            "--keep-tag",
            "keep_tags",
            multiple=True,
            metavar="TAGS",
            help="Keep what has this tag, or one that a pattern such as team-* matches.",
        ),
        click.option(
            "--min-keep",
            type=click.IntRange(0),
            default=1,
            metavar="N",
            help="Keep the newest N of each group, counted as for --keep-last, whatever the rules say.",
        ),
        click.option(
            "--name",
            "names",
            multiple=True,
            metavar="GLOB",
            help="Only images with such a name; web-* is group web.",
        ),
        click.option(
            "--pattern",
            metavar="REGEX",
            help="Only images whose whole name matches; (?P<group>...) in it is the group.",
        ),
        click.option(
            "--group-by",
            type=click.Choice(["tags", "distribution", "regions", "name", "none"]),
            show_default="by --name or --pattern",
            help="What the images of a group have in common; none is one group.",
        ),
        click.option(
            "--type",
            "types",
            multiple=True,
            type=click.Choice(_TYPES),
            default=("snapshot",),
            help="Only images of this type; backups are the provider's to delete.",
        ),
        click.option(
            "--time-zone",
            type=_zone,
            default="UTC",
            metavar="NAME",
            shell_complete=complete_time_zones,
            help="Where days, weeks, months and years begin, such as Europe/Berlin.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def policy_of(options: Mapping[str, Any]) -> Policy:
    """Return the policy that the options give.

    Raises:
        UsageError: they give none, or --keep-tag names no tag.
    """
    counts = {f"keep_{name}": options[f"keep_{name}"] for name in _COUNTS}
    tags = split_given(options["keep_tags"], "--keep-tag", "tag")
    if not (any(counts.values()) or options["keep_within"] is not None or tags):
        rules = ", ".join(f"--keep-{name}" for name in (*_COUNTS, "within"))
        raise click.UsageError(f"no policy: say what to keep, with {rules} or --keep-tag")
    return Policy(
        **counts,
        keep_within=options["keep_within"],
        keep_tags=frozenset(tags),
        min_keep=options["min_keep"],
    )


def selection_of(options: Mapping[str, Any]) -> Selection:
    """Return the selection of images that the options give, and their groups.

    Raises:
        UsageError: they select none, or group them in two ways.
    """
    return Selection(
        group_by=_group_by(options["names"], options["pattern"], options["group_by"]),
        types=options["types"],
        time_zone=options["time_zone"],
    )


def _group_by(names: tuple[str, ...], pattern: str | None, group_by: str | None) -> GroupBy:
    if not (names or pattern or group_by):
        raise click.UsageError(
            "which images? Give --name, --pattern or --group-by; all as one group are --group-by none"
        )
    if pattern is not None and group_by is not None:
        raise click.UsageError("--pattern groups the images itself: leave --group-by away")
    named = by_name(*names) if names else None
    if pattern is not None:
        group = by_pattern(pattern)
    elif group_by is not None:
        group = _GROUPS[group_by]
    else:
        return by_name(*names)
    return group if named is None else _within(named, group)


def _within(selected: GroupBy, group: GroupBy) -> GroupBy:
    """Return a function that groups the selected images and leaves the rest out."""
    return lambda image: None if selected(image) is None else group(image)
