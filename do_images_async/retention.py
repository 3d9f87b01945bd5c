"""The images that a policy keeps: pure functions over a whole listing, with every reason.

A policy is a list of rules, and an image is kept if any of them keeps it. The rules are those of restic's
`forget` and borg's `prune`: `keep_daily=7` keeps the newest image of each of the last seven days *that have
one*.

Some images are no candidates for removal, and are kept whatever the policy says: a public image, one of
another type than asked for, one that is not available, one without a group, and one whose date is missing or
in the future. Images of one group with equal dates count as one, and are kept or removed together, unless a
tag or a Droplet keeps one of them: `keep_last=3` may keep four. The newest `min_keep` of
each group are always kept.
"""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, TypeAlias

import attrs

from do_images_async._arguments import check_callable, check_range, check_text, check_texts, ids_of, shown
from do_images_async._whole import WholeListing
from do_images_async.models import Image, ImageStatus, ImageType

__all__ = [
    "Decision",
    "GroupBy",
    "Plan",
    "Policy",
    "by_distribution",
    "by_name",
    "by_pattern",
    "by_regions",
    "by_tags",
    "one_group",
    "plan",
]

GroupBy: TypeAlias = Callable[[Image], str | None]
"""Names the group of an image; None leaves the image out of the plan, and so keeps it."""

_COUNTS: Final = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


def _tags(tags: Collection[str]) -> frozenset[str]:
    return frozenset(check_texts(tags, "keep_tags"))


@attrs.frozen(kw_only=True)
class Policy:
    """The rules for what to keep of each group.

    Args:
        keep_last: the newest so many images; those with equal dates count as one, so that more may be kept.
        keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly: the newest image of each of the last
            so many hours, days, ISO weeks, months and years that have one.
        keep_within: every image younger than this.
        keep_tags: every image with one of these tags, or with one that a pattern such as "team-*" matches.
        min_keep: the newest so many images of each group, counted likewise, whatever the other rules say.

    Raises:
        TypeError, ValueError: an argument can't be used, or only `min_keep` is given, which would remove
            everything else.
    """

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_within: timedelta | None = None
    keep_tags: frozenset[str] = attrs.field(default=frozenset(), converter=_tags)
    min_keep: int = 1

    def __attrs_post_init__(self) -> None:
        for name in (*_COUNTS, "min_keep"):
            check_range(getattr(self, name), name, 0)
        if self.keep_within is not None:
            if not isinstance(self.keep_within, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"keep_within must be a timedelta, not {type(self.keep_within).__name__}")
            if self.keep_within <= timedelta(0):
                raise ValueError("keep_within must be longer than nothing")
        if not (any(getattr(self, name) for name in _COUNTS) or self.keep_within or self.keep_tags):
            raise ValueError(f"a policy needs a rule: {', '.join(_COUNTS)}, keep_within or keep_tags")

    def kept_tags(self, image: Image) -> tuple[str, ...]:
        """Return those of the image's tags for which it is kept, in order."""
        return tuple([tag for tag in sorted(set(image.tags or ())) if self._keeps(tag)])

    def _keeps(self, tag: str) -> bool:
        # First as it stands: a tag of a server that allows "[x]" must not be taken for a pattern only.
        return tag in self.keep_tags or any(fnmatch.fnmatchcase(tag, each) for each in self.keep_tags)


@attrs.frozen
class Decision:
    """The decision on one image, and the reasons.

    Attributes:
        image: the image.
        group: the group that it belongs to; None if it is no candidate.
        keep: whether it is kept.
        reasons: every rule that keeps it, such as "last 3" or "weekly 2026-W41"; empty if it is removed.
    """

    image: Image
    group: str | None
    keep: bool
    reasons: tuple[str, ...]


