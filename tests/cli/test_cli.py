"""The command line, mostly as a process of its own: its output, and its exit status."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unicodedata import category

import attrs
import pytest
from rich.cells import cell_len

from do_images_async import Image, ImageStatus, ImageType, __version__
from do_images_async.audit import AuditReport, Context, Finding, Severity, audit
from do_images_async.cli import main
from do_images_async.cli.app import run
from do_images_async.cli.progress import Progress
from do_images_async.cli.render import report_text
from do_images_async.cli.signals import STOPPING
from do_images_async.cli.text import printable
from do_images_async.testing import Fault, ImagesEmulator
from tests.conftest import TOKEN
from tests.support.cli_processes import (
    account,
    do_images_here,
    environment,
    in_terminal_here,
    in_watched_terminal,
    start,
)
from tests.support.servers import (
    HANG,
    Answer,
    Received,
    Server,
    eventually,
    image_document,
    listing,
    refusal,
    reply,
    unused_port,
)

DEMO = ("audit", "--demo", "--images", "300")
HOSTILE = "[red]x[/red]\x1b[31m\x1b]0;title\x07\r\n\u202egnp\u2028\x9b1m"


def numbers_of(text: str, label: str) -> list[str]:
    """Return the text of the line that starts with this label."""
    line = next(line for line in text.splitlines() if line.startswith(label))
    return re.findall(r"\d[\d,]*(?:\.\d+)?", line.removeprefix(label))


# --- the demo ---


async def test_the_demo_as_data_agrees_with_what_the_emulator_holds() -> None:
    ended = await do_images_here(*DEMO, "--seed", "3", "-o", "json")
    assert (ended.status, ended.stderr) == (0, "")
    data = json.loads(ended.stdout)
    records = list(ImagesEmulator(images=300, seed=3).images)
    sizes = [0 if each["status"] == "deleted" else each["size_gigabytes"] or 0 for each in records]
    billed = [
        size
        for size, each in zip(sizes, records, strict=True)
        if not each["public"] and each["type"] != "backup"
    ]
    assert data["images"] == data["reported_total"] == len(records)
    assert data["complete"] is True
    assert math.isclose(data["gigabytes"], sum(sizes))
    assert math.isclose(data["monthly_cost"], 0.06 * sum(billed))
    for group in data["by_region"]:
        there = [each for each in records if group["key"] in (each["regions"] or ["(none)"])]
        assert group["images"] == len(there)
    assert data["pages"] == math.ceil(len(records) / 200)
    assert data["requests"] == 2 * data["pages"]  # the second reading brings nothing new
    assert data["findings_total"] == len(data["findings"]) > 0
    assert data["elapsed"] > 0
    assert data["quota"] == [
        {"limit": 250, "per": 60.0, "left": 250 - data["requests"]},
        {"limit": 5000, "per": 3600.0, "left": 5000 - data["requests"]},
    ]


async def test_the_demo_fits_80_columns_and_is_plain_when_piped() -> None:
    ended = await do_images_here(*DEMO)
    assert (ended.status, ended.stderr) == (0, "")
    assert "\x1b" not in ended.stdout
    lines = ended.stdout.splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert not [line for line in lines if line.endswith(" ")]
    headings = ("By type", "By age", "By region", "By distribution", "Findings", "The worst 10 of")
    assert [line for line in lines if line.startswith(headings)] == [
        next(line for line in lines if line.startswith(heading)) for heading in headings
    ]
    assert re.search(
        r"^4 requests for 2 pages in \d+\.\d\d s\. 323 images read of 323 that the server",
        ended.stdout,
        re.MULTILINE,
    )


async def test_the_report_says_the_same_as_the_data() -> None:
    data = json.loads((await do_images_here(*DEMO, "-o", "json")).stdout)
    text = (await do_images_here(*DEMO)).stdout
    assert numbers_of(text, "Images   ")[:3] == ["323", "300", "23"]
    assert numbers_of(text, "Size") == [f"{data['gigabytes']:,.1f}"]
    assert numbers_of(text, "Cost")[0] == f"{data['monthly_cost']:,.2f}"
    assert numbers_of(text, "Savings")[0] == f"{data['savings']:,.2f}"
    for group in (*data["by_type"], *data["by_region"], *data["by_distribution"], *data["by_age"]):
        assert numbers_of(text, f"{group['key']} ")[:3] == [
            f"{group['images']:,}",
            f"{group['monthly_cost']:,.2f}",
            f"{group['gigabytes']:,.1f}",
        ]
    for finding in data["findings"][:10]:
        assert str(finding["image_id"]) in text


async def test_200_columns_stand_side_by_side() -> None:
    ended = await do_images_here(*DEMO, COLUMNS="200")
    assert any("By type" in line and "By region" in line for line in ended.stdout.splitlines())
    assert max(map(cell_len, ended.stdout.splitlines())) <= 200
    assert "what to do" in ended.stdout


async def test_a_terminal_without_block_characters_gets_plain_bars() -> None:
    ended = await do_images_here(*DEMO, PYTHONIOENCODING="ascii")
    assert ended.status == 0
    assert "####" in ended.stdout
    assert ended.stdout.isascii()


async def test_the_options_reach_the_audit() -> None:
    options = (
        "--price",
        "1",
        "--backup-price",
        "0.5",
        "--older-than",
        "1e6",
        "--oversized",
        "0",
        "--top",
        "2",
    )
    data = json.loads((await do_images_here(*DEMO, *options, "-o", "json", "--concurrency", "1")).stdout)
    rules = {summary["rule"]: summary["findings"] for summary in data["findings_by_rule"]}
    assert (data["price"], data["backup_price"]) == (1, 0.5)
    assert data["backups"]["monthly_cost"] == pytest.approx(0.5 * data["backups"]["gigabytes"])
    assert "old" not in rules
    assert rules["oversized"] > 250
    assert len(data["findings"]) == 2


# --- a real account ---


async def test_an_account_is_read_with_the_token_of_the_environment() -> None:
    async with ImagesEmulator(images=450) as emulator:
        ended = await do_images_here("audit", "-o", "json", **account(emulator, emulator.token))
        data = json.loads(ended.stdout)
        assert (ended.status, ended.stderr) == (0, "")
        assert data["requests"] == len(emulator.requests) == 2 * 3
        assert data["images"] == 473


async def test_requests_that_were_sent_again_are_counted() -> None:
    async with ImagesEmulator(images=30) as emulator:
        emulator.faults.add(Fault(status=503, times=1))
        data = json.loads(
            (await do_images_here("audit", "-o", "json", **account(emulator, emulator.token))).stdout
        )
        assert (data["pages"], data["requests"]) == (1, 2 * 1 + 1)


async def test_without_a_token_nothing_is_sent_and_the_line_says_what_to_set() -> None:
    ended = await do_images_here("audit")
    assert (ended.status, ended.stdout) == (2, "")
    assert re.fullmatch(r"Error: .*DIGITALOCEAN_TOKEN.*--demo.*\n", ended.stderr)


async def test_a_wrong_token_is_one_line_without_the_token() -> None:
    async with ImagesEmulator(images=3) as emulator:
        ended = await do_images_here("audit", **account(emulator))
    assert (ended.status, ended.stdout) == (3, "")
    assert re.fullmatch(r"do-images: .*401.*\n", ended.stderr)
    assert TOKEN not in ended.stderr


async def test_an_error_of_the_api_shows_its_message_harmlessly(server: Server) -> None:
    server.script(refusal(403, id=HOSTILE))
    ended = await do_images_here("audit", **account(server))
    assert (ended.status, ended.stdout) == (3, "")
    assert ended.stderr.count("\n") == 1
    assert "\\x1b" in ended.stderr
    assert "\x1b" not in ended.stderr


async def test_an_error_on_a_later_page_reports_nothing(server: Server) -> None:
    catalogue = listing(450)
    server.answer_with(lambda request: refusal(403) if request.query["page"] == "3" else catalogue(request))
    ended = await do_images_here("audit", **account(server))
    assert (ended.status, ended.stdout) == (3, "")


async def test_an_endless_listing_is_incomplete(server: Server) -> None:
    server.answer_with(
        lambda request: reply(
            {
                "images": [],
                "links": {"pages": {"next": f"{server.url}/v2/images?page={int(request.query['page']) + 1}"}},
                "meta": {"total": 7},
            }
        )
    )
    ended = await do_images_here("audit", **account(server))
    assert ended.status == 4
    assert "INCOMPLETE: pages 1 to 4 brought nothing new" in ended.stdout
    assert re.fullmatch(r"do-images: incomplete: pages 1 to 4 .*\n", ended.stderr)


async def test_what_others_have_spent_of_the_hour_is_not_left(server: Server) -> None:
    spent = {"ratelimit-limit": "5000", "ratelimit-remaining": "120", "ratelimit-reset": "4102444800"}
    server.answer_with(lambda request: reply({"images": [], "meta": {"total": 0}}, headers=spent))
    ended = await do_images_here("audit", COLUMNS="200", **account(server))
    assert "Requests left of the quota: 120 of 250 a minute, 120 of 5,000 an hour." in ended.stdout


async def test_a_listing_that_is_shorter_than_announced_is_reported_as_incomplete(
    server: Server, tmp_path: Path
) -> None:
    server.answer_with(
        lambda request: reply(
            {
                "images": [image_document(1)] if request.query["page"] == "1" else [],
                "meta": {"total": 3},
            }
        )
    )
    page = tmp_path / "report.html"
    why = "reading after reading, the listing moved, repeated pages, had gaps or was shorter than its total "
    table = await do_images_here("audit", COLUMNS="200", **account(server))
    assert table.status == 4
    assert f"\nINCOMPLETE: {why}" in table.stdout
    assert "1 private" in table.stdout
    assert re.fullmatch(rf"do-images: incomplete: {why}.*\n", table.stderr)
    written = await do_images_here("audit", "-o", "html", "--file", str(page), **account(server))
    assert (written.status, written.stdout, page.exists()) == (4, "", False)
    assert f"This report is incomplete:</strong> {why}" in page.with_name("report.html.partial").read_text(
        encoding="utf-8"
    )
    data = await do_images_here("audit", "-o", "json", **account(server))
    report = json.loads(data.stdout)
    assert (data.status, report["complete"], report["images"], report["reported_total"]) == (4, False, 1, 3)
    assert report["incomplete"].startswith(why)
    rows = await do_images_here("audit", "-o", "csv", **account(server))
    first, *others = csv.DictReader(io.StringIO(rows.stdout))
    assert (rows.status, first["rule"], first["image_id"]) == (4, "incomplete", "")
    assert first["detail"].startswith(f"INCOMPLETE: {why}")
    assert {row["image_id"] for row in others} == {"1"}


async def test_hostile_text_is_shown_harmlessly(server: Server) -> None:
    hostile = image_document(
        name=HOSTILE,
        distribution=HOSTILE,
        regions=[HOSTILE],
        type=HOSTILE,
        status="deleted",
        error_message=HOSTILE,
    )
    server.answer_with(lambda request: reply({"images": [hostile], "meta": {"total": 1}}))
    ended = await do_images_here("audit", COLUMNS="400", **account(server))
    assert ended.status == 0
    assert not [char for char in ended.stdout if category(char) in {"Cc", "Cf", "Zl"} and char != "\n"]
    assert r"[red]x[/red]\x1b[31m\x1b]0;title\x07\r\n\u202egnp\u2028\x9b1m" in ended.stdout
    data = await do_images_here("audit", "-o", "json", **account(server))
    assert data.stdout.isascii()
    assert json.loads(data.stdout)["findings"][0]["name"] == HOSTILE


# --- terminals, signals, pipes ---


async def test_a_terminal_sees_progress_on_stderr_and_colours_on_stdout(server: Server) -> None:
    shown = bytearray()
    catalogue = listing(223)

    async def answer(request: Received) -> Answer:
        if request.query["page"] == "2":
            await eventually(lambda: b"200/223 images, 1 page" in shown, within=20)
        page = catalogue(request)
        return page if isinstance(page, Answer) else await page

    server.answer_with(answer)
    ended = await in_watched_terminal(shown, "audit", **account(server))
    assert ended.status == 0
    assert "200/223 images, 1 page" in ended.stderr
    assert "\x1b[1m" in ended.stdout
    assert "\x1b[34m" in ended.stdout
    assert "pages," not in ended.stdout.partition("requests for")[0]
    assert "200/223" not in ended.stdout


async def test_no_color_is_honoured() -> None:
    ended = await in_terminal_here(*DEMO, NO_COLOR="1")
    assert ended.status == 0
    assert not re.search(r"\x1b\[[\d;]*[34]\d", ended.stdout + ended.stderr)


@pytest.mark.slow  # by default, `test_cli_audit` interrupts it
async def test_an_interruption_ends_it_at_once_and_cleanly(server: Server) -> None:
    server.script(HANG)
    process = await start(["audit"], account(server))
    await eventually(lambda: len(server.received) == 1, within=20)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, stderr = await process.communicate()
    assert time.monotonic() - started < 3
    assert process.returncode == -signal.SIGINT
    assert b"INCOMPLETE: interrupted after 0 images" in stdout
    assert stderr == b"do-images: interrupted after 0 images: the report is partial\n"


async def test_a_reader_that_leaves_early_is_no_error() -> None:
    reader, writer = os.pipe()
    process = await start([*DEMO, "-o", "json", "--top", "100000"], {}, stdout=writer)
    os.close(writer)
    await asyncio.to_thread(os.read, reader, 1)
    os.close(reader)
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (141, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_a_full_disk_is_one_line(unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:  # noqa: ASYNC230, PTH123
        variables = {"PYTHONUNBUFFERED": unbuffered}
        process = await start(["audit", "--demo", "--images", "10"], variables, stdout=full.fileno())
        _, stderr = await process.communicate()
    assert process.returncode == 74
    assert re.fullmatch(rb"do-images: the output could not be written: .*\n", stderr)


# --- usage ---


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"do-images, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["audit", "--help"], ["audit", "-h"]])
def test_the_help_shows_an_example(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    assert "\n    do-images audit --demo\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["audit", "--nothing"],
        ["audit", "--demo", "--images", "-1"],
        ["audit", "--demo", "--concurrency", "0"],
        ["audit", "--demo", "--top", "-1"],
        *(["audit", "--demo", "--price", value] for value in ("-1", "nan", "inf", "x")),
        *(["audit", "--demo", "--older-than", value] for value in ("-1", "nan", "inf", "x")),
        *(["audit", "--demo", "--oversized", value] for value in ("-1", "nan", "inf", "x")),
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage: do-images" in captured.err


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) in (0, 2)  # click changed its mind in 8.2
    captured = capsys.readouterr()
    assert "Usage: do-images" in captured.out + captured.err


@pytest.fixture
def signals_of_pytest() -> Generator[None]:
    """Restore the handlers of signals, which the end of `main` ignores until the process ends."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_of_pytest")
