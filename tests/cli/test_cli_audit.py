"""`do-images audit` as a process: several accounts, reports as files, comparison, exit statuses."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from do_images_async import Image
from do_images_async.audit import Finding
from do_images_async.audit import audit as audit_of
from do_images_async.cli.app import run
from do_images_async.cli.output import write_file
from do_images_async.cli.reports import report_as
from do_images_async.cli.status import Stopped
from do_images_async.testing import Fault, ImagesEmulator
from tests.support.cli_processes import Ended, account, do_images_here, files_of, several_accounts, start
from tests.support.servers import HANG, Answer, Received, Server, eventually, image_document, listing, reply
from tests.support.slow import fewer


@pytest_asyncio.fixture
async def emulator() -> AsyncGenerator[ImagesEmulator, None]:
    async with ImagesEmulator(images=40, quotas=None) as running:
        yield running


async def audit(emulator: ImagesEmulator, *arguments: str, **variables: str) -> Ended:
    return await do_images_here("audit", "-q", *arguments, **account(emulator, emulator.token), **variables)


async def test_the_report_says_what_it_is_based_on(emulator: ImagesEmulator) -> None:
    ended = await audit(emulator, "--price", "0.05", "--price-date", "2026-07-01")
    assert (ended.status, ended.stderr) == (0, "")
    assert "2 requests for 1 page" in ended.stdout
    assert "63 images read of 63 that the server" in ended.stdout
    assert "at $0.05 per GB (of 2026-07-01)" in ended.stdout


async def test_findings_as_csv(emulator: ImagesEmulator) -> None:
    emulator.images.add(name="=cmd|'/c calc'!A0")
    rows = list(csv.DictReader(io.StringIO((await audit(emulator, "-o", "csv")).stdout)))
    data = json.loads((await audit(emulator, "-o", "json")).stdout)
    assert list(rows[0]) == list(Finding.__annotations__)
    assert len(rows) == data["findings_total"]
    assert [int(row["image_id"]) for row in rows] == [each["image_id"] for each in data["findings"]]
    assert {row["name"] for row in rows if "calc" in row["name"]} == {"'=cmd|'/c calc'!A0"}


async def test_csv_holds_every_finding_however_many(server: Server) -> None:
    server.answer_with(listing(2100, name="one", tags=[], size_gigabytes=60.0))
    table = (await do_images_here("audit", "-q", "-o", "csv", **account(server))).stdout
    assert table.count("\n") == 1 + 5 * 2100 - 1  # the first of a name is no duplicate


@pytest.mark.parametrize("count", [0, 1, 100, 101, 250])
async def test_json_in_parts_is_the_report_s_data(count: int) -> None:
    report = await audit_of([Image(id=number, name='"findings": []') for number in range(count)])
    parts = report_as("json", report, {}, None, "")
    assert "".join(parts) == json.dumps(report.to_dict(), indent=2) + "\n"


@pytest.mark.parametrize("form", ["json", "csv"])
async def test_the_text_of_many_findings_is_never_in_memory_at_once(form: str) -> None:
    report = await audit_of([Image(id=number, name="one" * 50) for number in range(1000)])
    tracemalloc.start()
    length = sum(map(len, report_as(form, report, {}, None, "")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < length


async def test_output_and_page_are_whole_files(emulator: ImagesEmulator, tmp_path: Path) -> None:
    report, page = tmp_path / "report.json", tmp_path / "report.html"
    for form, file in (("json", report), ("html", page)):
        ended = await audit(emulator, "-o", form, "--file", str(file))
        assert (ended.status, ended.stdout, ended.stderr) == (0, "", "")
    assert json.loads(report.read_text(encoding="utf-8"))["images"] == 63
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert page.read_text(encoding="utf-8").endswith("</html>\n")
    assert files_of(tmp_path) == ["report.html", "report.json"]


async def test_a_page_shows_as_many_findings_as_top_says(emulator: ImagesEmulator) -> None:
    for top, rows in (("3", 3), ("0", 0)):
        page = (await audit(emulator, "-o", "html", "--top", top)).stdout
        assert page.count("<tr data-id=") == rows
        assert f"it holds the worst {top}, as --top says" in page
        assert "No rule found anything" not in page


async def test_a_baseline_that_does_not_hold_all_its_findings_is_refused(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    cut, whole = tmp_path / "cut.json", tmp_path / "whole.json"
    await audit(emulator, "-o", "json", "--top", "3", "--file", str(cut))
    await audit(emulator, "-o", "json", "--file", str(whole))
    found = json.loads(whole.read_text(encoding="utf-8"))["findings_total"]
    refused = await audit(emulator, "--baseline", str(cut))
    assert (refused.status, refused.stdout) == (2, "")
    assert f"holds 3 of its {found} findings" in refused.stderr
    assert "make it without --top" in refused.stderr


async def test_a_baseline_of_the_future_is_refused(emulator: ImagesEmulator, tmp_path: Path) -> None:
    last = tmp_path / "last.json"
    await audit(emulator, "-o", "json", "--file", str(last))
    last.write_text(
        json.dumps(
            json.loads(last.read_text(encoding="utf-8")) | {"created_at": "2999-01-01T01:00:00+01:00"}
        ),
        encoding="utf-8",
    )
    ended = await audit(emulator, "--baseline", str(last))
    assert (ended.status, ended.stdout) == (2, "")
    assert f"{last} is of 2999-01-01 00:00 UTC, which is in the future" in ended.stderr


async def test_two_reports_compare(emulator: ImagesEmulator, tmp_path: Path) -> None:
    last = tmp_path / "last.json"
    await audit(emulator, "-o", "json", "--file", str(last))
    big = emulator.images.add(name="big", size_gigabytes=200.0, tags=["prod"])
    gone = json.loads(last.read_text(encoding="utf-8"))["findings"][0]["image_id"]
    emulator.images.remove(gone)
    ended = await audit(emulator, "-o", "json", "--baseline", str(last))
    comparison = json.loads(ended.stdout)["comparison"]
    assert comparison["exact"]
    assert ("oversized", big) in {(each["rule"], each["image_id"]) for each in comparison["new"]}
    assert gone in {each["image_id"] for each in comparison["gone"]}
    assert ("region", "nyc3") in {(each["group"], each["key"]) for each in comparison["grown"]}
    text = (await audit(emulator, "--baseline", str(last))).stdout
    assert re.search(r"Since 20\S+ \S+ UTC\n", text)
    assert f"oversized {big} big" in text


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{}", "is no report of an audit: it has no 'schema'"),
        ('{"schema": 9}', "is no report of an audit: its 'schema' is 9, and this version reads 1"),
        ("[]", "is no report of an audit: it is not an object"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"schema": 1, "price": NaN}', "can't be used: it holds NaN, which is no finite number"),
        ('{"schema": 1, "price": 1e999}', "can't be used: it holds 1e999, which is no finite number"),
    ],
)
async def test_a_baseline_that_is_none_is_refused_before_anything_is_sent(
    content: str, why: str, emulator: ImagesEmulator, tmp_path: Path
) -> None:
    last = tmp_path / "last.json"
    last.write_text(content, encoding="utf-8")
    ended = await audit(emulator, "--baseline", str(last))
    assert (ended.status, ended.stdout) == (2, "")
    assert f"--baseline: {last} {why}" in ended.stderr
    assert not emulator.requests


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-o", "csv"], "--baseline is for the other formats"),
        (["-o", "text", "--file", "{last}"], "add -o json"),
        (["-o", "html", "--file", "{last}"], "add -o json"),
        (["-o", "json", "--file", "{last}", "--top", "9"], "leave --top away"),
    ],
)
async def test_a_baseline_that_would_be_lost_or_without_effect_is_refused(
    arguments: list[str], named: str, emulator: ImagesEmulator, tmp_path: Path
) -> None:
    last = tmp_path / "last.json"
    for content in (None, "{}"):  # the first run has no earlier report
        if content:
            last.write_text(content, encoding="utf-8")
        given = [each.format(last=last) for each in arguments]
        ended = await audit(emulator, "--baseline", str(last), *given)
        assert (ended.status, ended.stdout) == (2, "")
        assert named in " ".join(ended.stderr.split())
        assert not emulator.requests
    assert last.read_text(encoding="utf-8") == "{}"


async def test_a_partial_baseline_is_refused(emulator: ImagesEmulator, tmp_path: Path) -> None:
    last = tmp_path / "last.json"
    await audit(emulator, "-o", "json", "--file", str(last))
    partial = json.loads(last.read_text(encoding="utf-8")) | {
        "complete": False,
        "incomplete": "interrupted after 7 images",
    }
    last.write_text(json.dumps(partial), encoding="utf-8")
    sent = len(emulator.requests)
    ended = await audit(emulator, "--baseline", str(last))
    assert (ended.status, ended.stdout) == (2, "")
    assert f"{last} is a partial report, which can't be compared with: interrupted after 7" in ended.stderr
    assert len(emulator.requests) == sent


@pytest.mark.parametrize("form", ["text", "html"])
async def test_a_baseline_of_other_limits_says_so_instead_of_new_findings(
    form: str, emulator: ImagesEmulator, tmp_path: Path
) -> None:
    last = tmp_path / "last.json"
    await audit(emulator, "-o", "json", "--file", str(last))
    arguments = ("--baseline", str(last), "--older-than", "30")
    ended = await audit(emulator, "-o", form, *arguments)
    assert "old: days 365 then, days 30 now" in ended.stdout
    assert "old 130" not in ended.stdout.partition("By type")[0] or form == "html"
    comparison = json.loads((await audit(emulator, "-o", "json", *arguments)).stdout)["comparison"]
    assert comparison["not_compared"] == ["old"]
    assert comparison["new"] == []


@pytest.mark.parametrize(("named", "name"), [((), "this account"), (("--account", "prod=ONE"), "prod")])
async def test_a_baseline_without_an_image_of_the_account_is_questioned(
    named: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    last = tmp_path / "last.json"

    async def run_on(*ids: int, baseline: Path | None = last) -> str:
        """Return stderr of an audit of an account that has these images."""
        async with ImagesEmulator(images=0, quotas=None) as account:
            for image_id in ids:
                account.images.add(id=image_id, tags=[])
            variables = {"DIGITALOCEAN_API_URL": account.url, "ONE": account.token}
            variables |= {} if named else {"DIGITALOCEAN_TOKEN": account.token}
            options = ("--baseline", str(baseline)) if baseline else ("-o", "json", "--file", str(last))
            ended = await do_images_here("audit", "-q", *named, *options, **variables)
        assert ended.status == 0
        return ended.stderr

    assert await run_on(5, 6, baseline=None) == ""
    assert await run_on(6, 7) == ""
    question = (
        f"do-images: {name} has none of the images with findings in {last}: unless all were deleted since, "
        "that is a report of another account\n"
    )
    assert [await run_on(7, 8), await run_on()] == [question, question]


async def test_a_baseline_with_findings_about_public_images_alone_is_not_questioned(tmp_path: Path) -> None:
    last = tmp_path / "last.json"
    async with ImagesEmulator(images=0, quotas=None) as emulator:
        await audit(emulator, "-o", "json", "--file", str(last))
        found = {each["image_id"] for each in json.loads(last.read_text(encoding="utf-8"))["findings"]}
        assert found, "there are images whose support ended years ago"
        for image_id in found:
            emulator.images.remove(image_id)
        emulator.images.add(tags=[])
        ended = await audit(emulator, "--baseline", str(last))
    assert (ended.status, ended.stderr) == (0, "")


async def test_what_is_left_out_is_said(emulator: ImagesEmulator) -> None:
    emulator.images.add(name="kept", size_gigabytes=200.0, tags=["keep-it"])
    emulator.images.add(name="found", size_gigabytes=201.0)
    ignoring = ("--ignore-rule", "old", "--ignore-rule", "untagged", "--ignore-tag", "keep-*,never")
    report = json.loads((await audit(emulator, "-o", "json", *ignoring)).stdout)
    assert not {"old", "untagged"} & {each["rule"] for each in report["findings"]}
    assert [each["name"] for each in report["findings"] if each["rule"] == "oversized"][:1] == ["found"]
    assert report["ignored"]["images"] == 1
    text = " ".join((await audit(emulator, *ignoring)).stdout.split())
    assert "Findings left out: old, untagged." in text
    assert "No rule is applied to 1 image tagged keep-*, never." in text
    assert "Limits: old days 365; oversized gigabytes 50" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--require-tag", ""], "--require-tag"),
        (["--require-tag", "prod,,x"], "--require-tag"),
        (["--ignore-tag", " "], "--ignore-tag"),
        (["--ignore-rule", "odl"], "--ignore-rule"),
        (["--older-than", "a year"], "'--older-than': 'a year' is not a finite number from 0."),
        (["--price", "nan"], "'--price': 'nan' is not a number of USD"),
        (["--price", "1e308"], "'1e308' is not a number of USD from 0 to 1,000,000"),
        (["--droplets", "/dev/null"], "--droplets: /dev/null is not JSON"),
    ],
)
async def test_an_argument_that_can_t_be_used_is_named(arguments: list[str], named: str) -> None:
    ended = await do_images_here("audit", "--demo", "-q", *arguments)
    assert (ended.status, ended.stdout) == (2, "")
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("form", fewer(["json", "text", "csv", "html"]))
async def test_dates_at_the_ends_of_the_calendar_and_absurd_sizes(form: str, server: Server) -> None:
    images = [
        image_document(1, created_at="0001-01-01T00:00:00+14:00", size_gigabytes=1e308, public=False),
        image_document(2, created_at="9999-12-31T23:59:59-12:00", size_gigabytes=1e308, public=False),
        image_document(3, created_at="2020-01-01T00:00:00Z", size_gigabytes=7.5, public=False),
    ]
    server.answer_with(lambda _: reply({"images": images, "meta": {"total": 3}, "links": {}}))
    ended = await do_images_here("audit", "-q", "-o", form, **account(server))
    assert (ended.status, ended.stderr) == (0, "")
    assert "7.5" in ended.stdout
    assert "e+308" not in ended.stdout
    if form == "json":
        assert json.loads(ended.stdout)["gigabytes"] == 7.5
        assert json.loads(ended.stdout)["unsized"] == 2
    elif form != "csv":
        assert "2 images without a valid size count as 0 GB" in ended.stdout


async def test_a_narrow_terminal_keeps_what_names_a_row(emulator: ImagesEmulator) -> None:
    image = emulator.images.add(name="big", size_gigabytes=123_456.0)
    lines = (await audit(emulator, COLUMNS="40")).stdout.splitlines()
    assert max(map(len, lines)) <= 40
    assert "180 days to 1 year" in "\n".join(lines)
    for head, columns in (("Findings", "worst  *what to do"), ("        id", "name  *finding")):
        assert any(re.search(f"^ *{head.strip()} *{columns}", line) for line in lines), head
    assert any(line.startswith(f"{image}  big") for line in lines)
    assert any(line.split()[:2] == ["ams3", "1"] or line.startswith("nyc3") for line in lines)
    assert not [line for line in lines if re.search(r"[0-9]…", line) and "GB" in line]


async def test_fail_on(emulator: ImagesEmulator) -> None:
    emulator.images.add(name="big", size_gigabytes=200.0)
    quiet = ("--older-than", "1e6", "--stuck", "1e6")
    assert (await audit(emulator, *quiet, "--fail-on", "high")).status == 0
    ended = await audit(emulator, *quiet, "--fail-on", "medium")
    assert ended.status == 1
    assert re.fullmatch(r"do-images: findings as severe as --fail-on medium: 1 of \d+\n", ended.stderr)
    assert "oversized" in ended.stdout


async def test_findings_in_a_file_are_said_on_stderr(emulator: ImagesEmulator, tmp_path: Path) -> None:
    emulator.images.add(name="big", size_gigabytes=200.0)
    report = tmp_path / "images.json"
    ended = await audit(emulator, "--fail-on", "info", "-o", "json", "--top", "1", "--file", str(report))
    total = json.loads(report.read_text(encoding="utf-8"))["findings_total"]
    assert (ended.status, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"do-images: findings as severe as --fail-on info: {total} of {total}; the report is in {report}\n"
    )
    lost = await audit(emulator, "--fail-on", "info", "--file", str(tmp_path / "none" / "images.txt"))
    assert lost.status == 74
    assert "the report is in" not in lost.stderr


async def test_tags_that_are_required(emulator: ImagesEmulator) -> None:
    ended = await audit(emulator, "-o", "json", "--require-tag", "prod,team-*")
    findings: list[dict[str, Any]] = json.loads(ended.stdout)["findings"]
    assert [each for each in findings if each["rule"] == "missing-tag"]
    assert not [each for each in findings if each["rule"] == "untagged"]


async def test_droplets_protect_what_they_use_and_show_what_lost_its_own(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    free = json.loads((await audit(emulator, "-o", "json")).stdout)
    stale = [each for each in free["findings"] if each["stale"] and each["rule"] == "old"]
    base = stale[0]["image_id"]
    backups = [each["id"] for each in emulator.images if each["type"] == "backup"]
    snapshots = [each["id"] for each in emulator.images if each["type"] == "snapshot" and not each["public"]]
    droplets = tmp_path / "droplets.json"
    records: list[dict[str, Any]] = [
        {"id": 1, "image": {"id": base, "slug": None}, "backup_ids": backups[:-1], "snapshot_ids": None},
        {"id": 2, "image": {"id": 7, "slug": "debian-12-x64"}, "snapshot_ids": snapshots[:2]},
    ]
    droplets.write_text(json.dumps(records), encoding="utf-8")
    report = json.loads((await audit(emulator, "-o", "json", "--droplets", str(droplets))).stdout)
    used = {base, *backups[:-1], *snapshots[:2]}
    for finding in report["findings"]:
        if finding["image_id"] in used:
            assert not finding["stale"]
            assert "delete it" not in finding["action"]
    assert {each["action"] for each in report["findings"] if each["image_id"] == base} >= {
        "keep it: a Droplet uses it"
    }
    assert report["savings"] < free["savings"]
    assert report["in_use"]["images"] == len(used)
    found = {
        rule: [each["image_id"] for each in report["findings"] if each["rule"] == rule]
        for rule in ("orphaned-backup", "orphaned-snapshot")
    }
    assert found["orphaned-backup"] == backups[-1:]
    assert not used & set(found["orphaned-snapshot"])
    assert len(found["orphaned-snapshot"]) > 5
    text = " ".join((await audit(emulator, "--droplets", str(droplets))).stdout.split())
    assert f"{len(used)} images in use by Droplets: not counted as savings." in text


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[1]", "is not a list of Droplets in JSON"),
        ('{"errors": [{"detail": "unauthorized"}]}', "is not a list of Droplets in JSON"),
        ('[{"id": 1, "image": {"id": "x"}}]', "is not a list of Droplets in JSON"),
        ('[{"id": 1, "image": {"id": 1e999}}]', "can't be used: it holds 1e999, which is no finite number"),
        ('[{"name": "an image"}]', "is not a list of Droplets in JSON"),
        ('[{"id": 1}]', "is not a list of Droplets in JSON"),
        ('[{"id": 1, "image": null}, {"id": 2}]', "is not a list of Droplets in JSON"),
        ('{"droplets": [{"id": 1, "image": {"id": 2}}], "meta": {"total": 300}}', "holds 1 Droplets of 300"),
    ],
)
async def test_what_is_no_whole_list_of_droplets_is_refused(
    content: str, why: str, emulator: ImagesEmulator, tmp_path: Path
) -> None:
    droplets = tmp_path / "droplets.json"
    droplets.write_text(content, encoding="utf-8")
    ended = await audit(emulator, "--droplets", str(droplets))
    assert (ended.status, ended.stdout) == (2, "")
    assert f"--droplets: {droplets} {why}" in ended.stderr
    assert not emulator.requests


# --- several accounts ---


async def test_several_accounts_at_once(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    async with (
        ImagesEmulator(images=40, quotas=None, token="first") as prod,
        ImagesEmulator(images=0, quotas=None, token="second") as lab,
        several_accounts(prod, lab) as url,
    ):
        lab.images.add(id=5, created_at="2020-01-01T00:00:00Z")
        variables = {"ONE": "first", "TWO": "second\n", "DIGITALOCEAN_API_URL": url}
        named = ("--account", "prod=ONE", "--account", "lab=TWO")
        ended = await do_images_here("audit", *named, "-o", "json", **variables)
        await do_images_here("audit", *named, "-o", "html", "--file", str(page), **variables)
        text = (await do_images_here("audit", *named, **variables)).stdout
    assert (ended.status, ended.stderr) == (0, "")
    data = json.loads(ended.stdout)
    assert [(each["account"], each["images"]) for each in data["accounts"]] == [("prod", 63), ("lab", 24)]
    assert data["images"] == data["reported_total"] == 87
    assert data["requests"] == sum(each["requests"] for each in data["accounts"]) == 4
    assert {each["account"] for each in data["findings"]} == {"prod", "lab"}
    assert "By account" in text
    assert "2 accounts: prod, lab" in text
    assert 'data-label="Account"' in page.read_text(encoding="utf-8")


async def test_two_tokens_of_one_account_are_refused() -> None:
    async with ImagesEmulator(images=2, quotas=None, token="first") as emulator:
        emulator.tokens.issue(token="second")
        variables = {"ONE": "first", "TWO": "second", "DIGITALOCEAN_API_URL": emulator.url}
        named = ("-q", "--account", "prod=ONE", "--account", "lab=TWO")
        for command in (("audit",), ("prune", "--group-by", "none", "--keep-last", "1")):
            ended = await do_images_here(*command, *named, **variables)
            assert (ended.status, ended.stdout) == (2, "")
            said = " ".join(ended.stderr.split())
            assert re.search("(prod and lab|lab and prod) seem to be two tokens of one account", said)


async def test_two_tokens_of_one_account_are_refused_before_their_lists_are_read_whole(
    server: Server,
) -> None:
    catalogue = listing(450)
    server.answer_with(lambda request: catalogue(request) if request.query["page"] == "1" else HANG)
    variables = {"ONE": "first", "TWO": "second", "DIGITALOCEAN_API_URL": server.url}
    named = ("-q", "--account", "prod=ONE", "--account", "lab=TWO")
    for command in (("audit",), ("prune", "--group-by", "none", "--keep-last", "1")):
        ended = await do_images_here(*command, *named, **variables)
        assert (ended.status, ended.stdout) == (2, "")


async def test_ids_that_are_none_make_no_two_accounts_one(server: Server) -> None:
    server.answer_with(listing(1, first_id=0))
    variables = {"ONE": "first", "TWO": "second", "DIGITALOCEAN_API_URL": server.url}
    ended = await do_images_here("audit", "-q", "--account", "a=ONE", "--account", "b=TWO", **variables)
    assert (ended.status, ended.stderr) == (0, "")


async def test_an_account_that_fails_makes_the_report_incomplete() -> None:
    async with ImagesEmulator(images=5, quotas=None, token="first") as emulator:
        variables = {"ONE": "first", "TWO": "wrong", "DIGITALOCEAN_API_URL": emulator.url}
        ended = await do_images_here(
            "audit", "-q", "--account", "prod=ONE", "--account", "lab=TWO", **variables
        )
        nobody = await do_images_here("audit", "-q", "--account", "lab=TWO", **variables)
    assert ended.status == 4
    assert "INCOMPLETE: lab was not read" in ended.stdout
    first, second = ended.stderr.splitlines()
    assert first.startswith("do-images: lab: GET ")
    assert second == "do-images: incomplete: lab was not read"
    assert (nobody.status, nobody.stdout) == (3, "")
    assert "wrong" not in ended.stderr + nobody.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--account", "prod"],
        ["--account", "=ONE"],
        ["--account", "prod=NOT_SET_ANYWHERE"],
        ["--account", "a=HOME", "--account", "a=HOME"],
        ["--demo", "--account", "a=HOME"],
        ["--demo", "-o", "xml"],
        ["--demo", "--baseline", "/nonexistent.json"],
        ["--demo", "--fail-on", "critical"],
        ["--demo", "--price-date", "yesterday"],
        ["--demo", "-o", "csv", "--price-date", "2026-07-01"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", *arguments]) == 2
    assert capsys.readouterr().out == ""


# --- interruption and faults ---


async def test_an_interruption_leaves_a_report_that_says_it_is_partial(
    server: Server, tmp_path: Path
) -> None:
    catalogue = listing(450)
    server.answer_with(lambda request: catalogue(request) if request.query["page"] == "1" else HANG)
    process = await start(["audit", "-o", "json", "-q"], account(server))
    await eventually(lambda: len(server.received) >= 2, within=30)
    process.send_signal(signal.SIGINT)
    stdout, stderr = await process.communicate()
    data = json.loads(stdout)
    assert process.returncode == -signal.SIGINT
    assert (data["complete"], data["incomplete"]) == (False, "interrupted after 200 images of 450")
    assert data["images"] == 200
    assert stderr == b"do-images: interrupted after 200 images of 450: the report is partial\n"


@pytest.mark.slow
async def test_an_interruption_of_several_accounts_is_one_too(server: Server) -> None:
    lists = {"Bearer first": listing(450), "Bearer second": listing(450, first_id=1001)}

    def answer(request: Received) -> Answer | Awaitable[Answer]:
        return lists[request.headers["authorization"]](request) if request.query["page"] == "1" else HANG

    server.answer_with(answer)
    variables = {"ONE": "first", "TWO": "second", "DIGITALOCEAN_API_URL": server.url}
    process = await start(["audit", "-q", "--account", "prod=ONE", "--account", "lab=TWO"], variables)
    await eventually(lambda: [each.query.get("page") for each in server.received].count("2") == 2, within=30)
    process.send_signal(signal.SIGINT)
    stdout, stderr = await process.communicate()
    assert process.returncode == -signal.SIGINT
    why = "prod: interrupted after 200 images of 450; lab: interrupted after 200 images of 450"
    assert f"INCOMPLETE: {why}" in " ".join(stdout.decode().split("\n"))
    assert stderr.decode() == f"do-images: {why}: the report is partial\n"


async def test_a_fault_that_stays_reports_nothing_and_leaves_the_old_file(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    old = tmp_path / "report.json"
    old.write_text("old", encoding="utf-8")
    emulator.faults.add(Fault(status=403, times=None))
    ended = await audit(emulator, "-o", "json", "--file", str(old))
    assert (ended.status, ended.stdout) == (3, "")
    assert old.read_text(encoding="utf-8") == "old"


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report"
    target.write_text("old", encoding="utf-8")
    target.chmod(0o640)
    write_file(target, "new \ud800")
    assert target.read_text(encoding="utf-8") == "new \\ud800"
    assert target.stat().st_mode & 0o777 == 0o640

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(Stopped, match="No space left"):
        write_file(target, "newer")
    assert target.read_text(encoding="utf-8") == "new \\ud800"
    assert [each.name for each in tmp_path.iterdir()] == ["report"]
    with pytest.raises(Stopped, match="could not be written"):
        write_file(tmp_path / "nowhere" / "report", "x")


def test_a_link_is_followed_and_a_device_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old", encoding="utf-8")
    link.symlink_to(target)
    write_file(link, "new")
    assert (target.read_text(encoding="utf-8"), link.is_symlink()) == ("new", True)
    write_file(Path("/dev/null"), "gone")
