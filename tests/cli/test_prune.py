"""`do-images prune`: a plan changes nothing, deletions follow the plan, and every refusal."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from zoneinfo import ZoneInfoNotFoundError

import pytest

from do_images_async.testing import Fault, ImagesEmulator
from tests.support.cli_processes import (
    Ended,
    account,
    at_the_first,
    do_images_here,
    environment,
    in_terminal,
    in_terminal_here,
    several_accounts,
    start,
)
from tests.support.servers import eventually
from tests.support.slow import fewer

KEEP_SIX = ("prune", "--name", "web-*", "--keep-last", "6")
APPLY = ("--apply", "--yes")


def add(emulator: ImagesEmulator, name: str, age: float = 1.0, **fields: Any) -> int:
    created_at = datetime.now(UTC) - timedelta(days=age)
    usual: dict[str, Any] = {"created_at": created_at.strftime("%Y-%m-%dT%H:%M:%SZ"), "size_gigabytes": 10.0}
    return emulator.images.add(name=name, **usual | fields)


@pytest.fixture
async def emulator() -> AsyncIterator[ImagesEmulator]:
    """Serve ten snapshots of a web server, one a day, the newest first, and those of a database."""
    async with ImagesEmulator(images=0, quotas=None) as running:
        for age in range(10):
            add(running, f"web-{age}", age)
        add(running, "db-1", 400)
        yield running


async def prune(emulator: ImagesEmulator, *arguments: str, **variables: str) -> Ended:
    return await do_images_here("prune", *arguments, **account(emulator, emulator.token), **variables)


def private(emulator: ImagesEmulator) -> list[dict[str, Any]]:
    return [image for image in emulator.images if not image["public"]]


def names(emulator: ImagesEmulator) -> list[str]:
    return sorted(image["name"] for image in private(emulator))


def lines_of(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]


# --- the plan ---


async def test_a_plan_says_what_is_kept_and_why_and_changes_nothing(emulator: ImagesEmulator) -> None:
    ended = await do_images_here(*KEEP_SIX, **account(emulator, emulator.token))
    assert ended.status == 0
    assert ended.stderr == "do-images: nothing was changed: --apply deletes what is to be removed\n"
    lines = ended.stdout.splitlines()
    assert lines[2] == "web: 6 kept, 4 to remove, 40 GB"
    assert [line.split()[0] for line in lines[3:13]] == ["keep"] * 6 + ["remove"] * 4
    assert lines[3].endswith("last 6, minimum 1")
    assert lines[12].split()[2:] == ["web-9", "9", "d", "10", "$0.60"]
    assert lines[-1] == (
        "11 images read, 10 in 1 group: 6 kept, 4 to remove, 40 GB, $2.40 a month at $0.06 a GB; "
        "left alone: 1 in no group"
    )
    assert emulator.requests.count("DELETE") == 0


async def test_the_plan_as_json_and_as_csv_and_in_a_file(emulator: ImagesEmulator, tmp_path: Path) -> None:
    kept, file = tmp_path / "plan.json", tmp_path / "out.csv"
    ended = await prune(emulator, *KEEP_SIX[1:], "--plan", str(kept), "-o", "json")
    plan = json.loads(ended.stdout)
    assert plan == json.loads(kept.read_text(encoding="utf-8"))
    assert plan["policy"]["keep_last"] == 6
    (only,) = plan["accounts"]
    assert (only["images"], only["candidates"], only["gigabytes"], only["monthly_savings"]) == (
        11,
        10,
        40,
        2.4,
    )
    assert [each["name"] for each in only["remove"]] == ["web-6", "web-7", "web-8", "web-9"]
    assert only["keep"][0]["reasons"] == ["last 6", "minimum 1"]
    assert only["keep"][-1]["reasons"] == ["in no group"]
    assert (await prune(emulator, *KEEP_SIX[1:], "-o", "csv", "--file", str(file))).stdout == ""
    rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
    assert [row["name"] for row in rows if row["plan"] == "remove"] == ["web-6", "web-7", "web-8", "web-9"]
    assert rows[-1]["reasons"] == "in no group"


async def test_the_rows_of_a_plan_add_up_to_its_totals(emulator: ImagesEmulator) -> None:
    for age in range(1, 12):
        add(emulator, f"odd-{age}", age, size_gigabytes=4.55)
    add(emulator, "odd-12", 12, size_gigabytes=1_234_567.5)
    policy = ("--name", "odd-*", "--keep-last", "1")
    (only,) = json.loads((await prune(emulator, *policy, "-o", "json")).stdout)["accounts"]
    rows = csv.DictReader(io.StringIO((await prune(emulator, *policy, "-o", "csv")).stdout))
    saved = sum(Decimal(row["monthly_savings"] or 0) for row in rows)
    assert saved == Decimal("74076.78")
    assert (only["gigabytes"], only["monthly_savings"]) == (1_234_613, 74_076.78)
    assert "1,234,613 GB, $74,076.78 a month" in (await prune(emulator, *policy)).stdout


async def test_a_list_of_images_protects_nothing_and_is_refused(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    file = tmp_path / "images.json"
    file.write_text(json.dumps(private(emulator)), encoding="utf-8")
    ended = await prune(emulator, *KEEP_SIX[1:], *APPLY, "--droplets", str(file))
    assert (ended.status, ended.stdout) == (2, "")
    assert f"--droplets: {file} is not a list of Droplets in JSON" in ended.stderr
    assert len(emulator.requests) == 0


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (("--name", "web-*", "--keep-within", "60h"), 3),
        (("--name", "web-*", "--keep-within", "1w"), 7),
        (("--name", "web-*", "--keep-daily", "4", "--min-keep", "5"), 5),
        (("--name", "web-[0-4]", "--keep-last", "2"), 2),
        (("--name", "db-*", "--name", "web-*", "--keep-last", "1"), 2),
        (("--group-by", "none", "--keep-last", "1"), 1),
        (("--group-by", "name", "--keep-last", "1"), 11),
        (("--group-by", "distribution", "--keep-last", "2"), 2),
        (("--group-by", "regions", "--keep-last", "2"), 2),
        (("--group-by", "tags", "--keep-last", "2"), 2),
        (("--name", "web-*", "--group-by", "tags", "--keep-last", "2"), 2),
        (("--name", "web-*", "--group-by", "name", "--keep-last", "1"), 10),
        (("--pattern", "(?P<group>[a-z]+)-.*", "--keep-last", "2"), 3),
        (("--name", "w*", "--pattern", "(?P<group>[a-z]+)-.*", "--keep-last", "2"), 2),
    ],
)
async def test_the_options_say_what_is_kept_of_what(
    emulator: ImagesEmulator, arguments: tuple[str, ...], kept: int
) -> None:
    ended = await prune(emulator, *arguments, "-o", "json")
    (only,) = json.loads(ended.stdout)["accounts"]
    assert len([each for each in only["keep"] if each["group"] is not None]) == kept
    assert len(only["keep"]) + len(only["remove"]) == 11


async def test_tags_droplets_and_other_types_are_kept(emulator: ImagesEmulator, tmp_path: Path) -> None:
    golden = add(emulator, "web-golden", 50, tags=["golden"])
    used = add(emulator, "web-used", 51)
    backup = add(emulator, "web-backup", 52, type="backup")
    droplets = tmp_path / "droplets.json"
    droplets.write_text(
        json.dumps([{"id": 1, "image": {"id": used}, "backup_ids": None, "snapshot_ids": None}]),
        encoding="utf-8",
    )
    arguments = (*KEEP_SIX[1:], "--keep-tag", "golden", "--droplets", str(droplets), "-o", "json")
    kept = json.loads((await prune(emulator, *arguments)).stdout)["accounts"][0]["keep"]
    reasons = {each["id"]: each["reasons"] for each in kept}
    assert reasons[golden] == ["tag golden"]
    assert reasons[used] == ["in use by a Droplet"]
    assert reasons[backup] == ["of type backup"]
    removed = json.loads((await prune(emulator, *arguments, "--type", "backup")).stdout)["accounts"][0][
        "remove"
    ]
    assert removed == [], "the newest backup of its group is kept"


async def test_days_begin_where_the_time_zone_says(emulator: ImagesEmulator) -> None:
    for number, moment in enumerate(("2026-01-09T23:30:00Z", "2026-01-09T12:00:00Z")):
        add(emulator, f"zone-{number}", created_at=moment)
    arguments = ("--name", "zone-*", "--keep-daily", "5", "-o", "json")
    assert len(json.loads((await prune(emulator, *arguments)).stdout)["accounts"][0]["remove"]) == 1
    there = await prune(emulator, *arguments, "--time-zone", "Europe/Berlin")
    assert json.loads(there.stdout)["accounts"][0]["remove"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no policy: say what to keep"),
        (("--name", "web-*"), "no policy: say what to keep"),
        (("--name", "web-*", "--min-keep", "5", "--keep-last", "0"), "no policy: say what to keep"),
        (("--keep-last", "3"), "which images?"),
        (("--name", "", "--keep-last", "3"), "--name must not be empty"),
        (("--pattern", "(", "--keep-last", "3"), "no regular expression"),
        (("--pattern", "web-.*", "--keep-last", "3"), "a group named group"),
        (("--pattern", "(?P<group>.)", "--group-by", "tags", "--keep-last", "3"), "leave --group-by away"),
        (("--name", "web-*", "--keep-within", "30"), "no span such as"),
        (("--name", "web-*", "--keep-within", "0d"), "--keep-within must be longer"),
        (("--name", "web-*", "--keep-last", "3", "--time-zone", "Berlin"), "no time zone"),
        (("--name", "web-*", "--keep-last", "-3"), "--keep-last"),
        (("--name", "web-*", "--keep-last", "3", "--apply"), "there is nobody to ask"),
        *(
            (("--name", "web-*", "--keep-last", "1", *APPLY, "--max-delete-fraction", value), "from 0 to 1")
            for value in ("nan", "-nan", "inf", "-0.1", "1.1", "half")
        ),
        (
            ("--name", "web-*", "--keep-last", "1", "--price", "1e308"),
            "is not a number of USD from 0 to 1,000,000",
        ),
    ],
)
async def test_wrong_usage_is_said_before_anything_is_sent(
    emulator: ImagesEmulator, arguments: tuple[str, ...], message: str
) -> None:
    ended = await prune(emulator, *arguments)
    assert (ended.status, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert len(emulator.requests) == 0


async def test_a_machine_without_time_zones_is_said_to_have_none(
    emulator: ImagesEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("do_images_async.cli.prune_policy.ZoneInfo", Mock(side_effect=ZoneInfoNotFoundError))
    monkeypatch.setattr("do_images_async.cli.prune_policy.available_timezones", set)
    ended = await prune(emulator, "--name", "web-*", "--keep-last", "3", "--time-zone", "Europe/Berlin")
    assert ended.status == 2
    assert "this machine has no time zones: pip install tzdata" in ended.stderr


async def test_a_list_that_can_not_be_shown_to_be_whole_ends_it(emulator: ImagesEmulator) -> None:
    emulator.faults.add(
        Fault(method="GET", times=None, body={"images": [], "links": {}, "meta": {"total": 3}})
    )
    ended = await prune(emulator, *KEEP_SIX[1:], *APPLY)
    assert (ended.status, ended.stdout) == (4, "")
    assert ended.stderr.startswith("do-images: incomplete: ")
    assert emulator.requests.count("DELETE") == 0


# --- deletions ---


async def test_apply_deletes_what_was_shown_and_notes_each_before_and_after(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    journal = tmp_path / "prune.jsonl"
    ended = await prune(emulator, *KEEP_SIX[1:], *APPLY, "--journal", str(journal))
    assert (ended.status, ended.stderr) == (0, "do-images: 4 of 4 images deleted (40 GB)\n")
    assert names(emulator) == ["db-1", *(f"web-{number}" for number in range(6))]
    assert sorted(line.split()[2] for line in ended.stdout.splitlines() if line.startswith("deleted ")) == [
        *("web-6", "web-7", "web-8", "web-9")
    ]
    lines = lines_of(journal)
    for image in {line["id"] for line in lines}:
        assert [line["event"] for line in lines if line["id"] == image] == ["deleting", "deleted"]
    again = await prune(emulator, *KEEP_SIX[1:], *APPLY, "--journal", str(journal))
    assert (again.status, again.stderr) == (0, "do-images: nothing to remove\n")


@pytest.mark.parametrize(("answer", "status", "left"), fewer([("y", 0, 7), ("n", 130, 11)]))
async def test_it_asks(emulator: ImagesEmulator, answer: str, status: int, left: int) -> None:
    ended = await in_terminal(*KEEP_SIX, "--apply", typed=f"{answer}\n", **account(emulator, emulator.token))
    assert ended.status == status
    assert "Delete 4 images (40 GB)? [y/N]" in ended.stderr
    assert "web-9" in ended.stdout
    assert len(names(emulator)) == left


async def test_json_of_what_was_done(emulator: ImagesEmulator) -> None:
    ended = await prune(emulator, *KEEP_SIX[1:], *APPLY, "-o", "json")
    outcomes = json.loads(ended.stdout)["outcomes"]
    assert {(each["name"], each["outcome"], each["earlier"]) for each in outcomes} == {
        (f"web-{number}", "deleted", False) for number in range(6, 10)
    }
    assert len(names(emulator)) == 7
    rest = await prune(emulator, "--name", "web-*", "--keep-last", "5", *APPLY, "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(rest.stdout)))
    assert [(row["name"], row["outcome"]) for row in rows if row["plan"] == "remove"] == [
        ("web-5", "deleted")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--keep-last", "4"), "6 of 10 images to remove, and --max-delete-fraction allows 0.5 of them"),
        (("--keep-last", "6", "--max-delete", "3"), "4 images to remove, and --max-delete allows 3"),
        (("--keep-last", "6", "--max-delete-fraction", "0.3"), "--max-delete-fraction allows 0.3 of them"),
    ],
)
async def test_a_policy_that_would_delete_too_much_deletes_nothing(
    emulator: ImagesEmulator, arguments: tuple[str, ...], message: str
) -> None:
    ended = await prune(emulator, "--name", "web-*", *arguments, *APPLY)
    assert ended.status == 5
    assert message in ended.stderr
    assert emulator.requests.count("DELETE") == 0
    shown = await prune(emulator, "--name", "web-*", *arguments)
    assert shown.status == 0
    assert f"--apply would refuse this: {message}" in shown.stderr or message in shown.stderr


async def test_a_failure_leaves_the_others_done_and_has_a_summary(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    last = min(image["id"] for image in private(emulator) if image["name"] == "web-9")
    emulator.faults.add(Fault(method="DELETE", path=f"/v2/images/{last}", status=422, times=None))
    journal = tmp_path / "prune.jsonl"
    ended = await prune(emulator, *KEEP_SIX[1:], *APPLY, "--journal", str(journal))
    assert ended.status == 3
    assert ended.stderr == "do-images: 3 of 4 images deleted (30 GB), 1 failed\n"
    assert [line["event"] for line in lines_of(journal) if line["id"] == last] == ["deleting", "failed"]
    assert "web-9" in names(emulator)


async def test_a_token_that_may_not_delete_stops_at_once(emulator: ImagesEmulator) -> None:
    emulator.faults.add(Fault(method="DELETE", status=403, times=None))
    ended = await prune(emulator, *KEEP_SIX[1:], *APPLY)
    assert ended.status == 3
    assert "0 of 4 images deleted" in ended.stderr
    assert len(names(emulator)) == 11


async def test_a_deletion_without_an_answer_is_looked_up(emulator: ImagesEmulator) -> None:
    emulator.faults.add(Fault(method="DELETE", after=True, broken="reset"))
    ended = await prune(emulator, *KEEP_SIX[1:], *APPLY, "--retries", "0")
    assert (ended.status, ended.stderr) == (0, "do-images: 4 of 4 images deleted (40 GB)\n")


async def test_an_image_that_changed_after_it_was_listed_is_not_deleted(emulator: ImagesEmulator) -> None:
    changed = [image["id"] for image in private(emulator) if image["name"] in ("web-7", "web-8")]
    first, second = changed

    def change(request: Any) -> None:
        if request.path == f"/v2/images/{first}":
            emulator.images.update(first, name="precious")
        if request.path == f"/v2/images/{second}":
            emulator.images.update(second, tags=["golden"])

    emulator.on_request.append(change)
    ended = await prune(emulator, *KEEP_SIX[1:], "--keep-tag", "gold*", *APPLY)
    assert ended.status == 5
    assert "2 of 4 images deleted (20 GB), 2 changed since the plan, so not deleted" in ended.stderr
    assert "its name was 'web-7' and is 'precious'" in ended.stdout
    assert "it has the tag golden now" in ended.stdout
    assert {"precious", "web-8"} <= set(names(emulator))


# --- a plan in a file ---


async def plan_of(emulator: ImagesEmulator, path: Path, *arguments: str) -> Path:
    ended = await prune(emulator, *KEEP_SIX[1:], "--plan", str(path), *arguments)
    assert ended.status == 0
    return path


async def test_a_plan_is_carried_out_as_it_stands(emulator: ImagesEmulator, tmp_path: Path) -> None:
    plan = await plan_of(emulator, tmp_path / "plan.json")
    for _ in range(5):
        add(emulator, "web-new", 0)  # with these, the policy would remove more
    listed = emulator.requests.count("GET", "/v2/images")
    ended = await prune(emulator, "--apply-plan", str(plan), "--yes")
    assert (ended.status, ended.stderr) == (0, "do-images: 4 of 4 images deleted (40 GB)\n")
    assert names(emulator) == ["db-1", *(f"web-{number}" for number in range(6)), *["web-new"] * 5]
    assert emulator.requests.count("GET", "/v2/images") == listed, "it is not listed again"
    again = await prune(emulator, "--apply-plan", str(plan), "--yes")
    assert again.status == 5
    assert again.stderr == (
        "do-images: 0 of 4 images deleted (0 GB), 4 already gone, not one image of the plan was there: "
        "the token may be another account's\n"
    )


async def test_the_totals_of_a_plan_are_those_of_the_images_left_in_it(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    plan = await plan_of(emulator, tmp_path / "plan.json")
    record = json.loads(plan.read_text(encoding="utf-8"))
    del record["accounts"][0]["remove"][1:]
    plan.write_text(json.dumps(record), encoding="utf-8")
    ended = await prune(emulator, "--apply-plan", str(plan), "--yes")
    assert "9 kept, 1 to remove, 10 GB, $0.60 a month" in " ".join(ended.stdout.split())
    assert ended.stderr == "do-images: 1 of 1 image deleted (10 GB)\n"
    again = await prune(emulator, "--apply-plan", str(plan), "--yes", "-o", "json")
    (account,) = json.loads(again.stdout)["accounts"]
    assert (account["gigabytes"], account["monthly_savings"]) == (10, 0.6)


async def test_a_plan_with_the_token_of_another_account_does_not_look_done(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    accounts = ("--account", "prod=PROD", "--account", "lab=LAB")
    plan = tmp_path / "plan.json"
    async with ImagesEmulator(images=0, quotas=None) as lab, several_accounts(emulator, lab) as url:
        for age in range(10):
            add(lab, f"web-{age}", age, id=500 + age)
        tokens = {"PROD": emulator.token, "LAB": lab.token, "DIGITALOCEAN_API_URL": url}
        made = await do_images_here(*KEEP_SIX, *accounts, "--plan", str(plan), **tokens)
    assert made.status == 0
    async with ImagesEmulator(images=0, quotas=None) as other:
        other.tokens.issue(token="second")
        others = {"PROD": other.token, "LAB": "second"}
        ended = await prune(other, "--apply-plan", str(plan), "--yes", *accounts, **others)
    assert ended.status == 5
    assert "8 already gone" in ended.stderr
    assert "not one image of the plan was there in prod: the token may be another account's" in ended.stderr


async def test_an_image_that_another_run_deletes_at_the_same_time_is_gone_not_deleted(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    journal = tmp_path / "prune.jsonl"
    emulator.faults.add(Fault(method="DELETE", status=404, times=None))
    ended = await prune(emulator, *KEEP_SIX[1:], *APPLY, "--journal", str(journal))
    assert (ended.status, ended.stderr) == (0, "do-images: 0 of 4 images deleted (0 GB), 4 already gone\n")
    assert {line["event"] for line in lines_of(journal)} == {"deleting", "gone"}


async def test_a_deletion_that_is_answered_with_a_login_page_did_not_happen(emulator: ImagesEmulator) -> None:
    emulator.faults.add(Fault(method="DELETE", status=200, times=None, body="<html>login</html>"))
    ended = await prune(emulator, *KEEP_SIX[1:], *APPLY, "--retries", "0")
    assert ended.status == 3
    assert "0 of 4 images deleted (0 GB), 4 failed" in ended.stderr


async def test_totals_are_finite_whatever_the_sizes_are(emulator: ImagesEmulator) -> None:
    for age, size in enumerate((1e308, 1e308, -5.0, 7.0)):
        emulator.images.update(add(emulator, f"huge-{age}", 20 + age), size_gigabytes=size)
    arguments = ("--group-by", "none", "--name", "huge-*", "--keep-tag", "golden", "--min-keep", "0")
    shown = await prune(emulator, *arguments)
    assert "at least 7 GB, $0.42 a month" in " ".join(shown.stdout.split())
    assert "all: 0 kept, 4 to remove, at least 7 GB" in shown.stdout
    assert len(re.findall(r" \?(\s|$)", shown.stdout)) == 3
    assert max(map(len, shown.stdout.splitlines())) < 200
    limits = ("--max-delete-fraction", "1")
    ended = await prune(emulator, *arguments, *APPLY, *limits, "-o", "json")
    (only,) = json.loads(ended.stdout, parse_constant=pytest.fail)["accounts"]
    assert (only["gigabytes"], only["monthly_savings"], only["unsized"]) == (7, 0.42, 3)
    assert ended.stderr.endswith("do-images: 4 of 4 images deleted (at least 7 GB)\n")


async def test_a_refused_token_is_named_once(emulator: ImagesEmulator, tmp_path: Path) -> None:
    plan = await plan_of(emulator, tmp_path / "plan.json")
    emulator.faults.add(Fault(status=401, times=None))
    ended = await prune(emulator, "--apply-plan", str(plan), "--yes")
    assert ended.status == 3
    assert ended.stderr.count("the token came from") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"created_at": "2020-01-01T00:00:00Z"},
        {"public": True},
        *({"status": status} for status in fewer(("pending", "NEW", "deleted", "retired", "a later one"))),
    ],
)
async def test_a_plan_does_not_delete_what_has_changed_since(
    emulator: ImagesEmulator, tmp_path: Path, change: dict[str, Any]
) -> None:
    plan = await plan_of(emulator, tmp_path / "plan.json")
    changed = next(image["id"] for image in private(emulator) if image["name"] == "web-9")
    emulator.images.update(changed, **change)
    ended = await prune(emulator, "--apply-plan", str(plan), "--yes")
    assert ended.status == 5
    assert "3 of 4 images deleted (30 GB), 1 changed since the plan, so not deleted" in ended.stderr
    assert emulator.requests.count("DELETE", f"/v2/images/{changed}") == 0
    if "public" in change:
        assert "it was private and is public" in " ".join(ended.stdout.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[]", "no plan of version 1"),
        ('{"schema": 2}', "no plan of version 1"),
        ('{"schema": 1}', "can't be used"),
        ('{"schema": 1, "price": NaN}', "can't be used: it holds NaN, which is no finite number"),
    ],
)
async def test_what_is_no_plan_is_refused(
    emulator: ImagesEmulator, tmp_path: Path, text: str, message: str
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(text, encoding="utf-8")
    ended = await prune(emulator, "--apply-plan", str(plan), "--yes")
    assert ended.status == 2
    assert message in ended.stderr
    assert len(emulator.requests) == 0


@pytest.mark.parametrize("name", ["made_at", "created_at"])
async def test_a_plan_whose_dates_have_no_zone_is_refused(
    emulator: ImagesEmulator, tmp_path: Path, name: str
) -> None:
    plan = await plan_of(emulator, tmp_path / "plan.json")
    plan.write_text(
        re.sub(rf'("{name}": "[^"]+)(Z|\+00:00)"', r'\1"', plan.read_text(encoding="utf-8")), encoding="utf-8"
    )
    ended = await prune(emulator, "--apply-plan", str(plan), "--yes", "-o", "csv")
    assert (ended.status, ended.stdout) == (2, "")
    assert "can't be used: Expected `datetime` with a timezone component" in ended.stderr
    assert emulator.requests.count("DELETE") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--keep-last", "3"), "leave --keep-last away"),
        (("--apply",), "--apply-plan excludes --apply and --plan"),
        (("--account", "prod=PROD"), "the plan is for one account without a name"),
        ((), "there is nobody to ask"),
    ],
)
async def test_a_plan_in_a_file_is_not_mixed_with_another(
    emulator: ImagesEmulator, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    plan = await plan_of(emulator, tmp_path / "plan.json")
    ended = await prune(emulator, "--apply-plan", str(plan), *arguments, PROD=emulator.token)
    assert ended.status == 2
    assert message in ended.stderr
    assert emulator.requests.count("DELETE") == 0


# --- the journal ---


async def test_a_journal_that_can_not_be_written_stops_before_the_deletion(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    command = (sys.executable, "-m", "do_images_async", *KEEP_SIX, *APPLY, "--journal", str(tmp_path / "j"))
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", 'ulimit -f 0; exec "$@"', "bash", *command),  # no file may grow
        env=environment(**account(emulator, emulator.token), DO_IMAGES_QUOTA_FILE="off"),
        stdout=PIPE,
        stderr=PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 74
    assert b"j could not be written: File too large; 0 of 4 images deleted" in stderr
    assert emulator.requests.count("DELETE") == 0


async def test_a_disk_that_is_full_leaves_no_half_line_in_the_journal(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    journal = tmp_path / "j"
    earlier = {"plan": "another", "event": "deleted", "account": None, "id": 1, "name": "n" * 850}
    journal.write_text(json.dumps(earlier) + "\n", encoding="utf-8")
    command = (sys.executable, "-m", "do_images_async", *KEEP_SIX, *APPLY, "--journal", str(journal))
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *command),  # no file may exceed 1024 bytes
        env=environment(**account(emulator, emulator.token), DO_IMAGES_QUOTA_FILE="off"),
        stdout=PIPE,
        stderr=PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 74, stderr
    assert lines_of(journal) == [earlier]
    assert journal.read_text(encoding="utf-8").endswith("\n")
    assert emulator.requests.count("DELETE") == 0


@pytest.mark.parametrize(("journal", "status"), [("/dev/full", 2), ("/proc/nothing/journal", 74), ("/", 2)])
async def test_what_can_be_no_journal_is_refused(emulator: ImagesEmulator, journal: str, status: int) -> None:
    ended = await prune(emulator, *KEEP_SIX[1:], *APPLY, "--journal", journal)
    assert ended.status == status
    assert "--journal" in ended.stderr
    assert emulator.requests.count("DELETE") == 0


@pytest.mark.parametrize(
    "text",
    [
        *("my notes\n", "my notes", "\n"),
        *('{"schema": 1}', '{"schema": 1}\n\n', '{"time": "12:00"}', '{"time": "12:00"}\n{"time": "12'),
    ],
)
async def test_a_file_that_is_no_journal_stays_as_it_is(
    emulator: ImagesEmulator, tmp_path: Path, text: str
) -> None:
    other = tmp_path / "notes.txt"
    other.write_text(text, encoding="utf-8")
    ended = await prune(emulator, *KEEP_SIX[1:], *APPLY, "--journal", str(other))
    assert ended.status == 2
    assert "is no journal" in ended.stderr
    assert other.read_text(encoding="utf-8") == text
    assert emulator.requests.count("DELETE") == 0


async def test_a_run_goes_on_where_the_journal_ends(emulator: ImagesEmulator, tmp_path: Path) -> None:
    plan = await plan_of(emulator, tmp_path / "plan.json")
    journal = tmp_path / "prune.jsonl"
    records = {image["id"]: dict(image) for image in private(emulator)}
    await prune(emulator, "--apply-plan", str(plan), "--yes", "--journal", str(journal))
    whole = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    # As if it had been killed after it deleted the first, and in the middle of a line about the second.
    first, second = (json.loads(whole[place])["id"] for place in (0, 1))
    kept = [
        line for line in whole if json.loads(line)["id"] == first or json.loads(line)["event"] == "deleting"
    ]
    journal.write_text("".join(kept) + '{"time": "2026-', encoding="utf-8")
    emulator.images.add(**records[second])
    gets = emulator.requests.count("GET", f"/v2/images/{first}")
    ended = await prune(emulator, "--apply-plan", str(plan), "--yes", "--journal", str(journal))
    summary = "do-images: 1 of 4 images deleted (10 GB), 3 by an earlier run\n"
    assert (ended.status, ended.stderr) == (0, summary)
    lines = ended.stdout.splitlines()
    assert sum(line.endswith(" (10 GB): by an earlier run") for line in lines) == 3
    assert sum(line.startswith(f"deleted {second} ") and line.endswith("(10 GB)") for line in lines) == 1
    assert emulator.requests.count("GET", f"/v2/images/{first}") == gets, "what is done is not asked for"
    assert {line["event"] for line in lines_of(journal)} == {"deleting", "deleted"}
    requests = len(emulator.requests)
    nothing = await prune(
        emulator, "--apply-plan", str(plan), "--yes", "--journal", str(journal), "-o", "json"
    )
    summary = "do-images: 0 of 4 images deleted (0 GB), 4 by an earlier run\n"
    assert (nothing.status, nothing.stderr, len(emulator.requests)) == (0, summary, requests)
    assert {each["earlier"] for each in json.loads(nothing.stdout)["outcomes"]} == {True}


async def test_a_journal_belongs_to_one_run_at_a_time(emulator: ImagesEmulator, tmp_path: Path) -> None:
    journal = tmp_path / "prune.jsonl"
    emulator.faults.add(Fault(method="DELETE", broken="stall", times=None))
    arguments = (*KEEP_SIX, *APPLY, "--journal", str(journal))
    first = await start(arguments, account(emulator, emulator.token))
    await eventually(lambda: emulator.requests.count("DELETE") > 0, within=60)
    second = await prune(emulator, *arguments[1:])
    first.kill()
    await first.wait()
    assert second.status == 5
    assert f"another run is writing {journal}" in second.stderr


@pytest.mark.parametrize("number", fewer([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]))
async def test_ctrl_c_sigterm_and_sighup_wait_for_deletions_in_flight_and_begin_no_other(
    number: signal.Signals, emulator: ImagesEmulator, tmp_path: Path
) -> None:
    for age in range(20, 60):
        add(emulator, f"web-{age}", age)
    journal = tmp_path / "prune.jsonl"
    emulator.faults.add(Fault(method="DELETE", delay=0.5, times=None))
    arguments = ("prune", "--name", "web-*", "--keep-last", "30", *APPLY, "--journal", str(journal))
    process = await start(arguments, account(emulator, emulator.token))
    at_the_first(emulator, "DELETE", lambda: process.send_signal(number))
    _, stderr = await process.communicate()
    assert process.returncode == -number
    events = [line["event"] for line in lines_of(journal)]
    assert events.count("deleted") == 50 - (len(names(emulator)) - 1)
    assert events.count("deleting") == events.count("deleted") + events.count("not tried")
    assert 1 <= events.count("deleted") <= 8
    assert f"interrupted: {events.count('deleted')} of 20 images deleted".encode() in stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("form", fewer(["json", "csv"]))
async def test_a_full_disk_does_not_hide_what_was_deleted(emulator: ImagesEmulator, form: str) -> None:
    with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230
        arguments = (*KEEP_SIX, *APPLY, "-o", form)
        process = await start(arguments, account(emulator, emulator.token), stdout=full.fileno())
        _, stderr = await process.communicate()
    assert process.returncode == 74
    assert stderr.decode() == (
        "do-images: the output could not be written: No space left on device; 4 of 4 images deleted (40 GB)\n"
    )


@pytest.mark.slow
async def test_a_reader_that_leaves_learns_on_stderr_how_many_were_deleted(emulator: ImagesEmulator) -> None:
    ended = await asyncio.create_subprocess_exec(
        *("bash", "-c", '"$@" | head -5; exit "${PIPESTATUS[0]}"', "bash"),
        *(sys.executable, "-m", "do_images_async", *KEEP_SIX, *APPLY),
        env=environment(**account(emulator, emulator.token)),
        stdout=PIPE,
        stderr=PIPE,
    )
    emulator.faults.add(Fault(method="DELETE", delay=1.0, times=None))  # until `head` has left
    stdout, stderr = await ended.communicate()
    assert ended.returncode == 141
    assert len(stdout.splitlines()) == 5
    assert stderr.decode() == "do-images: 4 of 4 images deleted (40 GB)\n"


@pytest.mark.slow
async def test_nohup_is_heeded(emulator: ImagesEmulator) -> None:
    emulator.faults.add(Fault(method="DELETE", delay=1.0, times=None))
    command = (sys.executable, "-m", "do_images_async", *KEEP_SIX, *APPLY)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", 'trap "" HUP; exec "$@"', "bash", *command),
        env=environment(**account(emulator, emulator.token)),
        stdout=PIPE,
        stderr=PIPE,
    )
    await eventually(lambda: emulator.requests.count("DELETE") > 0, within=60)
    process.send_signal(signal.SIGHUP)
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"do-images: 4 of 4 images deleted (40 GB)\n")


# --- several accounts ---


async def test_several_accounts_at_once(emulator: ImagesEmulator, tmp_path: Path) -> None:
    arguments = ("--account", "prod=PROD", "--account", "lab=LAB", "--name", "web-*", "--keep-last", "6")
    plan = tmp_path / "plan.json"
    async with ImagesEmulator(images=0, quotas=None) as lab, several_accounts(emulator, lab) as url:
        add(lab, "web-0", id=500)
        tokens = {"PROD": emulator.token, "LAB": lab.token, "DIGITALOCEAN_API_URL": url}
        ended = await do_images_here("prune", *arguments, "--plan", str(plan), **tokens)
    assert ended.status == 0
    assert "prod: web: 6 kept, 4 to remove, 40 GB" in ended.stdout
    assert "lab: 1 image read" in ended.stdout
    wrong = await prune(emulator, "--apply-plan", str(plan), "--yes")
    assert wrong.status == 2
    assert "the plan is for --account lab=… --account prod=…" in wrong.stderr


async def test_an_account_that_can_not_be_read_ends_it_for_all(emulator: ImagesEmulator) -> None:
    arguments = ("--account", "prod=PROD", "--account", "lab=LAB", "--name", "web-*", "--keep-last", "6")
    ended = await prune(emulator, *arguments, *APPLY, PROD=emulator.token, LAB="wrong")
    assert (ended.status, ended.stdout) == (3, "")
    assert "the token came from LAB" in ended.stderr
    assert emulator.requests.count("DELETE") == 0


@pytest.mark.parametrize(
    ("tag", "hint"),
    [
        ("nosuch", ""),
        ("Golden", "; 'golden' is another tag"),
        ("nosuch-*", ""),
        ("gold*", None),
        ("golden", None),
    ],
)
async def test_a_tag_to_keep_that_no_image_has_is_named(
    tag: str, hint: str | None, emulator: ImagesEmulator
) -> None:
    add(emulator, "web-golden", 50, tags=["golden"])
    ended = await prune(emulator, "-q", "--name", "web-*", "--keep-last", "9", "--keep-tag", tag)
    warning = f"do-images: --keep-tag keeps nothing: no image has the tag {tag!r}{hint}\n"
    assert ended.status == 0
    assert (warning in ended.stderr) == (hint is not None)
    assert ("no image has" in ended.stderr) == (hint is not None)


@pytest.mark.parametrize("columns", [30, 40, *fewer([50, 60]), 80])
async def test_the_plan_s_table_fits_a_narrow_terminal(columns: int, emulator: ImagesEmulator) -> None:
    where = account(emulator, emulator.token)
    ended = await in_terminal_here(*KEEP_SIX, "-q", COLUMNS=str(columns), **where)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", ended.stdout)
    rows = [line for line in plain.splitlines() if line.startswith(("Plan  ", "keep  ", "remove  "))]
    assert len(rows) == 11
    assert max(len(row) for row in plain.splitlines()) <= columns
    shown = [image for image in emulator.images if str(image["id"]) in plain]
    assert len(shown) == 10
    assert all(f"{image['id']}  {image['name']}" in plain for image in shown), "a name was cut"
