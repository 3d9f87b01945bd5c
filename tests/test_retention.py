"""What a retention policy keeps, and the laws that hold for every policy and every listing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, cast
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from do_images_async._whole import whole_listing
from do_images_async.models import Image, ImageStatus, ImageType
from do_images_async.retention import (
    Decision,
    GroupBy,
    Plan,
    Policy,
    by_distribution,
    by_name,
    by_pattern,
    by_regions,
    by_tags,
    one_group,
    plan,
)
from tests.support.slow import examples

NOW = datetime(2026, 10, 31, 12, tzinfo=UTC)
LAWS = settings(derandomize=True, deadline=None, database=None, max_examples=examples(300))


def snapshot(number: int, created_at: datetime | None, **changes: Any) -> Image:
    usual = Image(
        id=number,
        name="web",
        type=ImageType.SNAPSHOT,
        status=ImageStatus.AVAILABLE,
        public=False,
        created_at=created_at,
    )
    return attrs.evolve(usual, **changes)


def at(*moments: datetime) -> list[Image]:
    """One snapshot for each moment; the id is its place, from 1."""
    return [snapshot(number, moment) for number, moment in enumerate(moments, 1)]


def days(*ages: float) -> list[Image]:
    """One snapshot for each age in days; the id is its place, from 1."""
    return at(*(NOW - timedelta(days=age) for age in ages))


def planned(images: list[Image], policy: Policy, **options: Any) -> Plan:
    usual: dict[str, Any] = {"group_by": one_group, "now": NOW}
    return plan(whole_listing(images), policy, **usual | options)


def kept_ids(made: Plan) -> list[int]:
    return sorted(image.id for image in made.kept)


def reasons_of(made: Plan) -> dict[int, tuple[str, ...]]:
    return {decision.image.id: decision.reasons for decision in made.decisions}


# --- examples ---


def test_the_last_so_many_are_kept_and_the_newest_in_any_case() -> None:
    made = planned(days(3, 1, 2, 4), Policy(keep_last=2))
    assert kept_ids(made) == [2, 3]
    assert reasons_of(made) == {2: ("last 2", "minimum 1"), 3: ("last 2",), 1: (), 4: ()}
    assert [decision.image.id for decision in made.decisions] == [2, 3, 1, 4]


def test_a_daily_rule_keeps_the_newest_of_each_day_that_has_one() -> None:
    made = planned(days(0.1, 0.2, 3, 3.1, 9), Policy(keep_daily=2))
    assert reasons_of(made) == {
        1: ("daily 2026-10-31", "minimum 1"),
        2: (),
        3: ("daily 2026-10-28",),
        4: (),
        5: (),
    }


def test_weeks_are_iso_weeks_and_every_rule_says_its_period() -> None:
    images = [
        snapshot(1, datetime(2027, 1, 1, tzinfo=UTC)),
        snapshot(2, datetime(2026, 10, 9, 8, tzinfo=UTC)),
    ]
    policy = Policy(keep_hourly=2, keep_weekly=2, keep_monthly=2, keep_yearly=2)
    made = planned(images, policy, now=datetime(2027, 2, 1, tzinfo=UTC))
    assert reasons_of(made) == {
        1: ("hourly 2027-01-01 00:00+0000", "weekly 2026-W53", "monthly 2027-01", "yearly 2027", "minimum 1"),
        2: ("hourly 2026-10-09 08:00+0000", "weekly 2026-W41", "monthly 2026-10", "yearly 2026"),
    }


def test_keep_within_and_keep_tags() -> None:
    images = [*days(1, 6.9, 7.1), snapshot(9, NOW - timedelta(days=90), tags=("golden",))]
    made = planned(images, Policy(keep_within=timedelta(days=7), keep_tags=frozenset({"golden"})))
    assert reasons_of(made) == {
        1: ("within 7 days", "minimum 1"),
        2: ("within 7 days",),
        3: (),
        9: ("tag golden",),
    }


def test_a_tag_to_keep_may_be_a_pattern() -> None:
    tags = (("team-b", "team-a", "old"), ("Team-a",), ("x-team-a",), ("[x]",), ())
    old = [
        snapshot(number, NOW - timedelta(days=90 + number), tags=each) for number, each in enumerate(tags, 1)
    ]
    made = planned(old, Policy(keep_tags=frozenset({"team-*", "[x]"}), min_keep=0))
    assert reasons_of(made) == {1: ("tag team-a", "tag team-b"), 2: (), 3: (), 4: ("tag [x]",), 5: ()}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"public": True}, "public"),
        ({"public": None}, "perhaps public"),
        ({"type": ImageType.BACKUP}, "of type backup"),
        ({"type": None}, "of type unknown"),
        ({"status": ImageStatus.PENDING}, "status pending"),
        ({"status": None}, "status unknown"),
        ({"created_at": None}, "without a date"),
        ({"created_at": NOW + timedelta(seconds=1)}, "dated in the future"),
    ],
)
def test_what_is_no_candidate_is_kept_and_takes_no_place(changes: dict[str, Any], reason: str) -> None:
    special = attrs.evolve(snapshot(9, NOW - timedelta(days=5)), **changes)
    made = planned([special, *days(1, 2)], Policy(keep_last=1))
    assert made.decisions[-1] == Decision(special, None, keep=True, reasons=(reason,))
    assert [image.id for image in made.removed] == [2]


def test_an_image_that_a_droplet_uses_is_kept() -> None:
    made = planned(days(1, 2, 3), Policy(keep_last=1), in_use=[3])
    assert reasons_of(made) == {1: ("last 1", "minimum 1"), 2: (), 3: ("in use by a Droplet",)}


def test_images_with_equal_dates_share_their_fate() -> None:
    made = planned(days(1, 1, 2, 2), Policy(keep_last=1))
    assert kept_ids(made) == [1, 2]


def test_a_day_begins_where_the_time_zone_says() -> None:
    late = [
        snapshot(1, datetime(2026, 10, 30, 23, 30, tzinfo=UTC)),
        snapshot(2, datetime(2026, 10, 30, 12, tzinfo=UTC)),
    ]
    assert kept_ids(planned(late, Policy(keep_daily=5))) == [1]
    assert kept_ids(planned(late, Policy(keep_daily=5), time_zone=ZoneInfo("Europe/Berlin"))) == [1, 2]


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    images = [
        snapshot(1, datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        snapshot(2, datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
    ]
    made = planned(images, Policy(keep_hourly=5), time_zone=ZoneInfo("Europe/Berlin"))
    assert reasons_of(made) == {
        1: ("hourly 2026-10-25 02:00+0200",),
        2: ("hourly 2026-10-25 02:00+0100", "minimum 1"),
    }


def test_dates_at_the_ends_of_the_calendar_are_planned_too() -> None:
    images = [snapshot(1, datetime.min.replace(tzinfo=UTC)), snapshot(2, NOW - timedelta(days=1))]
    made = planned(
        images, Policy(keep_daily=1, keep_within=timedelta(days=2)), time_zone=ZoneInfo("America/New_York")
    )
    assert kept_ids(made) == [2]


def named(name: str, **changes: Any) -> Image:
    return snapshot(1, NOW, name=name, **changes)


@pytest.mark.parametrize(
    ("group_by", "image", "group"),
    [
        (by_name("web-*"), named("web-2026-11-01"), "web"),
        (by_name("web-*"), named("db-1"), None),
        (by_name("web-*", "*"), named("db-1"), "*"),
        (by_name("WEB-*"), named("web-1"), None),
        (by_pattern(r"(?P<group>.+)-\d{4}-\d\d-\d\d"), named("db-1-2026-11-01"), "db-1"),
        (by_pattern(r"(?P<group>.+)-\d{4}-\d\d-\d\d"), named("db-1"), None),
        (by_tags, named("a", tags=("b", "a")), "a, b"),
        (by_tags, named("a"), "without tags"),
        (by_distribution, named("a", distribution="Ubuntu"), "Ubuntu"),
        (by_regions, named("a", regions=("nyc3", "ams3", "nyc3")), "ams3, nyc3"),
        (one_group, named("a"), "all"),
    ],
)
def test_an_image_belongs_to_a_group(group_by: GroupBy, image: Image, group: str | None) -> None:
    assert group_by(image) == group


def test_what_is_in_no_group_is_kept() -> None:
    made = planned([named("db")], Policy(keep_last=1), group_by=by_name("web-*"))
    assert reasons_of(made) == {1: ("in no group",)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a policy needs a rule"),
        ({"min_keep": 5}, "a policy needs a rule"),
        ({"keep_last": -1}, "keep_last"),
        ({"keep_daily": 1.5}, "keep_daily"),
        ({"keep_weekly": True}, "keep_weekly"),
        ({"keep_last": 1, "min_keep": -1}, "min_keep"),
        ({"keep_within": 7}, "keep_within must be a timedelta"),
        ({"keep_within": timedelta(0)}, "keep_within must be longer"),
        ({"keep_tags": "golden"}, "keep_tags"),
    ],
)
def test_a_policy_that_can_not_be_used_says_which_rule(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Policy(**arguments)


def test_a_plan_for_what_may_be_a_part_is_refused() -> None:
    part: Any = days(1, 2, 3)
    with pytest.raises(TypeError, match="images must be a WholeListing"):
        plan(part, Policy(keep_last=1), group_by=one_group, now=NOW)


def read_already(ids: list[int]) -> Iterator[int]:
    generator = (each for each in ids)
    assert list(generator) == ids
    return generator


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: by_name(), "a glob at least"),
        (lambda: by_name(""), "glob"),
        (lambda: by_pattern("("), "no regular expression"),
        (lambda: by_pattern(".*"), "group named group"),
        (lambda: planned([], Policy(keep_last=1), now=datetime(2026, 1, 1)), "time zone"),  # noqa: DTZ001
        (lambda: planned([], Policy(keep_last=1), now="today"), "now must be a datetime"),
        (lambda: planned([], cast("Any", {"keep_last": 1})), "policy must be a Policy, not dict"),
        (lambda: planned([], Policy(keep_last=1), group_by="name"), "group_by must be callable, not 'name'"),
        (lambda: planned([], Policy(keep_last=1), time_zone="UTC"), "time_zone must be a tzinfo, such as"),
        (lambda: planned([], Policy(keep_last=1), in_use=["3"]), "each of in_use must be an int"),
        (lambda: planned([], Policy(keep_last=1), in_use=read_already([3])), "in_use was read to its end"),
        (lambda: planned([], Policy(keep_last=1), types="snapshot"), "types must be a list"),
    ],
)
def test_arguments_that_can_not_be_used_are_named(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


# --- laws ---

moments = st.one_of(
    st.none(),
    st.integers(-90 * 24, 2).map(lambda hours: NOW + timedelta(hours=hours)),
    st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
)
listings = st.lists(
    st.builds(
        snapshot,
        st.integers(1, 10**6),
        moments,
        name=st.sampled_from(["web-1", "web-2", "db-1", "other"]),
        type=st.sampled_from([ImageType.SNAPSHOT, ImageType.SNAPSHOT, ImageType.BACKUP, None]),
        status=st.sampled_from([ImageStatus.AVAILABLE, ImageStatus.AVAILABLE, ImageStatus.PENDING, None]),
        public=st.sampled_from([False, False, True, None]),
        tags=st.sampled_from([None, (), ("golden",), ("golden-1", "[x]")]),
    ),
    unique_by=lambda image: image.id,
    max_size=40,
)
counts = {
    name: st.integers(0, 6)
    for name in (
        "keep_last",
        "keep_hourly",
        "keep_daily",
        "keep_weekly",
        "keep_monthly",
        "keep_yearly",
        "min_keep",
    )
}
TAGS = ("golden", "golden-1", "[x]", "*")
keep_tags = st.sets(st.sampled_from([*TAGS, "golden-*", "*o*", "golden-?"]), max_size=2)
within = st.none() | st.integers(1, 60).map(lambda number: timedelta(days=number))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    rules: dict[str, Any] = {name: draw(count) for name, count in counts.items()}
    rules |= {"keep_within": draw(within), "keep_tags": draw(keep_tags)}
    if not any(value for name, value in rules.items() if name != "min_keep"):
        rules["keep_last"] = 1
    return Policy(**rules)


zones = st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("Pacific/Apia")])
groupings = st.sampled_from([one_group, by_name("web-*", "db-*"), by_tags, by_pattern("(?P<group>.+)-.")])


@LAWS
@given(listings, policies(), groupings, zones)
def test_each_image_is_decided_once_and_only_a_candidate_is_removed(
    images: list[Image], policy: Policy, group_by: GroupBy, zone: Any
) -> None:
    made = planned(images, policy, group_by=group_by, time_zone=zone)
    assert sorted(each.image.id for each in made.decisions) == sorted(image.id for image in images)
    assert all(bool(each.reasons) == each.keep for each in made.decisions)
    for image in made.removed:
        assert image.created_at is not None
        assert image.created_at <= NOW
        assert (image.type, image.status, image.public) == (ImageType.SNAPSHOT, ImageStatus.AVAILABLE, False)
        assert group_by(image) is not None


@LAWS
@given(listings, policies(), groupings, zones)
def test_no_group_has_fewer_than_the_minimum_afterwards(
    images: list[Image], policy: Policy, group_by: GroupBy, zone: Any
) -> None:
    made = planned(images, policy, group_by=group_by, time_zone=zone)
    for group in {each.group for each in made.decisions if each.group is not None}:
        members = [each for each in made.decisions if each.group == group]
        assert sum(each.keep for each in members) >= min(policy.min_keep, len(members))


@LAWS
@given(listings, policies(), groupings, zones)
def test_planning_again_removes_nothing(
    images: list[Image], policy: Policy, group_by: GroupBy, zone: Any
) -> None:
    made = planned(images, policy, group_by=group_by, time_zone=zone)
    again = planned(list(made.kept), policy, group_by=group_by, time_zone=zone)
    assert again.removed == ()
    assert again.decisions == tuple(each for each in made.decisions if each.keep)


@LAWS
@given(listings, policies(), policies(), groupings, zones)
def test_a_policy_that_keeps_more_removes_nothing_else(
    images: list[Image], policy: Policy, other: Policy, group_by: GroupBy, zone: Any
) -> None:
    most = {name: max(getattr(policy, name), getattr(other, name)) for name in counts}
    spans = [each.keep_within for each in (policy, other) if each.keep_within]
    more = Policy(**most, keep_within=max(spans, default=None), keep_tags=policy.keep_tags | other.keep_tags)
    less = planned(images, policy, group_by=group_by, time_zone=zone)
    assert set(kept_ids(less)) <= set(kept_ids(planned(images, more, group_by=group_by, time_zone=zone)))


@LAWS
@given(listings, policies(), groupings)
def test_a_pattern_keeps_what_the_tags_that_it_matches_keep(
    images: list[Image], policy: Policy, group_by: GroupBy
) -> None:
    tags = {tag for image in images for tag in image.tags or ()}
    matched = {tag for tag in tags if any(fnmatchcase(tag, each) for each in policy.keep_tags)}
    literal = attrs.evolve(
        policy, keep_tags=matched | (policy.keep_tags & tags), keep_last=policy.keep_last or 1
    )
    patterns = attrs.evolve(policy, keep_last=literal.keep_last)
    assert planned(images, patterns, group_by=group_by) == planned(images, literal, group_by=group_by)


@LAWS
@given(st.randoms(use_true_random=False), listings, policies(), groupings)
def test_the_order_of_the_listing_does_not_matter(
    random: Any, images: list[Image], policy: Policy, group_by: GroupBy
) -> None:
    shuffled = images.copy()
    random.shuffle(shuffled)
    assert planned(shuffled, policy, group_by=group_by) == planned(images, policy, group_by=group_by)