@pytest.mark.parametrize(("missing", "package"), [("click", "click"), ("rich", "rich"), ("yaml", "pyyaml")])
def test_without_the_extra_the_line_says_what_to_install(
    missing: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert main() == 2
    assert capsys.readouterr().err == f"do-images needs its extra cli: pip install {package}\n"


@pytest.mark.usefixtures("signals_of_pytest")
def test_an_interruption_of_the_import_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: object = None) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("do_images_async.cli.app.run", interrupt)
    assert main() == 130
    assert capsys.readouterr() == ("", "")


async def test_nothing_else_needs_the_extra_nor_pytest() -> None:
    program = (
        "import sys; sys.modules.update(click=None, rich=None)\n"
        "import do_images_async.audit, do_images_async.testing as testing\n"
        "with testing.ImagesEmulator(images=1): pass\n"
        "assert not [name for name in sys.modules if 'pytest' in name], sys.modules"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=environment())
    assert await process.wait() == 0


# --- the same in this process ---


@pytest.mark.usefixtures("signals_of_pytest")
def test_main_runs_what_the_command_line_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["do-images", *DEMO, "-o", "json"])
    assert main() == 0
    assert json.loads(capsys.readouterr().out)["images"] == 323


def test_the_report_of_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(DEMO) == 0
    assert "By region" in capsys.readouterr().out


