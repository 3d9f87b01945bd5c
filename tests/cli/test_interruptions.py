"""A command that changes something and is interrupted: what is sent, waited for and reported."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pty
import re
import signal
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from do_images_async import ImagesAPI
from do_images_async.cli.in_flight import Interruption, NotSentError, note_event
from do_images_async.cli.text import counted
from do_images_async.testing import Fault, ImagesEmulator
from tests.conftest import TOKEN
from tests.support.cli_processes import (
    account,
    at_the_first,
    do_images_here,
    drain,
    pruning_into_a_pipe,
    start,
)
from tests.support.copying import CopyingAccount
from tests.support.servers import (
    CLOSE,
    HANG,
    RESET,
    Answer,
    Received,
    Script,
    Server,
    eventually,
    refusal,
)
from tests.support.slow import fewer

STOPPING = fewer([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
CHANGES = ("create", "replicate", "update", "convert", "transfer")


@pytest.fixture
async def emulator() -> AsyncIterator[ImagesEmulator]:
    """Serve twelve images, web-0 to web-11, the oldest first."""
    async with ImagesEmulator(images=0, quotas=None) as running:
        for age in range(12):
            running.images.add(name=f"web-{age}", created_at=f"2026-01-01T00:00:{age:02}Z")
        yield running


def ids(emulator: ImagesEmulator) -> list[int]:
    return [each["id"] for each in emulator.images if not each["public"]]


async def begun(emulator: ImagesEmulator, *arguments: str) -> Process:
    return await start(arguments, account(emulator, emulator.token))


async def line_of(process: Process) -> str:
    """Return the next line of stderr."""
    assert process.stderr is not None
    return (await process.stderr.readline()).decode()


async def ended(process: Process) -> tuple[int | None, str, str]:
    stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


def stall_some(emulator: ImagesEmulator, method: str = "DELETE") -> list[int]:
    """Let three images' requests have no answer; return their ids."""
    some = ids(emulator)[1:4]
    for each in some:
        emulator.faults.add(Fault(method=method, path=f"*/{each}", broken="stall", times=None))
    return some


async def interrupt_again_and_again(process: Process, number: int, times: int) -> None:
    """Interrupt, and when it waits for what is in flight, so many times again."""
    process.send_signal(number)
    assert await line_of(process) == (
        "do-images: interrupted; waiting for 3 deletions in flight, again to leave\n"
    )
    for _ in range(times):
        process.send_signal(number)
        await asyncio.sleep(0)  # one by one


def journalled(path: Path) -> Sequence[Any]:
    return [json.loads(line)["event"] for line in path.read_text(encoding="utf-8").splitlines()]


def deleted_by(form: str, text: str) -> dict[int, str]:
    """Return the outcome of each image in a report of `prune`."""
    if form == "json":
        outcomes = json.loads(text)["outcomes"]
        return {each["id"]: each["outcome"] for each in outcomes}
    if form == "csv":
        rows = csv.DictReader(io.StringIO(text))
        return {int(each["id"]): each["outcome"] for each in rows if each["outcome"]}
    lines = re.findall(r"^(deleted|unknown|failed|not tried) (\d+) ", text, re.MULTILINE)
    return {int(number): outcome for outcome, number in lines}