@attrs.frozen
class Plan:
    """A decision for each image: group by group, the newest image first.

    Attributes:
        decisions: all of them; images without a group come last.
    """

    decisions: tuple[Decision, ...]

    @property
    def kept(self) -> tuple[Image, ...]:
        """Return the images that are kept."""
        return tuple([each.image for each in self.decisions if each.keep])

    @property
    def removed(self) -> tuple[Image, ...]:
        """Return the images that are removed."""
        return tuple([each.image for each in self.decisions if not each.keep])


def plan(
    images: WholeListing,
    policy: Policy,
    *,
    group_by: GroupBy,
    now: datetime,
    time_zone: tzinfo = UTC,
    types: Collection[str] = (ImageType.SNAPSHOT,),
    in_use: Collection[int] = (),
) -> Plan:
    """Decide for each image whether it is kept.

    Args:
        images: what `await images.list_whole(private=True)` returns. A list of images is refused: a plan for
            a part may remove what a plan for the whole keeps.
        policy: the rules.
        group_by: returns the group of an image: `by_name("web-*")`, `by_tags`, or your own function.
        now: an aware datetime: images dated later are kept, and `keep_within` counts back from it.
        time_zone: the zone in which days, weeks, months and years begin.
        types: the types of images that may be removed. The provider removes backups itself.
        in_use: ids of images that Droplets use: they are kept.

    Raises:
        TypeError, ValueError: an argument can't be used.
    """
    if not isinstance(images, WholeListing):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"images must be a WholeListing, as ImagesAPI.list_whole returns, not {type(images).__name__}"
        )
    if not isinstance(policy, Policy):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"policy must be a Policy, not {type(policy).__name__}")
    check_callable(group_by, "group_by")
    if not isinstance(time_zone, tzinfo):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"time_zone must be a tzinfo, such as a ZoneInfo, not {shown(time_zone)}")
    if not isinstance(now, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"now must be a datetime, not {type(now).__name__}")
    if now.utcoffset() is None:
        raise ValueError("now must have a time zone, as datetime.now(UTC) has")
    used = ids_of(in_use, "in_use")
    removable = frozenset(check_texts(types, "types"))
    groups: defaultdict[str, list[Image]] = defaultdict(list)
    outside: list[Decision] = []
    for image in images:
        group = group_by(image)
        reason = _no_candidate(image, group, removable, now)
        if group is None or reason:
            outside.append(Decision(image, None, keep=True, reasons=(reason or "in no group",)))
        else:
            groups[group].append(image)
    outside.sort(key=lambda decision: decision.image.id)
    decisions: list[Decision] = []
    for group in sorted(groups):
        decisions += _decide(group, groups[group], policy, now, time_zone, used)
    return Plan((*decisions, *outside))


def by_name(*globs: str) -> GroupBy:
    """Group by the first glob that matches an image's name: all images that `web-*` matches are group "web".

    Raises:
        TypeError, ValueError: a glob is not a str, or empty, or there is none.
    """
    if not globs:
        raise ValueError("by_name needs a glob at least")
    patterns = [(check_text(each, "glob").replace("*", "").strip("-_. "), each) for each in globs]

    def group(image: Image) -> str | None:
        for name, glob in patterns:
            if fnmatch.fnmatchcase(image.name, glob):
                return name or glob
        return None

    return group


def by_pattern(pattern: str | re.Pattern[str]) -> GroupBy:
    r"""Group by the group named `group` of a regular expression that matches a whole name.

    `by_pattern(r"(?P<group>.+)-\d{4}-\d\d-\d\d")` makes one group of the images of each server.

    Raises:
        ValueError: the argument is no regular expression, or has no group named `group`.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern is no regular expression: {error}") from None
    if "group" not in compiled.groupindex:
        raise ValueError("pattern needs a group named group: (?P<group>...)")

    def group(image: Image) -> str | None:
        found = compiled.fullmatch(image.name)
        return found["group"] if found else None

    return group


def by_tags(image: Image) -> str:
    """Group images that have the same set of tags."""
    return ", ".join(sorted(set(image.tags or ()))) or "without tags"


def by_distribution(image: Image) -> str:
    """Group images of the same distribution."""
    return image.distribution or "without distribution"


def by_regions(image: Image) -> str:
    """Group images that are in the same set of regions."""
    return ", ".join(sorted(set(image.regions))) or "without regions"


def one_group(image: Image) -> str:
    """Put all images into one group."""
    return "all"


def _no_candidate(image: Image, group: str | None, types: frozenset[str], now: datetime) -> str | None:
    """Return why an image can't be removed, whatever the policy says; None if it can."""
    if image.public or image.public is None:
        return "public" if image.public else "perhaps public"
    if image.type not in types:
        return f"of type {image.type or 'unknown'}"
    if image.status != ImageStatus.AVAILABLE:
        return f"status {image.status or 'unknown'}"
    if group is None:
        return "in no group"
    if image.created_at is None:
        return "without a date"
    return "dated in the future" if image.created_at > now else None


