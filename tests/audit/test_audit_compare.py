"""Reports beside each other: of several accounts, and of two days."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from do_images_async import Image, ImageStatus, ImageType
from do_images_async.audit import AuditReport, audit, combined, compare, older_than, oversized, untagged

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


@pytest.mark.parametrize("baseline", ["{}", "[]", "null", '{"findings": 7}', '{"findings": [{}]}'])
def test_what_is_no_report(baseline: str) -> None:
    with pytest.raises(ValueError, match="baseline is no report"):
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


def test_no_account_is_no_report() -> None:
    with pytest.raises(ValueError, match="at least one"):
        combined({})
