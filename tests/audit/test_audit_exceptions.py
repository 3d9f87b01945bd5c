"""Images that no rule is applied to, ignored rules, and images that a Droplet uses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from do_images_async import Image, ImageStatus, ImageType
from do_images_async.audit import (
    AuditReport,
    Context,
    Finding,
    NamedRule,
    Severity,
    audit,
    combined,
    orphaned_backups,
    orphaned_snapshots,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DELETING = "delete"


def image(image_id: int, **fields: Any) -> Image:
    """Return a snapshot that is three years old."""
    old: dict[str, Any] = {
        "name": f"image {image_id}",
        "type": ImageType.SNAPSHOT,
        "public": False,
        "regions": ("nyc3", "ams3"),
        "tags": ("prod",),
        "size_gigabytes": 10.0,
        "created_at": NOW - timedelta(days=1000),
        "status": ImageStatus.AVAILABLE,
    }
    return Image(id=image_id, **(old | fields))


def run(*images: Image, **options: Any) -> AuditReport:
    return asyncio.run(audit(images, now=NOW, **options))


def test_a_rule_that_is_ignored_finds_nothing_and_saves_nothing() -> None:
    report = run(image(1, tags=()), ignore_rules=["old"])
    assert [each.rule for each in report.findings] == ["untagged"]
    assert (report.savings, report.stale.images) == (0.0, 0)
    assert report.ignored_rules == ("old",)


def test_images_with_an_ignored_tag_count_in_the_totals_only() -> None:
    report = run(image(1, tags=("keep-2026", "prod")), image(2), ignore_tags=["keep-*"])
    assert [each.image_id for each in report.findings] == [2]
    assert (report.images, report.stale.images) == (2, 1)
    assert (report.ignored.images, report.ignored.gigabytes) == (1, 10.0)
    assert report.ignored_tags == ("keep-*",)


def test_a_rule_to_ignore_must_exist() -> None:
    with pytest.raises(ValueError, match=r"ignore_rules must be 'old', .* or 'near-retirement', not 'nope'"):
        run(ignore_rules=["old", "nope"])
    with pytest.raises(ValueError, match="or 'mine', not 'nope'"):
        run(ignore_rules=["nope"], rules=[NamedRule("mine", lambda image, context: None)])
    assert run(ignore_rules=["orphaned-backup"]).ignored_rules == ("orphaned-backup",)


def test_a_finding_of_a_plain_function_is_ignored_by_any_name() -> None:
    def rule(image: Image, context: Context) -> Finding:
        return context.finding(image, "mine", Severity.LOW, "", "")

    assert run(image(1), rules=[rule], ignore_rules=["mine"]).findings == ()


@pytest.mark.parametrize("name", ["ignore_rules", "ignore_tags"])
def test_one_string_is_no_list_of_names(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        run(**{name: "old"})


def test_an_image_in_use_is_never_to_be_deleted_and_saves_nothing() -> None:
    images = [
        image(1),
        image(2),
        image(3, status=ImageStatus.RETIRED),
        image(4, status=ImageStatus.DELETED),
        image(5, type=ImageType.BACKUP),
    ]
    free, used = run(*images), run(*images, in_use={1, 3, 4, 5, 99})
    assert {each.image_id for each in free.findings if DELETING in each.action} == {1, 2, 3, 5}
    assert {each.image_id for each in used.findings if DELETING in each.action} == {2}
    assert {each.image_id for each in used.findings if each.stale} == {2}
    assert used.savings == 10 * 0.06
    assert {each.action for each in used.findings if each.image_id in (1, 3, 5)} == {
        "keep it: a Droplet uses it"
    }
    assert max(each.severity for each in used.findings if each.image_id == 1) is Severity.LOW
    assert used.in_use is not None
    assert (used.in_use.images, used.in_use.gigabytes) == (4, 30.0)
    assert free.in_use is None


def test_snapshots_that_no_droplet_lists_are_said_and_are_no_savings() -> None:
    images = [image(1), image(2), image(3, type=ImageType.CUSTOM), image(4, status=ImageStatus.DELETED)]
    report = run(*images, rules=[orphaned_snapshots({1})])
    (finding,) = report.findings
    assert (finding.rule, finding.image_id, finding.detail) == ("orphaned-snapshot", 2, "its Droplet is gone")
    assert not finding.stale


class Series:
    """A collection as pandas has it: iterated over by its values, and `in` asks its index."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, value: object) -> bool:
        return value in range(len(self))