def events_of(journal: Path) -> dict[int, list[str]]:
    """Return the events of each image."""
    found: dict[int, list[str]] = {}
    for line in map(json.loads, journal.read_text(encoding="utf-8").splitlines()):
        found.setdefault(line["id"], []).append(line["event"])
    return found


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("times", fewer([2, 1, 5]))
@pytest.mark.parametrize("form", ["text", "json", "csv"])
async def test_no_number_of_signals_loses_the_report_of_prune(
    emulator: ImagesEmulator, tmp_path: Path, form: str, times: int, number: int
) -> None:
    every, stalled = ids(emulator), stall_some(emulator)
    journal = tmp_path / "journal"
    process = await begun(
        *(emulator, "prune", "--name", "web-*", "--keep-last", "1", "--max-delete-fraction", "1"),
        *("--apply", "--yes", "--journal", str(journal), "-o", form),
    )
    await eventually(lambda: journal.exists() and journalled(journal).count("deleted") == 8, within=60)
    await interrupt_again_and_again(process, number, times)
    status, stdout, stderr = await ended(process)
    assert (status, stderr) == (
        -number,
        "do-images: interrupted: 8 of 11 images deleted (20 GB), 3 perhaps deleted\n",
    )
    told = {each: "unknown" if each in stalled else "deleted" for each in every[:-1]}
    assert deleted_by(form, stdout) == told
    events = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    assert {each["id"]: each["event"] for each in events} == told


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("times", fewer([2, 1, 5]))
@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_number_of_signals_loses_the_report_of_delete(
    emulator: ImagesEmulator, form: str, times: int, number: int
) -> None:
    every, stalled = ids(emulator), stall_some(emulator)
    process = await begun(emulator, "delete", *map(str, every), "--yes", "-v", "-o", form)
    for _ in range(9):
        while "answered 204" not in await line_of(process):
            pass
    await interrupt_again_and_again(process, number, times)
    status, stdout, stderr = await ended(process)
    words = ", ".join(map(str, stalled))
    assert status == -number
    assert stderr.endswith(f"do-images: interrupted: 9 of 12 images deleted, 3 perhaps deleted: {words}\n")
    if form == "json":
        told = {each["id"]: each["deleted"] for each in json.loads(stdout)}
        assert told == {each: None if each in stalled else True for each in every}
    else:
        lines = [line.partition(" web-")[0] for line in stdout.splitlines()]
        assert lines == [f"{'perhaps ' * (each in stalled)}deleted {each}" for each in every]


@pytest.mark.parametrize("number", STOPPING)
async def test_a_refused_deletion_is_not_sent_again_and_not_called_perhaps_deleted(
    emulator: ImagesEmulator, tmp_path: Path, number: int
) -> None:
    emulator.faults.add(Fault(method="DELETE", status=429, headers={"retry-after": "300"}, times=None))
    image, other = ids(emulator)[:2]
    process = await begun(emulator, "delete", str(image), "--yes", "-o", "json")
    await eventually(lambda: emulator.requests.count("DELETE", status=429) == 1, within=60)
    await asyncio.sleep(0.1)  # the answer travels; if it is still in flight, the result is the same
    process.send_signal(number)
    status, stdout, stderr = await ended(process)
    assert status == -number
    assert [each["deleted"] for each in json.loads(stdout)] == [False]
    assert "was answered 429" in stderr
    assert stderr.endswith("do-images: interrupted: 0 of 1 image deleted\n")
    assert emulator.requests.count("DELETE") == 1
    assert {image, other} < set(ids(emulator))