def test_errors_of_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("DIGITALOCEAN_TOKEN", raising=False)
    monkeypatch.delenv("DIGITALOCEAN_ACCESS_TOKEN", raising=False)
    assert run(["audit"]) == 2
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    monkeypatch.setenv("DIGITALOCEAN_API_URL", f"http://127.0.0.1:{unused_port()}")
    assert run(["audit", "--retries", "0"]) == 3
    assert capsys.readouterr().err.startswith("Error: no token")


# --- rendering ---


def made_report(*images: Image, **options: Any) -> AuditReport:
    report = asyncio.run(audit(images, now=datetime(2026, 3, 1, tzinfo=UTC)))
    return attrs.evolve(report, **options)


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv("COLUMNS", "80")


def test_an_account_without_images() -> None:
    text = report_text(made_report(), "nobody")
    assert "No findings" in text
    assert "0: 0 private, 0 public" in text
    assert "backup" not in text


def test_numbers_that_are_not_known_are_not_shown() -> None:
    assert "request" not in report_text(made_report(), "somebody")
    assert "2 requests in 1,000.00 s." in report_text(made_report(requests=2, elapsed=1000.0), "somebody")
    assert "1 request for 1 page." in report_text(made_report(requests=1, pages=1), "somebody")


def test_backups_are_shown_with_their_price() -> None:
    backup = Image(id=1, type=ImageType.BACKUP, size_gigabytes=12.0, tags=("a",))
    assert "1 backup, 12.0 GB, not counted" in report_text(made_report(backup), "somebody")
    assert "1 backup, 12.0 GB, at $0.02 per GB" in report_text(made_report(backup, backup_price=0.02), "s")


