"""The rules that compare images, use dates, or need the caller's data; and memory that does not grow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from do_images_async import Image, ImageStatus, ImageType
from do_images_async.audit import (
    END_OF_SUPPORT,
    AuditReport,
    Memory,
    Rule,
    Severity,
    audit,
    duplicate_names,
    near_retirement,
    orphaned_backups,
    required_tags,
    single_region,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def image(image_id: int = 1, **fields: Any) -> Image:
    """Return a snapshot in one region."""
    healthy: dict[str, Any] = {
        "name": f"image {image_id}",
        "type": ImageType.SNAPSHOT,
        "public": False,
        "regions": ("nyc3",),
        "tags": ("prod", "team-data"),
        "size_gigabytes": 10.0,
        "created_at": NOW - timedelta(days=10),
        "status": ImageStatus.AVAILABLE,
    }
    return Image(id=image_id, **(healthy | fields))


def run(images: Iterable[Image], *rules: Rule) -> AuditReport:
    return asyncio.run(audit(images, rules=rules, now=NOW))


def found(images: Iterable[Image], *rules: Rule) -> list[tuple[int, str]]:
    return sorted((each.image_id, each.detail) for each in run(images, *rules).findings)


def test_required_tags() -> None:
    images = [
        image(1),
        image(2, tags=("team-web",)),
        image(3, tags=None),
        image(4, tags=(), type=ImageType.BACKUP),
        image(5, tags=(), public=True),
    ]
    assert found(images, required_tags("prod", "team-*")) == [(2, "lacks prod"), (3, "lacks prod, team-*")]
    with pytest.raises(ValueError, match="patterns"):
        required_tags()


def test_one_region_only() -> None:
    images = [
        image(1),
        image(2, regions=("nyc3", "ams3")),
        image(3, regions=("nyc3", "nyc3")),
        image(4, regions=()),
        image(5, type=ImageType.BACKUP),
        image(6, public=True),
        image(7, status=ImageStatus.DELETED),
    ]
    assert found(images, single_region()) == [(1, "only in nyc3"), (3, "only in nyc3")]


def test_duplicate_names() -> None:
    images = [
        image(1, name="a"),
        image(2, name="b"),
        image(3, name="a"),
        image(1, name="a"),
        image(4, name="a", type=ImageType.BACKUP),
        image(5, name=""),
        image(6, name=""),
        image(7, name="a", public=True),
        image(8, name="\ud800"),
    ]
    assert found(images, duplicate_names()) == [(3, "has the name of 1")]
    assert found(images, duplicate_names()) == [(3, "has the name of 1")]  # an audit has its own memory


@given(st.lists(st.sampled_from("abcdefgh"), max_size=40))
@settings(derandomize=True, deadline=None, database=None)
def test_each_name_is_a_duplicate_as_often_as_it_is_repeated(names: list[str]) -> None:
    images = [image(number, name=name) for number, name in enumerate(names, 1)]
    report = run(images, duplicate_names())
    assert report.findings_total == len(names) - len(set(names))


def test_orphaned_backups() -> None:
    backup = {"type": ImageType.BACKUP}
    images = [image(1, **backup), image(2, **backup), image(3), image(4, public=True, **backup)]
    report = run(images, orphaned_backups({1}))
    assert [(each.image_id, each.stale, each.severity) for each in report.findings] == [
        (2, True, Severity.MEDIUM)
    ]


def test_public_images_near_retirement() -> None:
    base = {"public": True, "type": ImageType.BASE}
    images = [
        image(1, slug="ubuntu-20-04-x64", **base),
        image(2, slug="ubuntu-22-04-x64", **base),
        image(3, slug="debian-11-x64", **base),
        image(4, slug="ubuntu-24-04-x64", **base),
        image(5, slug="ubuntu-20-04-x64", public=True, type=ImageType.SNAPSHOT),
        image(6, slug="ubuntu-20-04-x64", status=ImageStatus.RETIRED, **base),
        image(7, slug="debian-110-x64", **base),
        image(8, slug=None, **base),
        image(9, slug="debian-11-x64", type=ImageType.BASE),
    ]
    assert found(images, near_retirement(200)) == [
        (1, "ubuntu-20-04-x64: support ended 2025-05-31"),
        (3, "debian-11-x64: support ends 2026-08-31"),
    ]
    tomorrow = {"ubuntu-24-04": date(2026, 3, 2)}
    assert found(images, near_retirement(1, tomorrow)) == [(4, "ubuntu-24-04-x64: support ends 2026-03-02")]
    with pytest.raises(ValueError, match="days"):
        near_retirement(-1)
    assert all(key == key.lower() for key in END_OF_SUPPORT)


# --- memory ---


def test_memory_tells_the_first_and_keeps_kinds_apart() -> None:
    memory = Memory()
    assert memory.first("name", "a", 7) == 7
    assert memory.first("name", "a", 8) == 7
    assert memory.first("name", "a", 7) == 7
    assert memory.first("owner", "a", 9) == 9


@pytest.mark.parametrize("image_id", [-(2**63), -7, 0, 2**63 - 1])
def test_memory_holds_every_id_that_an_answer_may_have(image_id: int) -> None:
    memory = Memory()
    assert memory.first("name", "a", image_id) == memory.first("name", "a", 8) == image_id


def test_memory_is_bounded_and_never_makes_a_repetition_up() -> None:
    memory = Memory(keys=64)
    assert all(memory.first("name", f"n{number}", number) == number for number in range(1, 2000))
    assert memory.first("name", "n1999", 5000) in (1999, 5000)
    assert sum(memory.first("name", f"n{number}", -1 % 2**63) == number for number in range(1, 2000)) <= 64


def test_memory_that_is_a_quarter_full_forgets_nothing() -> None:
    memory = Memory(keys=4096)
    for number in range(1, 1000):
        memory.first("name", f"n{number}", number)
    assert all(memory.first("name", f"n{number}", 10**6) == number for number in range(1, 1000))