async def test_prune_reports_a_refused_deletion_as_failed_when_it_is_interrupted(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    emulator.faults.add(Fault(method="DELETE", status=429, headers={"retry-after": "300"}, times=None))
    journal = tmp_path / "journal"
    process = await begun(
        *(emulator, "prune", "--name", "web-*", "--keep-last", "11"),
        *("--apply", "--yes", "--journal", str(journal), "-o", "json"),
    )
    await eventually(lambda: emulator.requests.count("DELETE", status=429) == 1, within=60)
    await asyncio.sleep(0.1)
    process.send_signal(signal.SIGINT)
    status, stdout, stderr = await ended(process)
    assert status == -signal.SIGINT
    assert stderr.endswith("do-images: interrupted: 0 of 1 image deleted (0 GB), 1 failed\n")
    assert list(deleted_by("json", stdout).values()) == ["failed"]
    assert "was answered 429" in stdout
    assert journalled(journal) == ["deleting", "failed"]
    assert emulator.requests.count("DELETE") == 1


@pytest.mark.parametrize("form", ["text", "json", "csv"])
async def test_prune_calls_no_deletion_failed_that_was_never_sent(
    emulator: ImagesEmulator, tmp_path: Path, form: str
) -> None:
    """A slow start holds deletions back that are in the journal already."""
    every = ids(emulator)
    emulator.faults.add(Fault(method="DELETE", delay=0.5, times=None))
    journal = tmp_path / "journal"
    process = await begun(
        *(emulator, "prune", "--name", "web-*", "--keep-last", "1", "--max-delete-fraction", "1"),
        *("--apply", "--yes", "--journal", str(journal), "-o", form),
    )
    at_the_first(emulator, "DELETE", lambda: process.send_signal(signal.SIGINT))
    status, stdout, stderr = await ended(process)
    there = set(ids(emulator))
    told = {each: "not tried" if each in there else "deleted" for each in every[:-1]}
    assert status == -signal.SIGINT
    assert deleted_by(form, stdout) == told
    begun_in_journal = events_of(journal)
    assert all(begun_in_journal[each] == ["deleting", told[each]] for each in begun_in_journal)
    deleted = len(every) - len(there)
    assert stderr.endswith(
        f" {deleted} of 11 images deleted ({deleted * 2.5:g} GB), {11 - deleted} not tried\n"
    )


async def test_prune_that_is_stopped_knows_what_an_earlier_run_has_done(
    emulator: ImagesEmulator, tmp_path: Path
) -> None:
    *refused, begun, deleted, _ = ids(emulator)
    for each in (*refused, begun):
        emulator.faults.add(Fault(method="DELETE", path=f"*/{each}", status=422, times=None))
    where, plan, journal = account(emulator, emulator.token), str(tmp_path / "plan"), tmp_path / "journal"
    await do_images_here("prune", "--name", "web-*", "--keep-last", "1", "--plan", plan, **where)
    apply = ("prune", "--apply-plan", plan, "--max-delete-fraction", "1", "-y", "--journal", str(journal))
    await do_images_here(*apply, **where)
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    line = next(line for line in lines if line["id"] == begun)
    with journal.open("a", encoding="utf-8") as file:  # as a run that is killed in the middle of the deletion
        file.write(json.dumps(line | {"event": "deleting"}) + "\n")
    emulator.faults.add(Fault(method="GET", path=f"*/{refused[0]}", status=401, times=None))
    ended = await do_images_here(*apply, "-o", "json", **where)
    told = deleted_by("json", ended.stdout)
    assert (ended.status, told[refused[0]], told[refused[-1]]) == (3, "failed", "not tried")
    assert (told[begun], told[deleted]) == ("unknown", "deleted")


@pytest.mark.parametrize("number", STOPPING)
async def test_a_deletion_is_not_retried_after_a_signal(emulator: ImagesEmulator, number: int) -> None:
    """Its first attempt fails after the signal; a 503 leaves open whether the image was deleted."""
    emulator.faults.add(Fault(method="DELETE", status=503, delay=2.0, times=None))
    image = ids(emulator)[0]
    process = await begun(emulator, "delete", str(image), "--yes")
    at_the_first(emulator, "DELETE", lambda: process.send_signal(number))
    status, stdout, stderr = await ended(process)
    assert status == -number
    assert stdout.startswith(f"perhaps deleted {image} web-0")
    first, *_, last = stderr.splitlines()
    assert first == "do-images: interrupted; waiting for 1 deletion in flight, again to leave"
    assert last == f"do-images: interrupted: 0 of 1 image deleted, 1 perhaps deleted: {image}"
    assert emulator.requests.count("DELETE") == 1


@pytest.mark.parametrize("number", STOPPING)
async def test_a_signal_while_the_report_waits_for_its_reader_does_not_cut_it(number: int) -> None:
    """A reader that takes its time, such as a pager, gets all of it; the work is done, so the status is 0."""
    async with pruning_into_a_pipe() as (_, process, reader):
        first = await asyncio.to_thread(os.read, reader, 1)
        process.send_signal(number)
        with os.fdopen(reader, "rb") as stream:
            stdout = first + await asyncio.to_thread(stream.read)
        _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"do-images: 4 of 4 images deleted (10 GB)\n")
    assert [each["outcome"] for each in json.loads(stdout)["outcomes"]] == ["deleted"] * 4


# --- one change ---


def image_of(emulator: ImagesEmulator) -> str:
    image = next(each for each in emulator.images if not each["public"])
    image["regions"] = ["nyc3"]
    return str(image["id"])


def changes(image: str) -> dict[str, tuple[str, ...]]:
    return {
        "create": ("create", "golden", "--image-url", "https://example.com/g", "--region", "nyc3"),
        "update": ("update", image, "--name", "golden"),
        "convert": ("convert", image),
        "transfer": ("transfer", image, "--region", "sgp1"),
        "replicate": ("replicate", "--name", "web-0", "--to", "sgp1"),
    }


