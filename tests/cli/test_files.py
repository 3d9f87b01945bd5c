"""The files that options name: no command writes over a file that another of its options names."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from do_images_async.cli.app import main
from do_images_async.cli.checked import CheckedCommand
from do_images_async.testing import ImagesEmulator
from tests.conftest import TOKEN
from tests.support.cli_processes import Ended, account, do_images_here, in_terminal_here

PRUNE = "prune --name w --keep-last 1"
COMMANDS = sorted(main.list_commands(click.Context(main)))
PRECIOUS = '{"precious": true}\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, in which the command runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


async def refused(call: str) -> Ended:
    """Run a command that must be refused before anything is sent: there is no server."""
    ended = await do_images_here(
        *shlex.split(call), DIGITALOCEAN_TOKEN=TOKEN, DIGITALOCEAN_API_URL="http://127.0.0.1:9"
    )
    assert (ended.status, ended.stdout) == (2, "")
    return ended


@pytest.mark.parametrize("command", ["list", "prune --group-by none --keep-last 1", "audit"])
async def test_a_file_gets_no_colours_and_uncut_rows_whatever_the_terminal_is(
    command: str, folder: Path
) -> None:
    name = "n" * 100
    async with ImagesEmulator(images=0, quotas=None) as emulator:
        emulator.images.add(name=name, created_at="2026-01-01T00:00:00Z")
        where = account(emulator, emulator.token)
        ended = await in_terminal_here(*command.split(), "-q", "--file", "out", COLUMNS="40", **where)
    text = (folder / "out").read_text(encoding="utf-8")
    assert (ended.status, ended.stdout, "not shown" in ended.stderr) == (0, "", False)
    assert "\x1b" not in text
    assert name in text or command == "audit"


@pytest.mark.parametrize(
    ("call", "one", "other"),
    [
        (f"{PRUNE} --apply --yes --journal same --file same", "--journal", "--file"),
        (f"{PRUNE} --apply --yes --journal same --plan same", "--plan", "--journal"),
        (f"{PRUNE} --plan same --file same -o json", "--plan", "--file"),
        (f"{PRUNE} --droplets same --file same", "--droplets", "--file"),
        (f"{PRUNE} --droplets other --droplets same --plan same", "--droplets", "--plan"),
        ("prune --apply-plan same --file same", "--apply-plan", "--file"),
        ("prune --apply-plan same --journal same", "--apply-plan", "--journal"),
        ("audit --droplets same --file same", "--file", "--droplets"),
        ("list --token-file same --file same", "--file", "--token-file"),
        ("emulator --tls --ca same --dump same", "--ca", "--dump"),
        ("emulator --tls --ca same --load same", "--ca", "--load"),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
async def test_a_file_that_another_option_names_is_never_written(
    call: str, one: str, other: str, folder: Path, *, exists: bool
) -> None:
    same = folder / "same"
    (folder / "other").write_text(PRECIOUS, encoding="utf-8")
    if exists or any(option in call for option in ("--droplets", "--apply-plan", "--load")):
        same.write_text(PRECIOUS, encoding="utf-8")
    ended = await refused(call)
    assert f"{one} and {other} name the same file: same" in ended.stderr
    assert not same.exists() or same.read_text(encoding="utf-8") == PRECIOUS


def absolute(file: Path) -> str:
    return str(file.absolute())


def dotted(file: Path) -> str:
    return f"./sub/../{file}"


def linked(file: Path) -> str:
    Path("link").symlink_to(file)
    return "link"


def hard_linked(file: Path) -> str:
    file.write_text(PRECIOUS, encoding="utf-8")
    os.link(file, "hard")
    return "hard"


@pytest.mark.parametrize("another_name", [absolute, dotted, linked, hard_linked])
async def test_the_same_file_is_recognised_under_another_name(
    another_name: Callable[[Path], str], folder: Path
) -> None:
    (folder / "sub").mkdir()
    name = shlex.quote(another_name(Path("same.jsonl")))
    ended = await refused(f"{PRUNE} --apply --yes --journal same.jsonl --file {name}")
    assert "--journal and --file name the same file: " in ended.stderr


async def test_a_partial_result_has_a_file_of_its_own(folder: Path) -> None:
    ended = await refused(f"{PRUNE} --apply --yes --journal out.partial --file out")
    assert "--journal: out.partial is where --file keeps a partial result" in ended.stderr


async def test_a_report_may_replace_the_one_that_it_is_compared_with(folder: Path) -> None:
    report = "report.json"
    call = ("audit", "--demo", "--images", "10", "-q", "-o", "json", "--file", report, "--baseline", report)
    first = await do_images_here(*call)
    assert (first.status, first.stderr) == (
        0,
        "do-images: no earlier report to compare with: report.json is not there yet\n",
    )
    assert '"comparison": null' in (folder / report).read_text(encoding="utf-8")
    ended = await do_images_here(*call)
    assert (ended.status, ended.stderr) == (0, "")
    assert '"comparison": {' in (folder / report).read_text(encoding="utf-8")


async def test_another_report_to_compare_with_must_be_there(folder: Path) -> None:
    ended = await do_images_here("audit", "--demo", "-q", "--file", "new.json", "--baseline", "old.json")
    assert (ended.status, ended.stdout) == (2, "")
    assert "--baseline: old.json can't be read: No such file or directory" in ended.stderr
    assert not (folder / "new.json").exists()


@pytest.mark.parametrize("file", ["a/", "a/.", "a//", "."])
@pytest.mark.parametrize(
    "call",
    [
        "list --file",
        "audit --demo --file",
        f"{PRUNE} --plan",
        f"{PRUNE} --apply --yes --journal",
        "emulator --dump",
        "emulator --tls --ca",
    ],
)
async def test_a_path_of_a_directory_is_no_output_file(call: str, file: str, folder: Path) -> None:
    ended = await refused(f"{call} {file}")
    assert f"{file!r} is a directory's path: name a file." in ended.stderr
    assert files_of(folder) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("list --type snapshot --type backup", "--type is given 2 times: it takes one value"),
        ("list --limit 3 --limit=3 --limit 5", "--limit is given 3 times: it takes one value"),
        ("list -o json --output csv", "--output is given 2 times: it takes one value"),
        ("get 5 --retries 1 --retries 2", "--retries is given 2 times: it takes one value"),
        (f"{PRUNE} --keep-last 2", "--keep-last is given 2 times: it takes one value"),
        ("update 5 --name a --image-name b", "--image-name is given 2 times: it takes one value"),
        ("emulator --port 1 --port 2", "--port is given 2 times: it takes one value"),
    ],
)
async def test_an_option_with_one_value_is_given_once(call: str, message: str) -> None:
    assert message in (await refused(call)).stderr


async def test_options_with_several_values_and_flags_may_be_repeated() -> None:
    options = ("--ignore-rule", "old", "--ignore-rule", "untagged", "-q", "-q")
    ended = await do_images_here("audit", "--demo", "--images", "10", *options)
    assert ended.status == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_checks_its_options_together(name: str) -> None:
    assert isinstance(main.get_command(click.Context(main), name), CheckedCommand)
