"""The audit: exact sums even if fields are missing, and findings in a total order, the worst of them kept."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from do_images_async import Image, ImagePage, ImagesAPI, ImageStatus, ImageType, Outcome
from do_images_async.audit import (
    DEFAULT_RULES,
    PRICE,
    PRICE_DATE,
    AuditReport,
    Context,
    Finding,
    Group,
    QuotaLeft,
    Rule,
    Severity,
    audit,
    combined,
    failed_import,
    older_than,
    oversized,
    retired,
    stuck_import,
    untagged,
    worst_first,
)
from do_images_async.audit.settings import settings_of
from do_images_async.testing import ImagesEmulator

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CONTEXT = Context(now=NOW)


def image(image_id: int = 1, **fields: Any) -> Image:
    """Return a snapshot without findings."""
    healthy: dict[str, Any] = {
        "name": f"image {image_id}",
        "type": ImageType.SNAPSHOT,
        "distribution": "Ubuntu",
        "public": False,
        "regions": ("nyc3",),
        "tags": ("prod",),
        "size_gigabytes": 10.0,
        "created_at": NOW - timedelta(days=10),
        "status": ImageStatus.AVAILABLE,
    }
    return Image(id=image_id, **(healthy | fields))


IMAGES = st.builds(
    Image,
    id=st.integers(1, 50),
    name=st.text(max_size=5),
    type=st.none() | st.sampled_from([*ImageType, ImageType("tomorrow's")]),
    distribution=st.none() | st.sampled_from(["", "Ubuntu", "Debian", "(none)"]),
    public=st.none() | st.booleans(),
    regions=st.lists(st.sampled_from(["nyc1", "nyc3", "ams3"]), max_size=4).map(tuple),
    tags=st.none() | st.lists(st.sampled_from(["a", "b"]), max_size=2).map(tuple),
    size_gigabytes=st.none() | st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf]),
    created_at=st.none() | st.datetimes(datetime(2019, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    status=st.none() | st.sampled_from([*ImageStatus, ImageStatus("tomorrow's")]),
    error_message=st.none() | st.text(max_size=5),
)
LISTS = st.lists(IMAGES, max_size=25, unique_by=lambda image: image.id)
# The second image of two is the duplicate: only for this rule the order of the images matters.
BASIC = (older_than(), oversized(), untagged(), failed_import(), stuck_import(), retired())
ORDERLESS = tuple(rule for rule in DEFAULT_RULES if settings_of((rule,))[0].rule != "duplicate-name")


def run(images: Iterable[Image], **options: Any) -> AuditReport:
    return asyncio.run(audit(images, now=NOW, **options))


def only(images: Iterable[Image], *rules: Rule) -> list[tuple[str, Severity, int]]:
    return [(each.rule, each.severity, each.image_id) for each in run(images, rules=rules).findings]


# --- sums ---


def test_an_account_that_was_added_up_by_hand() -> None:
    report = run(
        [
            image(1, size_gigabytes=100.0, regions=("nyc3", "ams3", "nyc3")),
            image(2, size_gigabytes=20.5, type=ImageType.CUSTOM, distribution="Debian"),
            image(3, size_gigabytes=30.0, type=ImageType.BACKUP, created_at=NOW - timedelta(days=800)),
            image(4, size_gigabytes=7.0, type=ImageType.BASE, public=True, regions=("nyc3", "sfo3")),
            image(5, size_gigabytes=None, status=ImageStatus.DELETED, type=ImageType.CUSTOM, regions=()),
            image(6, size_gigabytes=40.0, created_at=NOW - timedelta(days=400)),
        ],
        rules=BASIC,
    )
    assert report.total == Group("total", 6, 197.5, 9.63)
    assert report.private == Group("private", 5, 190.5, 9.63)
    assert report.public == Group("public", 1, 7.0, 0.0)
    assert report.backups == Group("backups", 1, 30.0, 0.0)
    assert report.stale == Group("stale", 3, 70.0, 2.4)
    assert (report.images, report.gigabytes, report.monthly_cost, report.savings) == (6, 197.5, 9.63, 2.4)
    assert report.by_type == (
        Group("snapshot", 2, 140.0, 8.4),
        Group("backup", 1, 30.0, 0.0),
        Group("custom", 2, 20.5, 1.23),
        Group("base", 1, 7.0, 0.0),
    )
    assert report.by_region == (
        Group("nyc3", 5, 197.5, 9.63),
        Group("ams3", 1, 100.0, 6.0),
        Group("sfo3", 1, 7.0, 0.0),
        Group("(none)", 1, 0.0, 0.0),
    )
    assert report.by_distribution == (Group("Ubuntu", 5, 177.0, 8.4), Group("Debian", 1, 20.5, 1.23))
    assert [(group.key, group.images) for group in report.by_age] == [
        ("under 30 days", 4),
        ("30 to 90 days", 0),
        ("90 to 180 days", 0),
        ("180 days to 1 year", 0),
        ("1 to 2 years", 1),
        ("over 2 years", 1),
    ]
    assert [(each.rule, each.image_id, each.monthly_cost) for each in report.findings] == [
        ("old", 3, 0.0),
        ("oversized", 1, 6.0),
        ("old", 6, 2.4),
        ("failed-import", 5, 0.0),
    ]
    assert [
        (each.rule, each.severity, each.findings, each.gigabytes, each.monthly_cost)
        for each in report.findings_by_rule
    ] == [
        ("old", Severity.HIGH, 2, 70.0, 2.4),
        ("oversized", Severity.MEDIUM, 1, 100.0, 6.0),
        ("failed-import", Severity.MEDIUM, 1, 0.0, 0.0),
    ]


@given(LISTS)
def test_groups_add_up_to_the_totals(images: list[Image]) -> None:
    report = run(images)
    for groups in (report.by_type, report.by_distribution, report.by_age, (report.private, report.public)):
        assert sum(group.images for group in groups) == report.images == len(images)
        assert math.isclose(sum(group.gigabytes for group in groups), report.gigabytes, abs_tol=1e-6)
        assert math.isclose(sum(group.monthly_cost for group in groups), report.monthly_cost, abs_tol=1e-6)
    assert sum(group.images for group in report.by_region) == sum(
        len(set(each.regions)) or 1 for each in images
    )
    assert 0 <= report.savings <= report.monthly_cost
    assert report.public.monthly_cost == 0


@given(LISTS, st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(images: list[Image], rng: random.Random) -> None:
    shuffled = list(images)
    rng.shuffle(shuffled)
    distinct = len({each.id for each in images}) == len(images)
    report, other = (run(each, rules=ORDERLESS, keep=5) for each in (images, shuffled))
    assert attrs.evolve(report, findings=()) == attrs.evolve(other, findings=())
    if distinct:
        assert report.findings == other.findings


@given(LISTS, st.none() | st.integers(0, 6))
def test_findings_are_counted_exactly_and_the_worst_are_kept_in_order(
    images: list[Image], keep: int | None
) -> None:
    every = [found for each in images for rule in ORDERLESS if (found := rule(each, CONTEXT))]
    report = run(images, rules=ORDERLESS, keep=keep)
    assert list(report.findings) == sorted(every, key=worst_first)[:keep]
    assert report.findings_total == len(every)
    assert {each.rule: each.findings for each in report.findings_by_rule} == Counter(f.rule for f in every)
    for summary in report.findings_by_rule:
        own = [found for found in every if found.rule == summary.rule]
        assert summary.severity == max(found.severity for found in own)
        assert math.isclose(summary.gigabytes, sum(found.gigabytes for found in own), abs_tol=1e-6)
        assert math.isclose(summary.monthly_cost, sum(found.monthly_cost for found in own), abs_tol=1e-6)


def test_many_findings_are_cut_to_the_worst_on_the_way() -> None:
    sizes = random.Random(3).sample(range(51, 2000), 1000)
    report = run(
        [image(number, size_gigabytes=float(size)) for number, size in enumerate(sizes, 1)],
        rules=BASIC,
        keep=3,
    )
    assert [finding.gigabytes for finding in report.findings] == sorted(sizes, reverse=True)[:3]
    assert report.findings_total == 1000


def test_an_image_that_comes_again_counts_once() -> None:
    images = [image(1), image(2, tags=()), image(1, name="renamed meanwhile"), image(2, tags=())]
    numbers: list[int] = []
    report = run(images, rules=BASIC, progress=numbers.append)
    once = run(images[:2], rules=BASIC)
    assert (report.total, report.private, report.by_region) == (once.total, once.private, once.by_region)
    assert (report.findings, report.findings_total, report.stale) == (once.findings, 1, once.stale)
    assert numbers == [1, 2, 2, 2]


def test_memory_grows_by_little_more_than_the_ids() -> None:
    def images(count: int) -> Iterator[Image]:
        for number in range(1, count + 1):
            if number == 100:
                tracemalloc.reset_peak()  # setting up takes more, for a moment, than is kept
            yield image(number, size_gigabytes=60.0 + number % 100)

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            run(images(count), keep=10)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    assert peak(2_000) < peak(300) + 150_000


def test_an_empty_account_has_an_empty_report() -> None:
    report = run([])
    assert (report.images, report.findings, report.findings_total) == (0, (), 0)
    assert report.by_type == report.by_region == report.by_distribution == ()
    assert {group.images for group in report.by_age} == {0}


def test_an_image_of_which_only_the_id_is_known() -> None:
    report = run([Image(id=9)])
    assert report.private.images == 1
    assert [groups[-1].key for groups in (report.by_type, report.by_region, report.by_distribution)] == (
        ["(none)"] * 3
    )
    assert report.by_age[-1] == Group("(none)", 1, 0.0, 0.0)
    assert [finding.rule for finding in report.findings] == ["untagged"]


@pytest.mark.parametrize(
    ("days", "label"),
    [
        (-1, "in the future"),
        (0, "under 30 days"),
        (29.9, "under 30 days"),
        (30, "30 to 90 days"),
        (90, "90 to 180 days"),
        (180, "180 days to 1 year"),
        (365, "1 to 2 years"),
        (730, "over 2 years"),
        (20_000, "over 2 years"),
    ],
)
def test_ages(days: float, label: str) -> None:
    report = run([image(created_at=NOW - timedelta(days=days))])
    assert [group.key for group in report.by_age if group.images] == [label]


@pytest.mark.parametrize("size", [None, 0.0, -5.0, math.nan, math.inf])
def test_a_size_that_can_not_be_is_nothing(size: float | None) -> None:
    report = run([image(size_gigabytes=size)])
    assert (report.gigabytes, report.monthly_cost) == (0.0, 0.0)


def test_prices_are_options() -> None:
    images = [
        image(1),
        image(2, type=ImageType.BACKUP),
        image(3, type=ImageType.ADMIN),
        image(4, public=True),
    ]
    assert run(images).monthly_cost == 10 * PRICE
    assert run(images, price=1.0, backup_price=0.25).monthly_cost == 12.5
    assert run(images, price=0).monthly_cost == 0


# --- rules ---


OLD = {"created_at": NOW - timedelta(days=366)}


def test_old_images() -> None:
    images = [
        image(1, created_at=NOW - timedelta(days=365)),
        image(2, created_at=NOW - timedelta(days=365, seconds=1)),
        image(3, created_at=NOW - timedelta(days=730)),
        image(4, created_at=None),
        image(5, created_at=NOW + timedelta(days=400)),
        image(6, status=ImageStatus.DELETED, **OLD),
        image(7, public=True, **OLD),
        image(8, type=ImageType.ADMIN, **OLD),
    ]
    assert only(images, older_than(365)) == [("old", Severity.HIGH, 3), ("old", Severity.MEDIUM, 2)]


def test_oversized_images() -> None:
    images = [image(1, size_gigabytes=50.0), image(2, size_gigabytes=50.1)]
    images += [image(3, size_gigabytes=60.0, public=True)]
    assert only(images, oversized(50)) == [("oversized", Severity.MEDIUM, 2)]


@pytest.mark.parametrize("tags", [None, ()])
def test_untagged_images(tags: tuple[str, ...] | None) -> None:
    images = [image(1), image(2, tags=tags), image(3, tags=tags, type=ImageType.BACKUP)]
    images += [image(4, tags=tags, public=True), image(5, tags=tags, status=ImageStatus.NEW)]
    assert only(images, untagged()) == [("untagged", Severity.LOW, 2)]


def test_failed_imports_say_why() -> None:
    images = [
        image(1, status=ImageStatus.DELETED, error_message="not an image", size_gigabytes=500.0),
        image(2, status=ImageStatus.DELETED, type=ImageType.CUSTOM),
        image(3, status=ImageStatus.DELETED, public=True, type=ImageType.CUSTOM),
        image(4, error_message="was repaired"),
        image(5, status=ImageStatus.DELETED, type=None),
        *(image(6, status=ImageStatus.DELETED, type=each) for each in (ImageType.SNAPSHOT, ImageType.BACKUP)),
    ]
    report = run(images, rules=[failed_import()])
    assert [(found.image_id, found.detail) for found in report.findings] == [
        (1, "not an image"),
        (2, "deleted; the API gives no reason"),
        (5, "deleted; the API gives no reason"),
    ]
    assert report.gigabytes == 10.0  # what failed occupies nothing


@pytest.mark.parametrize("status", [ImageStatus.NEW, ImageStatus.PENDING])
def test_stuck_imports(status: ImageStatus) -> None:
    images = [
        image(1, status=status, created_at=NOW - timedelta(hours=24)),
        image(2, status=status, created_at=NOW - timedelta(hours=25)),
        image(3, status=status, created_at=NOW - timedelta(days=30)),
        image(4, status=status, created_at=None),
        image(5, created_at=NOW - timedelta(hours=25)),
    ]
    report = run(images, rules=[stuck_import()])
    assert [(found.image_id, found.detail) for found in report.findings] == [
        (2, f"{status} for 25 hours"),
        (3, f"{status} for 30 days"),
    ]


def test_retired_images_matter_less_when_they_are_the_provider_s() -> None:
    images = [
        image(1, status=ImageStatus.RETIRED),
        image(2, status=ImageStatus.RETIRED, public=True, slug="ubuntu-20-04-x64"),
        image(3, status=ImageStatus.RETIRED, public=True),
        image(4),
    ]
    report = run(images, rules=[retired()])
    assert [(found.severity, found.image_id, found.stale, found.detail) for found in report.findings] == [
        (Severity.MEDIUM, 1, True, "retired"),
        (Severity.INFO, 2, False, "retired: ubuntu-20-04-x64"),
        (Severity.INFO, 3, False, "retired"),
    ]


def test_an_image_that_two_rules_would_delete_saves_its_cost_once() -> None:
    report = run([image(status=ImageStatus.RETIRED, created_at=NOW - timedelta(days=400))])
    assert sorted(found.rule for found in report.findings if found.stale) == ["old", "retired"]
    assert report.stale == Group("stale", 1, 10.0, 0.6)


def test_a_rule_of_one_s_own() -> None:
    def no_owner(each: Image, context: Context) -> Finding | None:
        owned = any(tag.startswith("team-") for tag in each.tags or ())
        return None if owned else context.finding(each, "no-owner", Severity.LOW, "no team tag", "tag it")

    report = run([image(1), image(2, tags=("team-data",))], rules=[no_owner])
    assert report.findings == (
        Finding(
            rule="no-owner",
            severity=Severity.LOW,
            image_id=1,
            name="image 1",
            detail="no team tag",
            action="tag it",
            gigabytes=10.0,
            monthly_cost=0.6,
            regions=("nyc3",),
            tags=("prod",),
            type="snapshot",
        ),
    )


# --- arguments ---


@pytest.mark.parametrize(
    "options",
    [
        {"price": -1.0},
        {"price": math.nan},
        {"price": Decimal("sNaN")},
        {"price": 10**400},
        {"backup_price": math.inf},
        {"keep": -1},
        {"now": datetime(2026, 3, 1)},  # noqa: DTZ001  (that is the point)
    ],
)
async def test_arguments_that_can_not_be_used(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        await audit([], **options)


@pytest.mark.parametrize("price", [Decimal("0.06"), Fraction(6, 100)])
async def test_a_price_may_be_any_real_number(price: Any) -> None:
    report = await audit([image(1)], price=price, backup_price=price, rules=[oversized(price)], now=NOW)
    assert (report.monthly_cost, report.price_date) == (0.6, PRICE_DATE)
    assert json.loads(json.dumps(report.to_dict()))["rules"][0]["settings"] == {"gigabytes": 0.06}


@pytest.mark.parametrize("options", [{"price": "0.06"}, {"backup_price": True}, {"keep": 3.0}, {"now": 7}])
async def test_an_argument_of_another_type_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(options))} must be a"):
        await audit([], **options)
    with pytest.raises(TypeError, match="days must be a number, not '365'"):
        older_than(cast("float", "365"))


@pytest.mark.parametrize("limit", [-1.0, math.nan, math.inf, 10**400])
def test_limits_that_can_not_be_used(limit: float) -> None:
    for rule in (older_than, oversized, stuck_import):
        with pytest.raises(ValueError, match="must be a finite number from 0"):
            rule(limit)


async def test_ages_are_counted_to_the_present_by_default() -> None:
    before = datetime.now(UTC)
    report = await audit([])
    assert before <= report.created_at <= datetime.now(UTC)


# --- streams ---


async def test_progress_is_called_after_each_image() -> None:
    seen: list[int] = []
    await audit([image(1), image(2)], progress=seen.append)
    assert seen == [1, 2]


async def test_any_async_iterable_will_do() -> None:
    class Stream:
        def __aiter__(self) -> AsyncIterator[Image]:
            return generate()

    async def generate() -> AsyncGenerator[Image, None]:
        yield image(1)

    assert (await audit(Stream())).images == 1


async def test_a_generator_is_closed_when_a_rule_fails() -> None:
    closed = False

    async def stream() -> AsyncGenerator[Image, None]:
        nonlocal closed
        try:
            yield image(1)
        finally:
            closed = True

    def broken(each: Image, context: Context) -> Finding | None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await audit(stream(), rules=[broken])
    assert closed


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("abc", "images must be an iterable or async iterable of images, not 'abc'"),
        ({}, "images must be an iterable or async iterable of images, not {}"),
        (5, "images must be an iterable or async iterable of images, not 5"),
        (image(), "images must be an iterable or async iterable of images, not Image("),
        ([{"id": 1}], "each of images must be an Image, not {'id': 1}"),
        ([ImagePage(images=(image(),))], "each of images must be an Image, not ImagePage("),
        ([Outcome(1, image())], "each of images must be an Image, not Outcome("),
    ],
)
async def test_what_holds_no_images_is_refused_by_name(images: Any, message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        await audit(images)


async def test_pages_and_outcomes_are_refused_with_what_to_pass_instead() -> None:
    async with (
        ImagesEmulator(images=1) as emulator,
        ImagesAPI(emulator.token, base_url=emulator.url) as api,
    ):
        pages, outcomes = api.list_pages(), api.get_many(["ubuntu-24-04-x64"])
        with pytest.raises(TypeError, match=r": use list\(\) instead of list_pages\(\)$"):
            await audit(cast("Any", pages))
        with pytest.raises(TypeError, match=r": pass what its result\(\) returns$"):
            await audit(cast("Any", outcomes))
        for closed in (pages, outcomes):
            with pytest.raises(StopAsyncIteration):
                await anext(closed)


def always(image: Image, context: Context) -> bool:
    return True


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (untagged(), "rules must be an iterable of rules, not "),
        (["old"], "each of rules must be callable, not 'old'"),
        ([always], "a rule must return a Finding or None, not True"),
    ],
)
async def test_what_is_no_rule_is_refused_by_name(rules: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        await audit([image()], rules=rules)


def interrupt(_: int) -> None:
    raise InterruptedError


@pytest.mark.parametrize("interrupted", [False, True])
async def test_a_listing_is_audited_once_and_never_taken_for_an_empty_account(interrupted: bool) -> None:
    async with (
        ImagesEmulator(quotas=None) as emulator,
        ImagesAPI(emulator.token, base_url=emulator.url) as api,
    ):
        listing = api.list(private=True)
        if interrupted:
            with pytest.raises(InterruptedError):
                await audit(listing, progress=interrupt)
        else:
            assert (await audit(listing)).images
        with pytest.raises(ValueError, match="images is a listing that was read already, in part or whole"):
            await audit(listing)


async def test_the_rest_of_a_listing_is_not_taken_for_all_of_it() -> None:
    async with (
        ImagesEmulator(quotas=None) as emulator,
        ImagesAPI(emulator.token, base_url=emulator.url) as api,
    ):
        async for _ in (listing := api.list()):
            break
        with pytest.raises(ValueError, match="images is a listing that was read already, in part or whole"):
            await audit(listing)
        await listing.aclose()
        await (closed := api.list()).aclose()
        with pytest.raises(ValueError, match="this listing was read to its end or closed: make a new one"):
            await audit(closed)


async def test_a_generator_of_images_is_audited_once() -> None:
    images = (image(each) for each in (1, 2))
    assert (await audit(images)).images == 2
    with pytest.raises(ValueError, match="images was read"):
        await audit(images)
    assert (await audit(each for each in tuple[Image]())).images == 0


async def test_a_generator_of_rules_applies_each_of_them() -> None:
    rules = (each for each in (older_than(1), untagged()))
    report = await audit([image(tags=())], rules=rules, ignore_rules=["untagged"])
    assert [each.rule for each in report.rules] == ["old", "untagged"]
    assert [each.rule for each in report.findings] == ["old"]


async def test_a_long_list_does_not_stall_the_loop() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def images() -> Iterator[Image]:
        for number in range(5_000):
            yield image(number + 1)

    other = asyncio.create_task(count_turns())
    await audit(images())
    other.cancel()
    assert turns >= 5


async def test_what_the_emulator_serves_is_reported_whole() -> None:
    async with (
        ImagesEmulator(images=450, seed=3) as emulator,
        ImagesAPI(emulator.token, base_url=emulator.url) as api,
    ):
        report = await audit(api.list(), now=NOW)
        records = list(emulator.images)
    assert report.images == len(records)
    assert report.public.images == sum(record["public"] for record in records)
    billed = sum(
        record["size_gigabytes"] or 0
        for record in records
        if not record["public"] and record["type"] != "backup" and record["status"] != "deleted"
    )
    assert math.isclose(report.monthly_cost, billed * PRICE)
    assert {group.key: group.images for group in report.by_type} == Counter(
        record["type"] for record in records
    )


# --- data ---


async def test_a_notebook_shows_the_sums_and_the_findings_with_names_escaped() -> None:
    old = image(1, name="<b>web</b>", created_at=NOW - timedelta(days=400))
    report = await audit([old, image(2)], rules=BASIC, now=NOW)
    html: Any = getattr(report, "_repr_html_")()  # noqa: B009  (what a notebook does)
    assert f"{report.images} images" in html
    assert all(f"<th>{head}</th>" in html for head in ("severity", "rule", "image", "finding"))
    assert html.count("<tr>") == 1 + len(report.findings)
    assert "&lt;b&gt;web&lt;/b&gt;" in html
    assert "<b>web</b>" not in html


async def test_the_report_as_data() -> None:
    report = attrs.evolve(
        await audit([image(1, created_at=NOW - timedelta(days=400))], rules=BASIC, now=NOW),
        requests=1,
        pages=1,
        elapsed=0.5,
        quota=(QuotaLeft(250, 60.0, 248),),
        reported_total=2,
    )
    data = report.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    amounts = {"images": 1, "gigabytes": 10.0, "monthly_cost": 0.6}
    nothing = {"images": 0, "gigabytes": 0.0, "monthly_cost": 0.0}
    assert data.pop("by_age")[4] == {"key": "1 to 2 years", **amounts}
    assert data == {
        "schema": 1,
        "created_at": "2026-03-01T12:00:00+00:00",
        "complete": False,
        "incomplete": "1 images read of 2",
        "images": 1,
        "reported_total": 2,
        "gigabytes": 10.0,
        "monthly_cost": 0.6,
        "savings": 0.6,
        "price": 0.06,
        "price_date": "2026-03-01",
        "backup_price": 0.0,
        "rules": [
            {"rule": "old", "settings": {"days": 365.0}},
            {"rule": "oversized", "settings": {"gigabytes": 50.0}},
            {"rule": "untagged", "settings": {}},
            {"rule": "failed-import", "settings": {}},
            {"rule": "stuck-import", "settings": {"hours": 24.0}},
            {"rule": "retired", "settings": {}},
        ],
        "ignored_rules": [],
        "ignored_tags": [],
        "account_names": [],
        "ignored": nothing,
        "in_use": None,
        "private": amounts,
        "public": nothing,
        "backups": nothing,
        "stale": amounts,
        "unsized": 0,
        "by_type": [{"key": "snapshot", **amounts}],
        "by_region": [{"key": "nyc3", **amounts}],
        "by_distribution": [{"key": "Ubuntu", **amounts}],
        "findings_total": 1,
        "findings_by_rule": [
            {
                "rule": "old",
                "severity": "medium",
                "action": "delete it if unused",
                "findings": 1,
                "gigabytes": 10.0,
                "monthly_cost": 0.6,
            }
        ],
        "findings": [
            {
                "rule": "old",
                "severity": "medium",
                "image_id": 1,
                "name": "image 1",
                "detail": "400 days old",
                "action": "delete it if unused",
                "gigabytes": 10.0,
                "monthly_cost": 0.6,
                "stale": True,
                "account": None,
                "regions": ["nyc3"],
                "tags": ["prod"],
                "type": "snapshot",
            }
        ],
        "requests": 1,
        "pages": 1,
        "elapsed": 0.5,
        "quota": [{"limit": 250, "per": 60.0, "left": 248}],
        "comparison": None,
    }


def test_the_repr_of_a_report_is_a_line() -> None:
    report = run([image(number) for number in range(1, 50)])
    assert repr(report) == (
        "<AuditReport of 2026-03-01 12:00 UTC: 49 images, 490.0 GB, 29.40 USD a month, "
        f"{report.findings_total} findings>"
    )
    assert "INCOMPLETE: 49 images read of 60" in repr(attrs.evolve(report, reported_total=60))


@pytest.mark.parametrize("offset", [-23, 0, 14])
@pytest.mark.parametrize("moment", [datetime.min, datetime.max])  # noqa: DTZ901
def test_dates_at_the_ends_of_the_calendar(moment: datetime, offset: int) -> None:
    zone = timezone(timedelta(hours=offset))
    report = run([image(1, created_at=moment.replace(tzinfo=zone))])
    assert report.images == 1
    json.dumps(report.to_dict(), allow_nan=False)


def test_images_without_a_possible_size_are_counted() -> None:
    sizes = (None, -5.0, math.nan, math.inf, 1e10, 0.0, 7.0)
    images = [image(number, size_gigabytes=size) for number, size in enumerate(sizes, 1)]
    others = [
        image(10, size_gigabytes=None, public=True),
        image(11, size_gigabytes=None, status=ImageStatus.DELETED),
        image(12, size_gigabytes=None, status=ImageStatus.NEW),
        image(13, size_gigabytes=None, type=ImageType.BACKUP),
    ]
    report = run([*images, *others])
    assert (report.unsized, report.gigabytes) == (6, 7.0)
    assert repr(report).startswith("<AuditReport of 2026-03-01 12:00 UTC: 11 images, 6 without a size, ")
    assert combined({"a": report, "b": report}).unsized == 12


def test_invalid_sizes_do_not_change_the_sums() -> None:
    report = run([image(1), image(2, size_gigabytes=1e308), image(3, size_gigabytes=1e308)])
    assert report.gigabytes == 10.0
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_report_is_complete_unless_the_server_counts_more() -> None:
    report = run([image(1)])
    assert report.complete
    assert attrs.evolve(report, reported_total=1).complete
    assert not attrs.evolve(report, reported_total=2).complete