@pytest.mark.parametrize(
    ("command", "wait"),
    fewer(
        [
            *((command, ()) for command in CHANGES),
            *((command, ("--wait",)) for command in ("create", "convert", "transfer")),
        ],
        3,
    ),
)
async def test_a_change_in_flight_may_end_and_is_reported(
    emulator: ImagesEmulator, command: str, wait: tuple[str, ...]
) -> None:
    method = "PUT" if command == "update" else "POST"
    emulator.faults.add(Fault(method=method, delay=2.0))
    image = image_of(emulator)
    if command == "convert":
        emulator.images[int(image)]["type"] = "backup"
    process = await begun(emulator, *changes(image)[command], *wait, "-o", "json")
    at_the_first(emulator, method, lambda: process.send_signal(signal.SIGINT))
    status, stdout, stderr = await ended(process)
    noun = "transfer" if command in ("transfer", "replicate") else "request"
    first, last = stderr.splitlines()
    assert first == f"do-images: interrupted; waiting for 1 {noun} in flight, again to leave"
    (row,) = json.loads(stdout)
    said = {
        "create": f"interrupted; image {row.get('id')} was created",
        "update": f"interrupted; image {row.get('id')} was updated",
        "convert": f"interrupted; action {row.get('id')} converts it",
        "transfer": "interrupted: transfers that are under way go on; see `actions`",
        "replicate": "interrupted: transfers that are in progress go on; the next run waits for them",
    }
    assert (status, last) == (-signal.SIGINT, f"do-images: {said[command]}")
    assert emulator.requests.count(method) == 1
    assert row.get("name", "golden") == ("web-0" if command == "replicate" else "golden")
    assert isinstance(row["action_id" if command == "replicate" else "id"], int)


@pytest.mark.parametrize("command", fewer(CHANGES, 2))
async def test_a_change_that_is_left_in_flight_may_have_been_carried_out(
    emulator: ImagesEmulator, command: str
) -> None:
    method = "PUT" if command == "update" else "POST"
    emulator.faults.add(Fault(method=method, broken="stall", times=None))
    image = image_of(emulator)
    process = await begun(emulator, *changes(image)[command])
    at_the_first(emulator, method, lambda: process.send_signal(signal.SIGINT))
    assert " in flight, again to leave" in await line_of(process)
    process.send_signal(signal.SIGINT)
    status, stdout, stderr = await ended(process)
    path = {"create": "", "update": f"/{image}"}.get(command, f"/{image}/actions")
    sentence = f"{method} /v2/images{path} was sent: it may have been carried out"
    assert status == -signal.SIGINT
    if command == "replicate":
        assert "unknown" in stdout
        assert "may have been carried out" in " ".join(stdout.split())
    elif command == "transfer":
        assert stderr.startswith(f"do-images: sgp1: {sentence}\n")
    else:
        assert stderr == f"do-images: interrupted; {sentence}\n"
    assert emulator.requests.count(method) <= 1


@pytest.mark.parametrize("command", ["transfer", "replicate"])
async def test_a_copy_that_an_interruption_comes_before_was_not_tried(
    emulator: ImagesEmulator, command: str
) -> None:
    regions = ["sgp1", "ams3", "fra1"]
    emulator.faults.add(Fault(method="POST", delay=0.5))
    what = (image_of(emulator), "--region") if command == "transfer" else ("--name", "web-*", "--to")
    process = await begun(emulator, command, *what, ",".join(regions), "-o", "json")
    at_the_first(emulator, "POST", lambda: process.send_signal(signal.SIGINT))
    status, stdout, _ = await ended(process)
    statuses = Counter(each["status"] for each in json.loads(stdout))
    copies = len(regions) * (1 if command == "transfer" else len(ids(emulator)))
    sent = emulator.requests.count("POST")
    assert status == -signal.SIGINT
    assert statuses == {"in-progress": sent, "not tried": copies - sent}
    assert 0 < sent < copies


async def test_no_copy_begins_while_others_of_the_image_are_in_flight(emulator: ImagesEmulator) -> None:
    # A new client sends a few at once at first, and more with each answer: the other copies wait for one.
    emulator.actions.seconds = 3600
    emulator.faults.add(Fault(method="POST", delay=0.5))
    emulator.faults.add(Fault(method="POST", delay=2, times=None))
    regions = "sgp1", "ams3", "fra1", "lon1", "tor1", "blr1", "syd1", "sfo3"
    process = await begun(emulator, "replicate", image_of(emulator), "--to", ",".join(regions), "-o", "json")
    at_the_first(emulator, "POST", lambda: process.send_signal(signal.SIGINT))
    status, stdout, stderr = await ended(process)
    sent = emulator.requests.count("POST")
    statuses = Counter(each["status"] for each in json.loads(stdout))
    assert status == -signal.SIGINT
    assert stderr.startswith(f"do-images: interrupted; waiting for {counted(sent, 'transfer')} in flight")
    assert statuses == {"in-progress": sent, "not tried": len(regions) - sent}
    assert 1 < sent < len(regions)