IDS = (101, 102, 103)


@pytest.mark.parametrize("made", [Series(*IDS), Series(*map(float, IDS)), iter(IDS), (each for each in IDS)])
def test_ids_are_the_values_of_whatever_holds_them(made: Any) -> None:
    report = run(*map(image, IDS), in_use=made)
    assert report.in_use is not None
    assert (report.in_use.images, report.stale.images) == (3, 0)


@pytest.mark.parametrize(
    ("rule", "type_"),
    [(orphaned_backups, ImageType.BACKUP), (orphaned_snapshots, ImageType.SNAPSHOT)],
)
def test_the_ids_of_droplets_are_the_values_of_a_series(rule: Any, type_: ImageType) -> None:
    report = run(*(image(each, type=type_) for each in (0, *IDS)), rules=[rule(Series(*IDS))])
    assert [each.image_id for each in report.findings] == [0]


@pytest.mark.parametrize("ids", [{"101"}, "101", Series(None), {101: 1, "102": 1}, [[101]]])
def test_what_is_never_equal_to_an_id_is_no_id(ids: Any) -> None:
    with pytest.raises(TypeError, match="each of in_use must be an int"):
        run(in_use=ids)
    with pytest.raises(TypeError, match="each of backup_ids must be an int"):
        orphaned_backups(ids)


def test_what_is_no_collection_of_ids_is_named() -> None:
    with pytest.raises(TypeError, match="in_use must be a collection of ids, not 101"):
        run(in_use=101)
    for rule, name in ((orphaned_backups, "backup_ids"), (orphaned_snapshots, "snapshot_ids")):
        with pytest.raises(TypeError, match=f"{name} must be a collection of ids, not 101"):
            rule(101)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_ids_that_were_read_already_are_refused() -> None:
    ids = (each for each in IDS)
    assert list(ids)
    for option in ("in_use", "ignore_rules", "ignore_tags", "rules"):
        with pytest.raises(ValueError, match=f"{option} was read to its end or closed"):
            run(**{option: ids})


class Vast(set[int]):
    """A set whose copy would be empty."""

    def __contains__(self, value: object) -> bool:
        return value in range(100, 10**12)


@pytest.mark.parametrize("made", [range(100, 10**12), Vast(), dict.fromkeys(IDS).keys()])
def test_a_range_and_a_set_are_asked_and_not_copied(made: Any) -> None:
    report = run(*map(image, IDS), in_use=made)
    assert report.in_use is not None
    assert report.in_use.images == 3


def test_a_container_that_can_only_be_asked_is_asked() -> None:
    class Even:
        def __contains__(self, value: object) -> bool:
            return isinstance(value, int) and value % 2 == 0

    report = run(*map(image, IDS), in_use=Even())
    assert report.in_use is not None
    assert report.in_use.images == 1


def test_several_accounts_add_up_what_is_in_use_and_ignored() -> None:
    one = run(image(1), in_use={1}, ignore_tags=["keep"])
    other = run(image(2, tags=("keep",)), in_use=(), ignore_tags=["keep"])
    whole = combined({"a": one, "b": other})
    assert whole.in_use is not None
    assert (whole.in_use.images, whole.ignored.images, whole.ignored_tags) == (1, 1, ("keep",))
    assert whole.rules == one.rules
    assert combined({"a": one, "b": run(ignore_tags=["keep"])}).in_use is None