def test_many_groups_become_others() -> None:
    images = [Image(id=number, distribution=f"d{number:03}", size_gigabytes=2.0) for number in range(1, 101)]
    text = report_text(made_report(*images), "somebody")
    assert "d014" in text.partition("Findings")[0]
    assert "d015" not in text.partition("Findings")[0]
    assert numbers_of(text, "(86 others)") == ["86", "10.32", "172.0"]


@pytest.mark.parametrize("columns", [40, 60, 80, 149, 150, 200])
def test_names_give_way_and_numbers_do_not(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    wide = "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 100
    image = Image(
        id=123456789, name=wide, type=ImageType.CUSTOM, status=ImageStatus.DELETED, error_message=wide
    )
    big = Image(id=987654321, name=wide, size_gigabytes=123456.7, created_at=datetime(2000, 1, 1, tzinfo=UTC))
    text = report_text(made_report(image, big), "somebody")
    assert max(map(cell_len, text.splitlines())) <= columns
    if columns >= 80:
        assert "7,407.40" in text.rpartition("The worst")[2]
        assert "123456789" in text


def test_rules_of_one_s_own_are_shown_harmlessly() -> None:
    def rule(image: Image, context: Context) -> Finding | None:
        return context.finding(image, HOSTILE, Severity.HIGH, HOSTILE, HOSTILE)

    report = asyncio.run(audit([Image(id=1)], rules=[rule]))
    assert not {"\x1b", "\r", "\x07"} & set(report_text(report, HOSTILE))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold]", "plain [bold]"),
        ("café 世界", "café 世界"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\u202e\u200b\ufeff\u2028", r"\u202e\u200b\ufeff\u2028"),
        ("\x7f\x9b\ud800", r"\x7f\x9b\ud800"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_progress_in_words() -> None:
    progress = Progress()
    assert progress.describe(0.0) == "0 images, 0 pages"
    progress.advance(200, 1000)
    progress.advance(200, None)
    assert progress.describe(41.6) == "400/1,000 images, 2 pages, 42 s until the quota allows more"


def test_progress_counts_both_readings() -> None:
    progress = Progress()
    assert (progress.done, progress.expected) == (0, None)
    progress.advance(200, 400)
    progress.requests = 1
    assert (progress.done, progress.expected) == (1, 4)
    progress.advance(200, 400)
    progress.requests = 2
    assert progress.describe(0.0) == "400/400 images, 2 pages, reading again to miss none"
    progress.requests = 9  # retries, and readings of a list that does not come to rest
    assert (progress.done, progress.expected) == (3, 4)
    progress.interrupted = True
    assert progress.why_partial() == "interrupted while all 400 images were read again, to miss none"