def at_the_next_look(act: Callable[[], object], copies: CopyingAccount) -> Script:
    """Return a script that acts when the image is read after a transfer has begun, for the first time."""
    acts = [act]

    async def script(request: Received) -> Answer:
        if acts and request.path == "/v2/images/7" and copies.targets:
            acts.pop()()
            await asyncio.sleep(0.3)
        return copies(request)

    return script


async def copy_of_a_terminated(process: Process) -> tuple[dict[str, Any], str]:
    """Return the row of the only copy, and stderr, of a `replicate` that SIGTERM has ended."""
    status, stdout, stderr = await ended(process)
    [row] = json.loads(stdout)
    assert status == -signal.SIGTERM
    return row, stderr


COPYING = ("replicate", "7", "--to", "fra1", "-o", "json")


@pytest.mark.parametrize("broken", fewer([refusal(504), RESET, CLOSE]))
async def test_a_copy_whose_outcome_is_unknown_when_it_is_interrupted_is_unknown(
    server: Server, broken: Answer
) -> None:
    copies = CopyingAccount()

    async def script(request: Received) -> Answer:
        answer = copies(request)
        if request.method != "POST":
            return answer
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        return broken

    server.answer_with(script)
    process = await start(COPYING, account(server))
    row, stderr = await copy_of_a_terminated(process)
    assert (row["status"], row["name"]) == ("unknown", "image 7")
    assert "POST" in row["message"]
    assert "waiting for 1 transfer in flight" in stderr


async def test_a_copy_that_is_being_searched_when_it_is_interrupted_is_unknown(server: Server) -> None:
    copies = CopyingAccount()
    process: Process
    acts = [lambda: process.send_signal(signal.SIGTERM)]

    def script(request: Received) -> Answer:
        answer = copies(request)
        if request.method == "POST":
            return RESET
        if copies.targets and acts:
            acts.pop()()
            return HANG
        return answer

    server.answer_with(script)
    process = await start(COPYING, account(server))
    row, _ = await copy_of_a_terminated(process)
    assert row["status"] == "unknown"
    assert row["message"].startswith(f"POST {server.url}/v2/images/7/actions failed")


async def test_a_copy_is_known_whose_action_names_another_region_when_it_is_interrupted(
    server: Server,
) -> None:
    copies = CopyingAccount(names="nyc3", completes=False)
    server.answer_with(at_the_next_look(lambda: process.send_signal(signal.SIGTERM), copies))
    process = await start(COPYING, account(server))
    row, _ = await copy_of_a_terminated(process)
    assert (row["status"], row["action_id"]) == ("in-progress", 1)


async def test_a_copy_that_the_image_does_not_show_when_it_is_interrupted_is_not_called_copied(
    server: Server,
) -> None:
    copies = CopyingAccount(shows=False)
    server.answer_with(at_the_next_look(lambda: process.send_signal(signal.SIGTERM), copies))
    process = await start((*COPYING, "--poll-interval", "0.01"), account(server))
    row, _ = await copy_of_a_terminated(process)
    assert (row["status"], row["action_id"]) == ("in-progress", 1)
    assert row["message"] == "its action is completed; the next run looks whether the image is there"


@pytest.mark.parametrize("command", fewer(["create", "convert", "update"]))
async def test_a_signal_just_after_a_change_has_failed_hides_no_error(command: str) -> None:
    async def told(milliseconds: int) -> str:
        async with Server().running() as server:
            answered = asyncio.Event()

            def refuse(_: Received) -> Answer:
                answered.set()
                return refusal(503)

            server.answer_with(refuse)
            process = await start((*changes("7")[command], "--retries", "0"), account(server))
            await answered.wait()
            await asyncio.sleep(milliseconds / 1000)
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            return (await ended(process))[2]

    every = await asyncio.gather(*map(told, (0, 2, 4, 8)))
    assert all("was answered 503" in each for each in every), every


async def test_a_refused_change_is_said_to_be_refused(emulator: ImagesEmulator) -> None:
    emulator.faults.add(Fault(method="POST", status=429, headers={"retry-after": "300"}, times=None))
    process = await begun(emulator, *changes("")["create"])
    await eventually(lambda: emulator.requests.count("POST", status=429) == 1, within=60)
    await asyncio.sleep(0.1)
    process.send_signal(signal.SIGINT)
    status, _, stderr = await ended(process)
    last = stderr.splitlines()[-1]
    assert status == -signal.SIGINT
    assert last.startswith("do-images: interrupted; POST ")
    assert "was answered 429" in last
    assert "may have been" not in last
    assert emulator.requests.count("POST") == 1


