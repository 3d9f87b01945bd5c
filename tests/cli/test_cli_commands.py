"""Each command as a process of its own, against the emulator: stdout, stderr, and exit status."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import click
import pytest
import pytest_asyncio
from rich.cells import cell_len

from do_images_async import FileRateLimiter, ImagesAPI
from do_images_async.cli.app import main, run
from do_images_async.testing import Fault, ImagesEmulator, Quota
from tests.support.cli_processes import (
    Ended,
    account,
    at_the_first,
    do_images_here,
    in_terminal_here,
    in_watched_terminal,
    start,
)
from tests.support.copying import CopyingAccount
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
)
from tests.support.slow import fewer

COMMANDS = ("list", "get", "create", "update", "delete", "wait", "transfer", "convert", "actions", "audit")


@pytest_asyncio.fixture
async def emulator() -> AsyncGenerator[ImagesEmulator, None]:
    async with ImagesEmulator(images=30, quotas=None, import_seconds=0.1, action_seconds=0.1) as running:
        yield running


async def ask(emulator: ImagesEmulator, *arguments: str, **variables: str) -> Ended:
    return await do_images_here(*arguments, **account(emulator, emulator.token), **variables)


def first(emulator: ImagesEmulator, **fields: Any) -> dict[str, Any]:
    """Return the first private image that has these values."""
    return next(
        each
        for each in emulator.images
        if not each["public"] and all(each[name] == value for name, value in fields.items())
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"\n    do-images {command} " in capsys.readouterr().out


def test_these_are_the_commands() -> None:
    with click.Context(main) as context:
        assert set(COMMANDS) <= set(main.list_commands(context))


# --- list ---


async def test_list_as_a_table_for_a_pipe(emulator: ImagesEmulator) -> None:
    ended = await ask(emulator, "list")
    assert (ended.status, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert re.split(r" {2,}", lines[0]) == ["ID", "Name", "Type", "Regions", "Size", "Created"]
    private = [each for each in emulator.images if not each["public"]]
    assert [line.split()[0] for line in lines[1:]] == [str(each["id"]) for each in private]
    assert "\x1b" not in ended.stdout
    assert all(each["name"] in ended.stdout for each in private)


async def test_list_as_csv_json_and_lines(emulator: ImagesEmulator) -> None:
    table = await ask(emulator, "list", "-o", "csv", "--public")
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    records = list(emulator.images)
    assert [row["name"] for row in rows] == [each["name"] for each in records]
    assert [row["regions"].split(",") for row in rows if row["regions"]] == [
        each["regions"] for each in records if each["regions"]
    ]
    data = json.loads((await ask(emulator, "list", "--public", "-o", "json")).stdout)
    assert data == records
    lines = (await ask(emulator, "list", "--public", "-o", "ndjson")).stdout.splitlines()
    assert [json.loads(line) for line in lines] == records


async def test_list_with_filters_columns_and_no_header(emulator: ImagesEmulator) -> None:
    wanted = ["list", "--type", "distribution", "--columns", "slug,MinDisk", "--no-header"]
    ended = await ask(emulator, *wanted)
    bases = [each for each in emulator.images if each["type"] == "base"]
    assert [line.split() for line in ended.stdout.splitlines()] == [
        [each["slug"], str(each["min_disk_size"])] for each in bases
    ]
    tagged = await ask(emulator, "list", "--tag", "prod", "-o", "csv", "--columns", "ID", "--no-header")
    assert tagged.stdout.split() == [
        str(each["id"]) for each in emulator.images if "prod" in (each["tags"] or ())
    ]


async def test_list_fits_a_terminal(emulator: ImagesEmulator) -> None:
    emulator.images.add(name="n" * 300, tags=["t" * 100])
    widths = fewer((80, 120, 200))
    where = account(emulator, emulator.token)
    for width in widths:
        ended = await in_terminal_here("list", COLUMNS=str(width), **where)
        assert ended.status == 0
        plain = re.sub(r"\x1b\[[\d;]*m", "", ended.stdout)
        assert max(map(cell_len, plain.splitlines())) <= width
        assert "Type" in plain
        assert "Created" in plain
        assert "\x1b[1m" in ended.stdout
        assert "not shown at this width" not in ended.stderr


@pytest.mark.parametrize("width", [20, 30, 40, 50])
async def test_a_narrow_terminal_leaves_columns_out_and_names_readable(
    emulator: ImagesEmulator, width: int
) -> None:
    ended = await in_terminal_here("list", COLUMNS=str(width), **account(emulator, emulator.token))
    lines = re.sub(r"\x1b\[[\d;]*m", "", ended.stdout).splitlines()
    assert max(map(cell_len, lines)) <= width
    shown = min(9, width - 12)
    for image in emulator.images:
        if not image["public"]:
            assert any(f"{image['id']}  {image['name'][: shown - 1]}" in line for line in lines)
    assert "not shown at this width: " in ended.stderr


async def test_a_table_in_a_pipe_is_uncut_whatever_columns_says(emulator: ImagesEmulator) -> None:
    emulator.images.add(name="n" * 200)
    usual, narrow = [await ask(emulator, "list", "-q", **more) for more in ({}, {"COLUMNS": "20"})]
    assert "n" * 200 in narrow.stdout
    assert narrow.stdout == usual.stdout


@pytest.mark.parametrize("width", fewer([20, 26, 30, 40, 46], 2))
async def test_actions_and_copies_fit_a_narrow_terminal(emulator: ImagesEmulator, width: int) -> None:
    image = emulator.images.add(name="golden", regions=["nyc3"])
    where = account(emulator, emulator.token)
    for arguments in (
        ("replicate", str(image), "--to", "nyc3"),
        ("transfer", str(image), "--region", "fra1"),
        ("actions", str(image)),
    ):
        ended = await in_terminal_here(*arguments, COLUMNS=str(width), **where)
        head, row = re.sub(r"\x1b\[[\d;]*m", "", ended.stdout).splitlines()[:2]
        assert max(cell_len(head), cell_len(row)) <= width
        assert "Status" in head
        assert "…" not in head
        assert "not shown at this width: " in ended.stderr


@pytest.mark.parametrize("columns", fewer(["0", "", "²", "wide", "-1", "00"], 2))
async def test_a_width_that_is_no_positive_number_counts_as_not_set(
    emulator: ImagesEmulator, columns: str
) -> None:
    where = account(emulator, emulator.token)
    for arguments in (("list",), ("audit", "-q"), ("prune", "--group-by", "none", "--keep-last", "1")):
        usual = await in_terminal_here(*arguments, **where)
        ended = await in_terminal_here(*arguments, COLUMNS=columns, **where)
        assert (ended.status, usual.status) == (0, 0)
        assert len(ended.stdout.splitlines()) == len(usual.stdout.splitlines()) > 5
    piped = await do_images_here("audit", "-q", COLUMNS=columns, **where)
    assert len(piped.stdout.splitlines()) > 5


async def test_a_width_of_one_letter_is_twenty(emulator: ImagesEmulator) -> None:
    where = account(emulator, emulator.token)
    for command in ("list", "audit"):
        one, twenty = [await in_terminal_here(command, "-q", COLUMNS=width, **where) for width in ("1", "20")]
        assert one.stdout.splitlines()[:9] == twenty.stdout.splitlines()[:9] != []


async def test_an_empty_list_hints_at_the_public_images() -> None:
    hint = "do-images: no private image is there; --public lists the provider's, too\n"
    async with ImagesEmulator(images=0) as emulator:
        for form, told in (("table", hint), ("csv", "")):
            ended = await ask(emulator, "list", "-o", form)
            assert (ended.status, len(ended.stdout.splitlines()), ended.stderr) == (0, 1, told)


async def test_an_empty_list_names_the_tag_that_no_image_has(emulator: ImagesEmulator) -> None:
    ended = await ask(emulator, "list", "--tag", "nobody-has-it")
    assert (ended.status, ended.stderr) == (0, "do-images: no private image has the tag 'nobody-has-it'\n")


async def test_an_unknown_column_is_wrong_usage_before_anything_is_sent(emulator: ImagesEmulator) -> None:
    ended = await ask(emulator, "list", "--columns", "ID,Colour")
    assert (ended.status, ended.stdout) == (2, "")
    assert "'Colour' is no column" in ended.stderr
    assert len(emulator.requests) == 0


async def test_a_formula_in_csv_is_text(emulator: ImagesEmulator) -> None:
    emulator.images.add(name="=1+1")
    ended = await ask(emulator, "list", "-o", "csv", "--columns", "name")
    assert "'=1+1" in ended.stdout.splitlines()


async def test_an_interrupted_list_says_that_it_is_a_part(server: Server) -> None:
    catalogue = listing(450)
    server.answer_with(lambda request: catalogue(request) if request.query["page"] == "1" else HANG)
    process = await start(["list", "-o", "ndjson"], account(server))
    await eventually(lambda: len(server.received) >= 2, within=20)
    assert process.stdout is not None
    shown = [await process.stdout.readline() for _ in range(200)]
    process.send_signal(signal.SIGINT)
    rest, stderr = await process.communicate()
    assert process.returncode == -signal.SIGINT
    assert json.loads(shown[0])["id"]
    assert rest == b""
    assert stderr == b"do-images: INCOMPLETE: interrupted after 200 images of 450\n"


@pytest.mark.parametrize("form", ["table", "json", "ndjson", "csv"])
async def test_a_list_that_is_shorter_than_announced_shows_what_there_is(server: Server, form: str) -> None:
    server.answer_with(
        lambda request: reply(
            {"images": [image_document(1)] if request.query["page"] == "1" else [], "meta": {"total": 3}}
        )
    )
    ended = await do_images_here("list", "-o", form, **account(server))
    assert ended.status == 4
    assert str(image_document(1)["name"]) in ended.stdout
    assert re.fullmatch(r"do-images: INCOMPLETE: .*1 images read; the server counts 3.*\n", ended.stderr)


@pytest.mark.parametrize("numbers", [[8, 8, 7], [1, 1, 1]])
@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["audit"],
        ["prune", "--name", "*", "--keep-last", "1"],
        ["replicate", "--name", "*", "--to", "ams3"],
    ],
)
async def test_an_image_that_a_page_repeats_does_not_make_a_list_whole(
    server: Server, command: list[str], numbers: list[int]
) -> None:
    server.answer_with(
        lambda request: reply({"images": [image_document(each) for each in numbers], "meta": {"total": 3}})
    )
    ended = await do_images_here(*command, **account(server))
    assert ended.status == 4
    counts = f"{len(set(numbers))} images read; the server counts 3"
    assert re.fullmatch(rf"do-images: incomplete: .*{counts}.*\n", ended.stderr, re.IGNORECASE)
    assert {request.method for request in server.received} == {"GET"}
    if command == ["list"]:
        assert len(ended.stdout.splitlines()) == 1 + len(set(numbers))


@pytest.mark.parametrize(
    "command", [["list", "-q"], ["latest"], ["replicate", "--to", "ams3"]], ids=lambda command: command[0]
)
async def test_images_without_the_tag_are_not_listed_as_having_it(server: Server, command: list[str]) -> None:
    """What ignores the filter would have `list --tag old | delete -` delete all images."""
    server.answer_with(listing(3, tags=["web"]))
    ended = await do_images_here(*command, "--tag", "golden", **account(server))
    assert (ended.status, ended.stdout) == (3, "")
    why = "asked for images with the tag 'golden', but the answer has image 1, which does not have it"
    assert ended.stderr.startswith(f"do-images: {why}")
    assert {request.method for request in server.received} == {"GET"}


# --- get, create, update, wait ---


async def test_get_by_id_and_by_slug(emulator: ImagesEmulator) -> None:
    image = first(emulator)
    ended = await ask(emulator, "get", "ubuntu-24-04-x64", str(image["id"]), "-o", "json")
    assert (ended.status, ended.stderr) == (0, "")
    assert [each["slug"] or each["id"] for each in json.loads(ended.stdout)] == [
        "ubuntu-24-04-x64",
        image["id"],
    ]


async def test_get_shows_what_there_is_and_complains_of_the_rest(emulator: ImagesEmulator) -> None:
    ended = await ask(emulator, "get", "1", "ubuntu-24-04-x64", "--columns", "slug", "--no-header")
    assert (ended.status, ended.stdout) == (3, "ubuntu-24-04-x64\n")
    assert re.fullmatch(r"do-images: GET .*/v2/images/1 was answered 404 .*\n", ended.stderr)
    ended = await ask(emulator, "get", "../account")
    assert ended.status == 2
    assert "must be an int, or a slug" in ended.stderr


@pytest.mark.parametrize("images", [["1"], ["1", "2"]])
async def test_nothing_that_is_found_is_an_empty_array_for_one_image_too(
    images: list[str], emulator: ImagesEmulator
) -> None:
    for form, shown in {"json": "[]\n", "ndjson": "", "csv": "", "table": ""}.items():
        ended = await ask(emulator, "get", *images, "-o", form)
        assert (ended.status, ended.stdout) == (3, shown)


async def test_create_and_wait(emulator: ImagesEmulator) -> None:
    url = "https://example.com/golden.qcow2"
    arguments = ("create", "golden", "--image-url", url, "--region", "nyc3", "--tag-names", "a,b")
    ended = await ask(emulator, *arguments, "--wait", "--poll-interval", "0.05", "-o", "json")
    (image,) = json.loads(ended.stdout)
    assert ended.status == 0
    assert ended.stderr == f"do-images: image {image['id']} is being imported\n"
    assert (image["status"], image["tags"], image["regions"]) == ("available", ["a", "b"], ["nyc3"])
    begun = await ask(emulator, *arguments, "-o", "csv", "--columns", "ID,Status", "--no-header")
    number, status = begun.stdout.strip().split(",")
    assert status == "NEW"
    waited = await ask(
        emulator, "wait", number, "--poll-interval", "0.05", "--columns", "Status", "--no-header"
    )
    assert (waited.status, waited.stdout) == (0, "available\n")


async def test_a_transfers_region_is_the_one_that_was_asked_for(server: Server) -> None:
    server.answer_with(CopyingAccount(names="nyc3"))
    columns = ("--columns", "id,region_slug", "--no-header", "-o", "csv")
    ended = await do_images_here("transfer", "7", "--region", "ams3,fra1", *columns, **account(server))
    assert sorted(line.split(",")[1] for line in ended.stdout.splitlines()) == ["ams3", "fra1"]


@pytest.mark.parametrize("fails", [True, False])
async def test_what_was_made_is_written_also_if_the_wait_for_it_fails(
    emulator: ImagesEmulator, fails: bool
) -> None:
    emulator.images.import_seconds = emulator.actions.seconds = 0.1 if fails else 3600
    emulator.actions.fails = lambda _: fails
    waiting = ("--wait", "--wait-timeout", "60" if fails else "0.2", "--poll-interval", "0.05", "-o", "json")
    url = f"https://example.com/golden.{'txt' if fails else 'img'}"
    created = await ask(emulator, "create", "golden", "--image-url", url, "--region", "nyc3", *waiting)
    converted = await ask(emulator, "convert", str(first(emulator)["id"]), *waiting)
    assert (created.status, converted.status) == (3, 3)
    (image,), (action,) = json.loads(created.stdout), json.loads(converted.stdout)
    assert image["name"] == "golden"
    assert image["status"] in (["deleted"] if fails else ["NEW", "pending"])
    assert action["status"] == ("errored" if fails else "in-progress")
    reason = "ended as deleted" if fails else "is not available after 0.2 s"
    assert reason in created.stderr


async def test_an_import_that_fails_or_takes_too_long(emulator: ImagesEmulator) -> None:
    failed = first(emulator)
    failed |= {"status": "deleted", "error_message": "not an image"}
    ended = await ask(emulator, "wait", str(failed["id"]))
    assert (ended.status, ended.stdout) == (3, "")
    assert "not an image" in ended.stderr
    failed["status"] = "pending"
    ended = await ask(emulator, "wait", str(failed["id"]), "--wait-timeout", "0.3", "--poll-interval", "0.1")
    assert (ended.status, ended.stdout) == (3, "")
    assert "not available after 0.3 s" in ended.stderr


async def test_update(emulator: ImagesEmulator) -> None:
    image = first(emulator, type="custom")
    ended = await ask(
        emulator, "update", str(image["id"]), "--image-name", "neu", "--columns", "Name", "--no-header"
    )
    assert (ended.status, ended.stdout, ended.stderr) == (0, "neu\n", "")
    assert emulator.images[image["id"]]["name"] == "neu"
    assert (await ask(emulator, "update", str(image["id"]))).status == 2


# --- delete ---


async def test_delete_dry_run_shows_and_deletes_nothing(emulator: ImagesEmulator) -> None:
    image = first(emulator)
    ended = await ask(emulator, "delete", str(image["id"]), "--dry-run")
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"would delete {image['id']} {image['name']} (")
    assert image["id"] in emulator.images


@pytest.mark.parametrize(
    ("typed", "asked", "status", "end"),
    [
        ("what\nYes\n", 2, 0, ""),
        ("\n", 1, 130, "do-images: nothing was done\r\n"),
        ("\x04", 1, 130, "\r\ndo-images: nothing was done\r\n"),
    ],
)
async def test_delete_asks_until_it_is_answered(
    emulator: ImagesEmulator, typed: str, asked: int, status: int, end: str
) -> None:
    image = first(emulator)["id"]
    where = account(emulator, emulator.token)
    ended = await in_terminal_here("delete", str(image), "-q", typed=typed, **where)
    assert (ended.status, ended.stderr.count("Delete 1 image? [y/N]: ")) == (status, asked)
    assert ended.stderr.endswith(f"[y/N]: {end}")
    assert (image in emulator.images) == (status != 0)


async def test_delete_asks_and_yes_does_not(emulator: ImagesEmulator) -> None:
    numbers = [each["id"] for each in emulator.images if not each["public"]][:3]
    where = account(emulator, emulator.token)
    refused = await in_terminal_here("delete", str(numbers[0]), typed="n\n", **where)
    assert refused.status == 130
    assert "Delete 1 image? [y/N]" in refused.stderr
    assert numbers[0] in emulator.images
    agreed = await in_terminal_here("delete", str(numbers[0]), typed="y\n", **where)
    assert agreed.status == 0
    assert numbers[0] not in emulator.images
    nobody = await ask(emulator, "delete", str(numbers[1]))
    assert (nobody.status, nobody.stdout) == (2, "")
    assert "--yes" in nobody.stderr
    assert numbers[1] in emulator.images
    sure = await ask(emulator, "delete", *map(str, numbers[1:]), "--yes")
    assert (sure.status, sure.stderr) == (0, "")
    assert [line.split()[:2] for line in sure.stdout.splitlines()] == [
        ["deleted", str(number)] for number in numbers[1:]
    ]
    assert not set(numbers) & {each["id"] for each in emulator.images}


async def test_delete_never_takes_a_public_image(emulator: ImagesEmulator) -> None:
    public = next(each["id"] for each in emulator.images if each["public"])
    ended = await ask(emulator, "delete", str(public), "--yes")
    assert (ended.status, ended.stdout) == (3, "")
    assert "is public" in ended.stderr
    assert emulator.requests.count("DELETE") == 0


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("number", fewer([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
async def test_delete_that_is_interrupted_waits_for_those_in_flight_and_says_which_are_deleted(
    emulator: ImagesEmulator, number: signal.Signals, form: str
) -> None:
    ids = [each["id"] for each in emulator.images if not each["public"]]
    emulator.faults.add(Fault(method="DELETE", delay=0.5, times=None))
    arguments = ("delete", *map(str, ids), "--yes", "-o", form)
    running = await start(arguments, account(emulator, emulator.token))
    at_the_first(emulator, "DELETE", lambda: running.send_signal(number))
    stdout, stderr = await running.communicate()
    gone = [each for each in ids if each not in emulator.images]
    assert running.returncode == -number
    waiting, told = stderr.decode().splitlines()
    assert waiting.startswith("do-images: interrupted; waiting for ")
    assert told == f"do-images: interrupted: {len(gone)} of {len(ids)} images deleted"
    assert 1 <= len(gone) < len(ids)
    if form == "text":
        assert [line.split()[:2] for line in stdout.decode().splitlines()] == [
            ["deleted", str(each)] for each in gone
        ]
    else:
        assert [(each["id"], each["deleted"]) for each in json.loads(stdout)] == [
            (each, each in gone) for each in ids
        ]


async def test_what_was_perhaps_deleted_is_unknown_in_json(emulator: ImagesEmulator) -> None:
    ids = [each["id"] for each in emulator.images if not each["public"]][:2]
    emulator.faults.add(Fault(method="DELETE", path=f"*/{ids[1]}", after=True, broken="reset", times=None))
    more = ("--yes", "--retries", "0")
    ended = await ask(emulator, "delete", *map(str, ids), *more, "-o", "json")
    assert ended.status == 3
    assert [each["deleted"] for each in json.loads(ended.stdout)] == [True, None]
    emulator.images.add(id=ids[1], name="web")
    shown = await ask(emulator, "delete", str(ids[1]), *more)
    assert shown.stdout.startswith(f"perhaps deleted {ids[1]} web")


# --- output that is lost after a change ---


async def lost(emulator: ImagesEmulator, *arguments: str) -> tuple[int | None, str]:
    """Run the command with a full disk as its stdout; return its status and stderr."""
    with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230
        running = await start(arguments, account(emulator, emulator.token), stdout=full.fileno())
        _, stderr = await running.communicate()
    return running.returncode, stderr.decode()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_changes_are_on_stderr_if_the_output_is_lost(emulator: ImagesEmulator) -> None:
    before = {each["id"] for each in emulator.images}
    numbers = [each["id"] for each in emulator.images if not each["public"]]
    full = "do-images: the output could not be written: No space left on device; "
    created = await lost(
        emulator, "create", "new", "--url", "https://example.com/a.qcow2", "--region", "nyc3"
    )
    (new,) = {each["id"] for each in emulator.images} - before
    assert created == (74, f"{full}image {new} was created\n")
    updated = await lost(emulator, "update", str(numbers[0]), "--name", "other")
    assert updated == (74, f"{full}image {numbers[0]} was updated\n")
    deleted = await lost(emulator, "delete", *map(str, numbers[:3]), "--yes", "-o", "json")
    assert deleted == (74, f"{full}3 of 3 images deleted\n")
    converted = await lost(emulator, "convert", str(first(emulator, type="backup")["id"]))
    assert re.fullmatch(re.escape(full) + r"action \d+ converts it\n", converted[1])
    snapshot = first(emulator, type="snapshot")
    snapshot["regions"] = ["nyc3"]
    moved = await lost(emulator, "transfer", str(snapshot["id"]), "--region", "sgp1")
    assert re.fullmatch(re.escape(full) + r"action \d+ copies it to sgp1\n", moved[1])
    ended = await ask(emulator, "delete", *map(str, numbers[3:6]), "--yes", "--file", "/dev/full")
    gone = sum(each not in emulator.images for each in numbers[3:6])
    assert (ended.status, gone >= 1) == (74, True)
    assert ended.stderr.endswith(f"; {gone} of 3 images deleted\n")


async def test_a_reader_that_leaves_learns_on_stderr_how_many_were_deleted(emulator: ImagesEmulator) -> None:
    numbers = [each["id"] for each in emulator.images if not each["public"]]
    reader, writer = os.pipe()
    at_the_first(emulator, "DELETE", lambda: os.close(reader))
    where = account(emulator, emulator.token)
    running = await start(("delete", *map(str, numbers), "--yes"), where, stdout=writer)
    os.close(writer)
    stderr = (await running.communicate())[1].decode()
    assert running.returncode == 141
    gone = sum(each not in emulator.images for each in numbers)
    assert 1 <= gone < len(numbers)
    assert stderr == f"do-images: {gone} of {len(numbers)} images deleted\n"


# --- transfer, convert, actions ---


async def test_transfer_convert_and_actions(emulator: ImagesEmulator) -> None:
    backup = first(emulator, type="backup")
    backup["regions"] = ["nyc3"]
    number = str(backup["id"])
    columns = ("--columns", "Status,Type,Region", "-o", "csv", "--no-header")
    wait = ("--wait", "--poll-interval", "0.05")
    ended = await ask(emulator, "transfer", number, "--region", "ams3,sgp1", *wait, *columns)
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout == "completed,transfer,ams3\ncompleted,transfer,sgp1\n"
    assert set(emulator.images[backup["id"]]["regions"]) == {"nyc3", "ams3", "sgp1"}
    begun = await ask(emulator, "transfer", number, "--region", "lon1", *columns)
    assert begun.stdout == "in-progress,transfer,lon1\n"
    converted = await ask(emulator, "convert", number, *wait, *columns)
    assert (converted.status, converted.stdout) == (0, "completed,convert,\n")
    assert emulator.images[backup["id"]]["type"] == "snapshot"
    listed = json.loads((await ask(emulator, "actions", number, "-o", "json")).stdout)
    assert sorted(each["type"] for each in listed) == ["convert", "transfer", "transfer", "transfer"]
    one = await ask(emulator, "actions", number, "--action-id", str(listed[0]["id"]), "-o", "json")
    assert json.loads(one.stdout) == listed[:1]


async def test_a_region_that_fails_does_not_hide_the_others(emulator: ImagesEmulator) -> None:
    image = first(emulator, type="snapshot")
    image["regions"] = ["nyc3"]
    wait = ("--wait", "--poll-interval", "0.05")
    for good, more in (("sgp1", wait), ("ams3", ())):
        regions = ("--region", "mars1", "--region", good)
        ended = await ask(
            emulator, "transfer", str(image["id"]), *regions, *more, "--columns", "Region", "--no-header"
        )
        assert (ended.status, ended.stdout) == (3, f"mars1\n{good}\n")
        assert ended.stderr.startswith("do-images: mars1: ")


async def test_each_region_has_a_row_also_where_it_is_unknown_whether_a_transfer_began(
    emulator: ImagesEmulator,
) -> None:
    image = emulator.images.add(name="golden", regions=["nyc3"])
    emulator.faults.add(Fault(method="POST", broken="reset", times=1))
    arguments = ("transfer", str(image), "--region", "ams3")
    lost, more = [
        await ask(emulator, *arguments, *regions, "-o", "json") for regions in ((), ("--region", "mars1"))
    ]
    (row,) = json.loads(lost.stdout)
    assert lost.status == more.status == 3
    assert (row["id"], row["status"], row["region_slug"], row["resource_id"]) == (
        None,
        "unknown",
        "ams3",
        image,
    )
    assert lost.stderr == f"do-images: ams3: {row['error']}\n"
    assert "may have been carried out" in row["error"]
    begun, refused = json.loads(more.stdout)
    assert (begun["status"], begun["region_slug"], begun["error"]) == ("in-progress", "ams3", None)
    assert (refused["id"], refused["status"], refused["region_slug"]) == (None, "failed", "mars1")
    assert begun.keys() == refused.keys() == row.keys()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("transfer 7 --region ams3", "errored", "ams3: action 3, transfer to ams3, ended as errored"),
        ("convert 7", "errored", "action 3, convert, ended as errored"),
        ("transfer 7 --region ams3", "completed", ""),
        ("convert 7", "in-progress", ""),
    ],
)
async def test_an_action_that_is_answered_as_errored_is_a_failure(
    server: Server, arguments: str, status: str, message: str
) -> None:
    def begin(request: Received) -> Answer:
        region = {"region_slug": "ams3"} if "transfer" in arguments else {}
        action = {"id": 3, "status": status, "type": request.json()["type"], "resource_id": 7}
        return reply({"action": {**action, **region}}, status=201)

    server.answer_with(begin)
    ended = await do_images_here(*arguments.split(), "-o", "json", **account(server))
    assert ended.status == (3 if message else 0)
    assert ended.stderr == (f"do-images: {message}\n" if message else "")
    assert [each["status"] for each in json.loads(ended.stdout)] == [status]


async def test_an_import_that_is_answered_as_failed_is_a_failure(server: Server) -> None:
    failed = image_document(7, name="golden", status="deleted", error_message="no such file")
    server.script(reply({"image": failed}, status=202))
    arguments = ("create", "golden", "--url", "https://example.com/a.img", "--region", "nyc3", "-o", "json")
    ended = await do_images_here(*arguments, **account(server))
    assert ended.status == 3
    assert ended.stderr == "do-images: image 7 ended as deleted: no such file\n"
    assert [each["id"] for each in json.loads(ended.stdout)] == [7]


async def test_actions_that_are_fewer_than_announced_are_shown_as_incomplete(server: Server) -> None:
    action = {"id": 3, "status": "completed", "type": "transfer"}
    server.answer_with(
        lambda request: reply(
            {"actions": [action] if request.query["page"] == "1" else [], "meta": {"total": 2}}
        )
    )
    ended = await do_images_here("actions", "7", "-o", "json", **account(server))
    assert (ended.status, [each["id"] for each in json.loads(ended.stdout)]) == (4, [3])
    assert ended.stderr.startswith("do-images: INCOMPLETE: ")


# --- interruption ---


@pytest.mark.slow
async def test_an_interruption_says_what_it_leaves_behind(emulator: ImagesEmulator) -> None:
    numbers = [each["id"] for each in emulator.images if not each["public"]][:2]
    snapshot = first(emulator, type="snapshot")
    snapshot["regions"] = ["nyc3"]
    emulator.faults.add(Fault(method="DELETE", path=f"*/{numbers[1]}", broken="stall", times=None))
    emulator.faults.add(Fault(method="GET", path="*/actions*", broken="stall", times=None))
    cases = {
        (
            "delete",
            *map(str, numbers),
            "--yes",
        ): f"interrupted: 1 of 2 images deleted, 1 perhaps deleted: {numbers[1]}",
        (
            *("transfer", str(snapshot["id"]), "--region", "sgp1"),
            *("--wait", "--poll-interval", "0.1"),
        ): "interrupted: transfers that are under way go on; see `actions`",
        ("actions", str(snapshot["id"])): "INCOMPLETE: interrupted after 0 actions",
    }
    processes = await asyncio.gather(
        *(start([*arguments], account(emulator, emulator.token)) for arguments in cases)
    )
    deletion = processes[0].stdout
    assert deletion is not None
    assert (await deletion.readline()).startswith(f"deleted {numbers[0]} ".encode())
    await eventually(lambda: sum(fault.struck for fault in emulator.faults) >= len(cases), within=60)
    for process in processes:
        process.send_signal(signal.SIGINT)
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    for told, process, (_, stderr) in zip(cases.values(), processes, outputs, strict=True):
        assert process.returncode == -signal.SIGINT
        assert (
            stderr.decode().splitlines()[-1] == f"do-images: {told}"
        )  # after the progress, if it takes long


# --- progress ---


async def test_a_wait_for_quota_is_shown(server: Server) -> None:
    pages = listing(250)
    shown = bytearray()
    refused = refusal(429, headers={"retry-after": "1"})
    server.answer_with(
        lambda request: (
            pages(request) if request.query["page"] == "1" or b"the quota allows more" in shown else refused
        )
    )
    ended = await in_watched_terminal(shown, "list", **account(server))
    assert ended.status == 0
    assert re.search(r"200/250 images, 1 page, \d s until the quota allows more", ended.stderr)


async def test_a_fault_is_retried_unseen(emulator: ImagesEmulator) -> None:
    emulator.faults.add(Fault(status=503, times=1))
    ended = await ask(emulator, "get", "ubuntu-24-04-x64", "--columns", "Slug", "--no-header")
    assert (ended.status, ended.stdout, ended.stderr) == (0, "ubuntu-24-04-x64\n", "")


async def test_hostile_names_are_harmless_in_a_table(server: Server) -> None:
    hostile = image_document(name="\x1b]0;title\x07<b>\n", public=False)
    server.answer_with(lambda request: reply({"images": [hostile], "meta": {"total": 1}}))
    ended = await do_images_here("list", **account(server))
    assert ended.status == 0
    assert "\\x1b]0;title\\x07<b>\\n" in ended.stdout
    assert len(ended.stdout.splitlines()) == 2


# --- the quota of all runs ---


async def test_the_runs_of_one_machine_share_the_quota(tmp_path: Path) -> None:
    async with ImagesEmulator(quotas=(Quota(250, 60),)) as emulator:
        for _ in range(2):
            assert (await ask(emulator, "list", "-q", XDG_STATE_HOME=str(tmp_path))).status == 0
        spent = len(emulator.requests)
        async with ImagesAPI(
            emulator.token,
            base_url=emulator.url,
            limiter=FileRateLimiter(tmp_path / "do-images" / "quota.db"),
        ) as api:
            await api.get("ubuntu-24-04-x64")
            assert api.limiter.stats().available[0] == 250 - spent - 1


NOT_SHARED = "do-images: warning: the quota is not shared with others: {}; DO_IMAGES_QUOTA_FILE names another"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/dev/null/quota.db", "Not a directory"),
        ("/", "Is a directory"),
        ("/nowhere/else/quota.db", "there is no folder /nowhere/else"),
    ],
)
async def test_a_run_that_can_not_share_the_quota_says_so_on_stderr(
    emulator: ImagesEmulator, path: str, reason: str
) -> None:
    ended = await ask(emulator, "list", "-o", "json", DO_IMAGES_QUOTA_FILE=path)
    assert ended.status == 0
    assert ended.stderr.startswith(NOT_SHARED.format(f"{path}: {reason}"))
    assert len(ended.stderr.splitlines()) == 1
    assert not Path("/nowhere").exists()  # noqa: ASYNC240
    quiet = await ask(emulator, "list", "-o", "json", "-q", DO_IMAGES_QUOTA_FILE=path)
    assert (quiet.stdout, quiet.stderr) == (ended.stdout, "")


async def test_it_says_so_once_for_all_accounts(emulator: ImagesEmulator) -> None:
    accounts = ("--account", "a=TOKEN_A", "--account", "b=TOKEN_B")
    tokens = {"TOKEN_A": emulator.token, "TOKEN_B": emulator.tokens.issue()}
    for _ in range(2):  # in each run
        ended = await ask(emulator, "audit", *accounts, **tokens, DO_IMAGES_QUOTA_FILE="/dev/null/quota.db")
        assert ended.stderr.count("the quota is not shared") == 1


async def test_the_file_of_the_quota_may_be_in_the_home(emulator: ImagesEmulator, tmp_path: Path) -> None:
    ended = await ask(emulator, "list", HOME=str(tmp_path), DO_IMAGES_QUOTA_FILE="~/quota.db")
    assert (ended.status, ended.stderr) == (0, "")
    assert (tmp_path / "quota.db").is_file()


@pytest.mark.parametrize("name", ["off", "OFF", "/dev/null/quota.db"])
async def test_a_run_without_the_shared_quota_has_one_of_its_own(
    emulator: ImagesEmulator, tmp_path: Path, name: str
) -> None:
    ended = await ask(emulator, "list", "-q", XDG_STATE_HOME=str(tmp_path), DO_IMAGES_QUOTA_FILE=name)
    assert (ended.status, ended.stderr) == (0, "")
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240