def _decide(
    group: str, images: list[Image], policy: Policy, now: datetime, zone: tzinfo, used: Container[int]
) -> Iterator[Decision]:
    """Yield the decisions for one group; images with equal dates share their reasons."""
    at: defaultdict[datetime, list[Image]] = defaultdict(list)
    for image in images:
        if image.created_at is not None:
            at[image.created_at].append(image)
    moments = sorted(at, reverse=True)
    reasons: dict[datetime, list[str]] = {moment: [] for moment in moments}
    for moment, reason in _kept(moments, policy, now, zone):
        reasons[moment].append(reason)
    for moment in moments:
        for image in sorted(at[moment], key=lambda each: each.id):
            own = [f"tag {tag}" for tag in policy.kept_tags(image)]
            if image.id in used:
                own.append("in use by a Droplet")
            why = (*reasons[moment], *own)
            yield Decision(image, group, keep=bool(why), reasons=why)


def _kept(
    moments: list[datetime], policy: Policy, now: datetime, zone: tzinfo
) -> Iterator[tuple[datetime, str]]:
    """Yield each moment that a rule keeps, with the reason; `moments` begins with the newest."""
    for moment in moments[: policy.keep_last]:
        yield moment, f"last {policy.keep_last}"
    yield from _kept_by_period(moments, policy, zone)
    if policy.keep_within is not None:
        for moment in moments:
            if now - moment < policy.keep_within:
                yield moment, f"within {_in_words(policy.keep_within)}"
    for moment in moments[: policy.min_keep]:
        yield moment, f"minimum {policy.min_keep}"


def _kept_by_period(moments: list[datetime], policy: Policy, zone: tzinfo) -> Iterator[tuple[datetime, str]]:
    """Yield the newest moment of each of the last so many hours, days, weeks, months and years."""
    for rule, count, period in (
        ("hourly", policy.keep_hourly, _hour),
        ("daily", policy.keep_daily, _day),
        ("weekly", policy.keep_weekly, _week),
        ("monthly", policy.keep_monthly, _month),
        ("yearly", policy.keep_yearly, _year),
    ):
        if not count:
            continue
        newest: dict[str, datetime] = {}
        for moment in moments:
            newest.setdefault(period(_local(moment, zone)), moment)
            if len(newest) > count:
                newest.popitem()
                break
        for name, moment in newest.items():
            yield moment, f"{rule} {name}"


def _local(moment: datetime, zone: tzinfo) -> datetime:
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment  # at an end of the calendar, where the day does not exist in another zone


def _hour(moment: datetime) -> str:
    # With the offset: when clocks go back, an hour comes twice.
    return moment.strftime("%Y-%m-%d %H:00%z")


def _day(moment: datetime) -> str:
    return moment.date().isoformat()


def _week(moment: datetime) -> str:
    year, week, _ = moment.isocalendar()
    return f"{year}-W{week:02}"


def _month(moment: datetime) -> str:
    return f"{moment.year}-{moment.month:02}"


def _year(moment: datetime) -> str:
    return str(moment.year)


def _in_words(span: timedelta) -> str:
    return f"{span.days} days" if span.days and not span.seconds else str(span)