async def test_a_change_that_was_never_sent_is_said_to_be_so() -> None:
    """Its proxy does not answer, so that there is no connection to send it on."""
    asked = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        process = await start(
            (*changes("")["create"], "--proxy", f"http://127.0.0.1:{port}"),
            {"DIGITALOCEAN_TOKEN": TOKEN, "DIGITALOCEAN_API_URL": "https://api.example.com"},
        )
        await asked.wait()
        process.send_signal(signal.SIGINT)
        assert " in flight, again to leave" in await line_of(process)
        process.send_signal(signal.SIGINT)
        status, stdout, stderr = await ended(process)
    assert (status, stdout, stderr) == (
        -signal.SIGINT,
        "",
        "do-images: interrupted; the request was not sent\n",
    )


# --- reading ---


@pytest.mark.parametrize("command", ["get", "delete"])
async def test_json_has_the_images_that_were_read_before_the_interruption(
    emulator: ImagesEmulator, command: str
) -> None:
    first, stalled, last = ids(emulator)[:3]
    read = [first, last]
    emulator.faults.add(Fault(method="GET", path=f"*/{stalled}", broken="stall", times=None))
    options = ["-y"] * (command == "delete")
    process = await begun(emulator, command, *map(str, (first, stalled, last)), *options, "-v", "-o", "json")
    for _ in read:
        while "answered 200" not in await line_of(process):
            pass
    await asyncio.sleep(0.1)  # it reads the second answer; if it has not, it does not know that image
    process.send_signal(signal.SIGINT)
    status, stdout, stderr = await ended(process)
    known = [each["id"] for each in json.loads(stdout)]
    assert (status, known) in [(-signal.SIGINT, read[:count]) for count in (1, 2)]
    assert [each.get("deleted") for each in json.loads(stdout)] == [
        None if command == "get" else False for _ in known
    ]
    told = {
        "get": f"INCOMPLETE: interrupted after {len(known)}/3 images",
        "delete": "interrupted: 0 of 3 images deleted",
    }
    assert stderr.splitlines()[-1] == f"do-images: {told[command]}"
    assert emulator.requests.count("DELETE") == 0


# --- lines beside the progress ---


async def test_no_line_on_a_terminal_begins_in_that_of_the_progress(emulator: ImagesEmulator) -> None:
    """Stdout and stderr are one terminal; the progress is erased before each line that stays."""
    images = ids(emulator)[:4]

    for each in images:
        emulator.faults.add(Fault(method="DELETE", path=f"*/{each}", delay=1.5))
    terminal, side = pty.openpty()
    process = await start(
        ("delete", *map(str, images), "--yes"),
        account(emulator, emulator.token),
        stdin=side,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    text = await asyncio.to_thread(drain, terminal)
    assert await process.wait() == 0
    assert "images deleted" in text, "the progress was shown"
    assert lines_that_stay(text) == [
        f"deleted {each} web-{n} (snapshot, 2.5 GB)" for n, each in enumerate(images)
    ]


def lines_that_stay(text: str) -> list[str]:
    """Return the lines that a terminal shows in the end."""
    lines, row, column = [""], 0, 0
    for code in re.findall(r"\x1b\[[\d;?]*[A-Za-z]|.|\n|\r", text):
        if code == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif code == "\r":
            column = 0
        elif code == "\x1b[2K":
            lines[row] = ""
        elif code == "\x1b[1A":
            row -= 1
        elif not code.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + code + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines if line.strip()]


async def test_a_change_that_is_interrupted_before_its_task_begins_is_not_sent(
    emulator: ImagesEmulator,
) -> None:
    interruption = Interruption()
    number = ids(emulator)[0]
    async with ImagesAPI(emulator.token, base_url=emulator.url, on_event=note_event) as api:
        await api.get(number)  # so that a connection and quota are there, and nothing waits
        changing = asyncio.create_task(interruption.to_its_end(lambda: api.actions.convert(number)))
        asyncio.get_running_loop().call_soon(interruption.interrupt)
        with pytest.raises(NotSentError):
            await changing
    assert emulator.requests.count("POST") == 0
