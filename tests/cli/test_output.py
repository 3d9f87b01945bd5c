"""The output of results: stdout is complete whatever stderr shows, and a file is complete or absent."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import json
import os
import pty
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from do_images_async.cli.output import Stdout, destination, write_file
from do_images_async.cli.status import Exit, Stopped
from do_images_async.testing import ImagesEmulator
from tests.support.cli_processes import Ended, account, do_images_here, drain, environment, files_of, start
from tests.support.servers import HANG, Server, eventually, listing, refusal, reply
from tests.support.slow import fewer

IMAGES = 1000


async def watched(*arguments: str, to_file: bool, **variables: str) -> Ended:
    """Run the command with stderr as a terminal, and stdout as a pipe or a file."""
    terminal, side = pty.openpty()
    reader, writer = os.pipe() if not to_file else (os.memfd_create("stdout"), -1)
    process = await start(arguments, variables, stdout=reader if to_file else writer, stderr=side)
    os.close(side)
    if not to_file:
        os.close(writer)
        stdout = asyncio.to_thread(read_all, reader)
    else:
        stdout = asyncio.sleep(0, "")
    shown, piped = await asyncio.gather(asyncio.to_thread(drain, terminal), stdout)
    status = await process.wait()
    if to_file:
        os.lseek(reader, 0, os.SEEK_SET)
        piped = read_all(reader)
    return Ended(status, piped, shown)


def read_all(descriptor: int) -> str:
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read().decode()


COUNTS: dict[str, Callable[[str], int]] = {
    "table": lambda text: len(text.splitlines()) - 1,
    "csv": lambda text: len(list(csv.DictReader(io.StringIO(text)))),
    "json": lambda text: len(json.loads(text)),
    "ndjson": lambda text: len([json.loads(line) for line in text.splitlines()]),
}


REPORTS: dict[str, Callable[[str], bool]] = {
    "json": lambda text: json.loads(text)["images"] > IMAGES,
    "csv": lambda text: len(list(csv.DictReader(io.StringIO(text)))) > 1,
    "html": lambda text: text.startswith("<!doctype html>") and text.endswith("</html>\n"),
    "text": lambda text: text.startswith("Images of") and "once in the totals." in text,
}


@pytest.mark.slow
@pytest.mark.timeout(240)  # twelve processes, each with a slow server
async def test_every_row_arrives_while_a_terminal_shows_the_progress() -> None:
    async with ImagesEmulator(images=IMAGES, quotas=None, latency=0.7) as slow:
        where = account(slow, slow.token)
        cases = [(form, to_file) for form in COUNTS for to_file in (False, True)]
        lists = await asyncio.gather(
            *(watched("list", "-o", form, to_file=to_file, **where) for form, to_file in cases)
        )
        reports = await asyncio.gather(
            *(watched("audit", "-o", form, to_file=False, **where) for form in REPORTS)
        )
    for ended in (*lists, *reports):
        assert ended.status == 0
        assert "images, " in ended.stderr  # the progress was there
        assert "\x1b" not in ended.stdout
    for (form, to_file), ended in zip(cases, lists, strict=True):
        assert COUNTS[form](ended.stdout) == IMAGES, (form, to_file)
    for (form, is_whole), ended in zip(REPORTS.items(), reports, strict=True):
        assert is_whole(ended.stdout), form


# --- stdout ---


async def test_a_pipe_that_does_not_block_gets_all_of_the_text() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text = "ä line\n" * 100_000  # ten times what a pipe holds
    received = asyncio.create_task(asyncio.to_thread(read_all, reader))
    with io.TextIOWrapper(io.FileIO(writer, "w"), encoding="utf-8", write_through=True) as stream:
        await asyncio.to_thread(Stdout(stream).write, text)
    assert await received == text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_data_is_utf_8_whatever_the_encoding_of_stdout(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    Stdout(stream).write("naïve 🐧\n", data=True)
    stream.seek(0)
    assert stream.buffer.read().decode() == "naïve 🐧\n"


def test_a_table_has_escapes_for_what_the_encoding_of_stdout_lacks() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="backslashreplace")
    Stdout(stream).write("naïve 🐧\n")
    stream.seek(0)
    assert stream.buffer.read().decode("cp1252") == "naïve \\U0001f427\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "status"),
    [("ulimit -f 100; exec {} >{}", 74), ("{} | head -n 1 >{}; exit ${{PIPESTATUS[0]}}", 141)],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
async def test_output_that_is_cut_short_never_ends_with_0(
    script: str, status: int, unbuffered: str, tmp_path: Path
) -> None:
    command = f"{sys.executable} -m do_images_async audit --demo -q -o json"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script.format(command, tmp_path / "out")),
        env=environment(PYTHONUNBUFFERED=unbuffered),
    )
    assert await process.wait() == status


# --- files ---


@pytest.mark.parametrize("command", fewer(["list", "audit"]))
async def test_a_partial_result_never_replaces_a_file(command: str, server: Server, tmp_path: Path) -> None:
    catalogue = listing(450)
    server.answer_with(lambda request: catalogue(request) if request.query["page"] == "1" else HANG)
    file = tmp_path / "result.json"
    file.write_text("the whole of yesterday", encoding="utf-8")
    process = await start([command, "-q", "-o", "json", "--file", str(file)], account(server))
    await eventually(lambda: len(server.received) >= 2, within=30)
    process.send_signal(signal.SIGINT)
    stdout, stderr = await process.communicate()
    assert (process.returncode, stdout) == (-signal.SIGINT, b"")
    assert file.read_text(encoding="utf-8") == "the whole of yesterday"
    partial = json.loads(file.with_name("result.json.partial").read_text(encoding="utf-8"))
    assert len(partial) == 200 if command == "list" else partial["complete"] is False
    assert stderr.decode().endswith(f"what was read is in {file}.partial, and {file} is as it was\n")
    assert files_of(tmp_path) == ["result.json", "result.json.partial"]
    ended = await do_images_here("audit", "--demo", "--baseline", f"{file}.partial")
    assert (ended.status, ended.stdout) == (2, "")


async def test_a_complete_result_removes_the_partial_one_of_an_earlier_run(tmp_path: Path) -> None:
    file, partial = tmp_path / "out.json", tmp_path / "out.json.partial"
    partial.write_text("what was read yesterday, when it was interrupted", encoding="utf-8")
    ended = await do_images_here("audit", "--demo", "--images", "10", "-q", "-o", "json", "--file", str(file))
    assert (ended.status, ended.stderr) == (0, "")
    assert files_of(tmp_path) == ["out.json"]


async def test_a_run_that_fails_keeps_the_partial_result_of_an_earlier_one(
    server: Server, tmp_path: Path
) -> None:
    server.answer_with(lambda _: refusal(403))
    partial = tmp_path / "rows.partial"
    partial.write_text("old", encoding="utf-8")
    ended = await do_images_here("list", "--file", str(tmp_path / "rows"), **account(server))
    assert ended.status == 3
    assert files_of(tmp_path) == ["rows.partial"]


def test_what_has_no_partial_result_removes_none(tmp_path: Path) -> None:
    (tmp_path / "plan.json.partial").write_text("somebody else's", encoding="utf-8")
    write_file(tmp_path / "plan.json", "{}")
    assert files_of(tmp_path) == ["plan.json", "plan.json.partial"]


@pytest.mark.parametrize("form", fewer(["json", "ndjson", "csv", "table"]))
async def test_a_listing_that_fails_after_some_pages_keeps_what_was_read(
    form: str, server: Server, tmp_path: Path
) -> None:
    catalogue = listing(450)
    server.answer_with(lambda request: refusal(401) if request.query["page"] == "3" else catalogue(request))
    file = tmp_path / "rows"
    file.write_text("old", encoding="utf-8")
    shown = await do_images_here("list", "-o", form, **account(server))
    assert shown.status == 3
    message = "do-images: INCOMPLETE: failed after 400 images of 450: GET "
    assert shown.stderr.startswith(message)
    assert "; the token came from DIGITALOCEAN_TOKEN" in shown.stderr
    assert shown.stderr.count("\n") == 1
    ended = await do_images_here("list", "-o", form, "--file", str(file), **account(server))
    assert (ended.status, ended.stdout) == (3, "")
    assert ended.stderr.startswith(message)
    assert ended.stderr.endswith(f"what was read is in {file}.partial, and {file} is as it was\n")
    assert file.read_text(encoding="utf-8") == "old"
    part = (tmp_path / "rows.partial").read_text(encoding="utf-8")
    assert part == shown.stdout
    assert (len(json.loads(part)) if form == "json" else part.count("\n") - (form != "ndjson")) == 400


async def test_actions_that_fail_after_some_pages_are_kept(server: Server, tmp_path: Path) -> None:
    page = [{"id": number, "status": "completed", "type": "transfer"} for number in range(1, 201)]
    answer = reply({"actions": page, "meta": {"total": 250}})
    server.answer_with(lambda request: answer if request.query["page"] == "1" else refusal(403))
    file = tmp_path / "actions"
    ended = await do_images_here("actions", "7", "-o", "json", "--file", str(file), **account(server))
    assert (ended.status, files_of(tmp_path)) == (3, ["actions.partial"])
    assert ended.stderr.startswith("do-images: INCOMPLETE: failed after 200 actions: GET ")
    assert len(json.loads((tmp_path / "actions.partial").read_text(encoding="utf-8"))) == 200


def test_a_partial_result_does_not_speak_of_a_file_that_never_was(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    with pytest.raises(Stopped) as caught, destination(file) as target:  # noqa: PT012
        target.write("a row\n")
        raise Stopped(Exit.INTERRUPTED, "interrupted", partial=True)
    assert str(caught.value) == f"interrupted; what was read is in {file}.partial"


def test_a_new_file_has_no_more_rights_than_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "report"
    file.write_text("old", encoding="utf-8")
    file.chmod(0o6750)
    write_file(file, "new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o750


def test_a_loop_of_links_is_an_error_before_anything_is_sent(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.symlink_to(two)
    two.symlink_to(one)
    with pytest.raises(Stopped, match="could not be written: Too many levels"), destination(one):
        raise AssertionError
    assert one.is_symlink()


def test_a_link_to_what_is_not_there_yet_is_followed(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "target")
    write_file(link, "new")
    assert ((tmp_path / "target").read_text(encoding="utf-8"), link.is_symlink()) == ("new", True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("actions", "7"),
        ("audit",),
        ("convert", "7"),
        ("create", "golden", "--url", "https://example.com/a.qcow2", "--region", "nyc3"),
        ("delete", "7", "--yes"),
        ("get", "7"),
        ("latest", "--name", "web"),
        ("list",),
        ("prune", "--name", "web", "--keep-last", "1"),
        ("replicate", "7", "--to", "nyc3"),
        ("transfer", "7", "--region", "nyc3"),
        ("update", "7", "--name", "golden"),
        ("wait", "7"),
    ],
    ids=lambda arguments: arguments[0],
)
async def test_a_file_that_cannot_be_written_is_one_line_before_anything_is_sent(
    arguments: tuple[str, ...], server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "missing" / "file"
    ended = await do_images_here(*arguments, "--file", str(file), **account(server))
    gc.collect()  # a coroutine that nobody has awaited warns when it is collected
    assert (ended.status, ended.stdout) == (74, "")
    assert ended.stderr == f"do-images: {file} could not be written: No such file or directory\n"
    assert server.received == []
