"""Combined reports of several accounts, and the comparison of two days' reports."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import attrs
import pytest

from do_images_async import Image, ImageStatus, ImageType
from do_images_async.audit import (
    AuditReport,
    Baseline,
    audit,
    combined,
    compare,
    older_than,
    oversized,
    required_tags,
    untagged,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = (older_than(), oversized(), untagged())


def image(image_id: int, size: float = 10.0, **fields: Any) -> Image:
    healthy: dict[str, Any] = {
        "name": f"image {image_id}",
        "type": ImageType.SNAPSHOT,
        "public": False,
        "regions": ("nyc3",),
        "tags": ("prod",),
        "created_at": NOW - timedelta(days=10),
        "status": ImageStatus.AVAILABLE,
    }
    return Image(id=image_id, size_gigabytes=size, **(healthy | fields))


def run(*images: Image, keep: int = 1000) -> AuditReport:
    return asyncio.run(audit(images, rules=RULES, now=NOW, keep=keep))


def as_data(report: AuditReport) -> Any:
    return json.loads(json.dumps(report.to_dict()))


# --- two days ---


def test_what_is_new_gone_and_grown() -> None:
    before = run(image(1, 60.0), image(2, tags=()), image(3, 5.0, regions=("ams3",)))
    after = run(image(1, 60.0), image(3, 25.0, regions=("ams3",)), image(4, 70.0))
    comparison = compare(after, as_data(before))
    assert comparison.since == NOW
    assert comparison.exact
    assert [(each.rule, each.image_id) for each in comparison.new] == [("oversized", 4)]
    assert [(each.rule, each.image_id, each.name) for each in comparison.gone] == [("untagged", 2, "image 2")]
    assert [(each.group, each.key, each.images, each.gigabytes) for each in comparison.grown] == [
        ("distribution", "(none)", 0, 80.0),
        ("type", "snapshot", 0, 80.0),
        ("region", "nyc3", 0, 60.0),
        ("region", "ams3", 0, 20.0),
    ]
    assert (comparison.total.images, comparison.total.gigabytes) == (0, 80.0)
    assert comparison.total.monthly_cost == pytest.approx(80 * 0.06)
    data = attrs.evolve(after, comparison=comparison).to_dict()["comparison"]
    assert json.loads(json.dumps(data)) == data
    assert data["new"][0]["severity"] == "medium"


def test_a_report_beside_itself_shows_nothing() -> None:
    report = run(image(1, 60.0), image(2, tags=()))
    comparison = compare(report, as_data(report))
    assert (comparison.new, comparison.gone, comparison.grown) == ((), (), ())


def test_a_group_that_is_new_has_grown() -> None:
    comparison = compare(run(image(1, type=ImageType.CUSTOM)), as_data(run()))
    assert ("type", "custom", 1) in {(each.group, each.key, each.images) for each in comparison.grown}


def test_a_report_that_was_cut_is_not_exact() -> None:
    whole, cut = run(image(1, 60.0), image(2, 70.0)), run(image(1, 60.0), image(2, 70.0), keep=1)
    assert not compare(whole, as_data(cut)).exact
    assert not compare(cut, as_data(whole)).exact


def test_a_limit_that_has_changed_is_said_instead_of_findings_that_are_new() -> None:
    images = [image(number, created_at=NOW - timedelta(days=200)) for number in range(1, 9)]
    before = asyncio.run(audit([*images, image(9)], rules=RULES, now=NOW))
    rules = (older_than(180), oversized(), untagged())
    after = asyncio.run(audit([*images, image(9, 60.0)], rules=rules, now=NOW, price=0.05))
    comparison = compare(after, as_data(before))
    assert comparison.differences == ("old: days 365 then, days 180 now", "price: 0.06 then, 0.05 now")
    assert comparison.not_compared == ("old",)
    assert [(each.rule, each.image_id) for each in comparison.new] == [("oversized", 9)]
    assert comparison.exact


def test_a_rule_that_only_one_has_is_said() -> None:
    images = [image(1, tags=()), image(2, tags=("prod",))]
    before = asyncio.run(audit(images, rules=(untagged(),), now=NOW))
    after = asyncio.run(audit(images, rules=(required_tags("team-*", "prod"),), now=NOW))
    comparison = compare(after, as_data(before))
    assert comparison.differences == ("missing-tag: only now", "untagged: only then")
    assert (comparison.new, comparison.gone) == ((), ())
    other = asyncio.run(audit(images, rules=(required_tags("dev"),), now=NOW))
    (difference,) = compare(other, as_data(after)).differences
    assert difference == "missing-tag: patterns team-*, prod then, patterns dev now"


def test_images_that_only_one_report_ignores_are_not_compared() -> None:
    images = [image(1, 60.0, tags=("keep",)), image(2, 60.0), image(3, tags=())]
    before = run(*images)
    options = {"ignore_tags": ["keep"], "ignore_rules": ["untagged"]}
    after = asyncio.run(audit(images[:1], rules=RULES, now=NOW, **options))  # type: ignore[arg-type]
    comparison = compare(after, as_data(before))
    assert comparison.differences == (
        "ignored rules: none then, untagged now",
        "ignored tags: none then, keep now",
    )
    assert [each.image_id for each in comparison.gone] == [2]
    assert compare(before, as_data(after)).new == before.findings[1:2]


def test_accounts_that_only_one_report_has_are_said_and_not_compared() -> None:
    one, other = run(image(1, 60.0), image(2, 70.0)), run(image(3, 80.0), image(4))
    grown = run(image(1, 60.0), image(5, 90.0))
    comparison = compare(combined({"a": grown, "b": other}), as_data(combined({"a": one})))
    assert comparison.differences == ("accounts: a then, a, b now",)
    assert [each.image_id for each in comparison.new] == [5]
    assert [each.image_id for each in comparison.gone] == [2]
    named = compare(combined({"a": one}), as_data(one))
    assert named.differences == ("accounts: one without a name then, a now",)
    assert (named.new, named.gone) == ((), ())
    same = compare(combined({"b": other, "a": one}), as_data(combined({"a": one, "b": other})))
    assert (same.differences, same.new, same.gone) == ((), (), ())


@pytest.mark.parametrize("accounts", [{}, {"accounts": [{"account": "a"}, {"account": "b"}]}])
def test_a_baseline_without_the_names_of_its_accounts_is_compared(accounts: dict[str, Any]) -> None:
    one, other = run(image(1, 60.0)), run(image(2, 70.0))
    before = as_data(combined({"a": one, "b": other})) | accounts
    del before["account_names"]
    comparison = compare(combined({"a": run(image(1, 60.0), image(3, 80.0)), "b": run()}), before)
    assert [each.image_id for each in comparison.new] == [3]
    assert [each.image_id for each in comparison.gone] == [2]
    assert comparison.differences == ()


def test_the_earlier_one_may_be_a_report() -> None:
    before, after = run(image(1, 60.0)), run(image(1, 60.0), image(2, 70.0))
    assert compare(after, before) == compare(after, as_data(before))


def test_a_baseline_is_read_once() -> None:
    report = run(image(1, 60.0))
    baseline = Baseline.from_dict(as_data(report))
    assert (baseline.created_at, baseline.incomplete, baseline.findings_total) == (NOW, None, 1)
    assert compare(report, baseline) == compare(report, as_data(report))


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"schema": None}, "'schema' is not a whole number"),
    ({"schema": 2}, "its 'schema' is 2, and this version reads 1"),
    ({"created_at": "yesterday"}, "'created_at' is not a date"),
    ({"created_at": "2026-03-01T12:00:00"}, "'created_at' has no time zone"),
    ({"price": math.nan}, "'price' is not finite"),
    ({"monthly_cost": math.inf}, "'monthly_cost' is not finite"),
    ({"complete": "yes"}, "'complete' is not true or false"),
    ({"findings": 7}, "'findings' is not a list"),
    ({"findings": [{}]}, "it has no 'findings.0.rule'"),
    ({"findings": [7]}, "'findings.0' is not an object"),
    ({"by_type": [{"key": "snapshot", "images": True}]}, "'by_type.0.images' is not a whole number"),
    ({"price": 10**400}, "int too large"),
    ({"rules": [{"rule": "old", "settings": {"days": None}}]}, "'rules.0.settings.days' is not a number"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_is_no_report(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="baseline is no report of an audit: ") as raised:
        compare(run(), as_data(run(image(1, 60.0))) | change)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [("{}", "it has no 'schema'"), ("[]", "not an object"), ("null", "not an object")],
)
def test_what_is_no_report_at_all(baseline: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(run(), json.loads(baseline))


# --- several accounts ---


def test_the_total_of_several_accounts() -> None:
    one = attrs.evolve(run(image(1, 60.0), image(2, tags=())), requests=2, pages=1, reported_total=2)
    other = attrs.evolve(run(image(1, 70.0), image(9, 55.0)), requests=4, pages=2, reported_total=2)
    whole = combined({"a": one, "b": other})
    assert (whole.images, whole.gigabytes, whole.requests, whole.pages) == (4, 195.0, 6, 3)
    assert math.isclose(whole.monthly_cost, one.monthly_cost + other.monthly_cost)
    assert [(each.account, each.rule, each.image_id) for each in whole.findings] == [
        ("b", "oversized", 1),
        ("a", "oversized", 1),
        ("b", "oversized", 9),
        ("a", "untagged", 2),
    ]
    assert {each.rule: each.findings for each in whole.findings_by_rule} == Counter(
        each.rule for each in whole.findings
    )
    assert whole.by_region[0].images == 4
    assert [each.key for each in whole.by_age] == [each.key for each in one.by_age]
    assert whole.complete
    assert combined({"a": one, "b": other}, keep=1).findings == whole.findings[:1]
    assert compare(whole, as_data(whole)).new == ()


def test_an_account_that_is_incomplete_makes_the_total_so() -> None:
    part = attrs.evolve(run(image(1)), reported_total=5)
    whole = combined({"a": run(image(1)), "b": part})
    assert not whole.complete
    assert whole.why_incomplete == "b: 1 images read of 5"
    assert whole.reported_total is None
    assert whole.requests is None


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        ("price", {"price": 0.1}),
        ("backup_price", {"backup_price": 0.1}),
        ("rules", {"rules": [older_than(30)]}),
        ("ignored_rules", {"ignore_rules": ["old"]}),
        ("ignored_tags", {"ignore_tags": ["keep"]}),
    ],
)
def test_reports_of_other_settings_are_not_added_up(setting: str, options: dict[str, Any]) -> None:
    one, other = (asyncio.run(audit([image(1)], now=NOW, **each)) for each in ({}, options))
    with pytest.raises(ValueError, match=f"must have the same {setting}, and 'a' and 'c' have not"):
        combined({"a": one, "b": one, "c": other})


def test_reports_with_the_same_rules_in_another_order_are_added_up() -> None:
    one = asyncio.run(audit([image(1)], now=NOW, rules=(older_than(30), untagged())))
    other = asyncio.run(audit([image(2)], now=NOW, rules=(untagged(), older_than(30.0))))
    assert combined({"a": one, "b": other}).images == 2


def test_no_account_is_no_report() -> None:
    with pytest.raises(ValueError, match="at least one"):
        combined({})


def test_what_is_no_report_of_an_audit_is_refused_by_name() -> None:
    report: Any = run()
    with pytest.raises(TypeError, match="reports must be a mapping of names to reports, not "):
        combined(cast("Any", [report]))
    with pytest.raises(TypeError, match="each of reports must be an AuditReport, not "):
        combined({"a": report, "b": report.to_dict()})
    with pytest.raises(TypeError, match="report must be an AuditReport, not "):
        compare(report.to_dict(), report)
