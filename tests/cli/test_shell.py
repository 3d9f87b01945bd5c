"""The command in a shell: closed or full streams, closed pipes, internal errors, imports."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from do_images_async.cli.app import main, run
from do_images_async.testing import ImagesEmulator
from tests.conftest import TOKEN
from tests.support.cli_processes import Ended, account, do_images, environment, files_of
from tests.support.slow import fewer

ROOT = Path(__file__).parents[2]
DEMO = ("audit", "--demo", "--images", "10", "-q")


async def shell(redirection: str, *arguments: str, **variables: str) -> Ended:
    """Run the command in a shell that redirects its streams."""
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", f'"$@" {redirection}', "sh", sys.executable, "-m", "do_images_async", *arguments),
        env=environment(**variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    return Ended(await process.wait(), stdout.decode(), stderr.decode())


WRITERS = ["list", "get", "create", "update", "wait", "transfer", "convert", "actions", "delete", "audit"]
"""The commands that write to stdout."""


def commands(emulator: ImagesEmulator) -> Mapping[str, list[str]]:
    """Return the commands that write to stdout, with arguments for which they succeed."""
    image, backup = (
        next(str(each["id"]) for each in emulator.images if each["type"] == kind and not each["public"])
        for kind in ("snapshot", "backup")
    )
    url = ["--image-url", "https://example.com/a.qcow2", "--region", "nyc3"]
    return {
        "list": [],
        "get": ["ubuntu-24-04-x64"],
        "create": ["golden", *url],
        "update": [image, "--image-name", "new"],
        "wait": [image],
        "transfer": [image, "--region", "sfo3"],
        "convert": [backup],
        "actions": [image],
        "delete": [image, "--dry-run"],
        "audit": [],
    }


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("name", WRITERS)
async def test_output_that_can_not_be_written_is_one_line_and_74(name: str, unbuffered: str) -> None:
    async with ImagesEmulator(images=40, quotas=None, action_seconds=0) as emulator:
        call = [name, *commands(emulator)[name]]
        where = account(emulator, emulator.token)
        _says_that_it_could_not_write(await shell(">/dev/full", *call, PYTHONUNBUFFERED=unbuffered, **where))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "arguments"),
    [
        (">/dev/full", ["list", "--help"]),
        (">&-", ["--help"]),
        (">&-", ["--version"]),
        (">&-", [*DEMO]),
    ],
)
async def test_the_same_without_an_account(redirection: str, arguments: list[str]) -> None:
    _says_that_it_could_not_write(await shell(redirection, *arguments))


def _says_that_it_could_not_write(ended: Ended) -> None:
    assert (ended.status, ended.stdout) == (74, "")
    assert ended.stderr.startswith("do-images: the output could not be written: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "told"),
    fewer(
        [("create", "was created"), ("delete", "1 of 1 image deleted"), ("transfer", "action"), ("list", "")]
    ),
)
async def test_a_file_that_can_not_be_written_is_74_and_what_was_changed_is_told(
    name: str, told: str, tmp_path: Path
) -> None:
    """What is too little to be written before the file is closed counts as well."""
    file = tmp_path / "result"
    file.write_text("of yesterday", encoding="utf-8")
    async with ImagesEmulator(images=40, quotas=None, action_seconds=0) as emulator:
        arguments = [word for word in commands(emulator)[name] if word != "--dry-run"]
        arguments += ["--yes"] if name == "delete" else []
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-m", "do_images_async"),
            *(name, *arguments, "--file", str(file)),
            env=environment(**account(emulator, emulator.token), DO_IMAGES_QUOTA_FILE="off"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
    line = stderr.decode()
    assert (process.returncode, stdout) == (74, b""), line
    assert f"{file} could not be written: File too large" in line
    assert told in line
    assert files_of(tmp_path) == ["result"]
    assert file.read_text(encoding="utf-8") == "of yesterday"


@pytest.mark.slow
async def test_an_emulator_that_can_not_say_where_it_listens_ends_with_74() -> None:
    ended = await shell(">/dev/full", "emulator", "--port", "0", "--images", "1")
    assert (ended.status, ended.stdout) == (74, "")
    assert ended.stderr == "do-images: the output could not be written: No space left on device\n"


async def test_a_command_that_writes_nothing_to_stdout_needs_none() -> None:
    ended = await shell(">&-", *DEMO, "--file", "/dev/null")
    assert (ended.status, ended.stderr) == (0, "")


@pytest.mark.parametrize("redirection", fewer(["2>&-", "2>/dev/full", "<&-"]))
async def test_the_status_is_the_same_without_the_other_streams(redirection: str) -> None:
    good, bad = await asyncio.gather(shell(redirection, *DEMO), shell(redirection, "audit", "--nonsense"))
    assert good.status == 0
    assert good.stdout.startswith("Images of an emulated account")
    assert bad.status == 2


async def test_a_closed_stdin_is_wrong_usage_where_it_is_to_be_read_and_an_empty_one_has_no_ids() -> None:
    named = {"DIGITALOCEAN_TOKEN": "t"}
    ids, token, empty = await asyncio.gather(
        shell("<&-", "delete", "-", "--yes", **named),
        shell("<&-", "list", "--token-file", "-"),
        shell("</dev/null", "delete", "-", "--yes", **named),
    )
    assert (ids.status, token.status) == (2, 2)
    assert ids.stderr.endswith("Error: the ids can't be read from stdin: Bad file descriptor\n")
    assert token.stderr == "Error: --token-file -: Bad file descriptor\n"
    assert (empty.status, empty.stdout) == (0, "")
    assert empty.stderr == "do-images: stdin has no ids: nothing to delete\n"


@pytest.mark.parametrize("arguments", fewer([("--help",), DEMO, ("list", "--help"), ("--version",)]))
async def test_a_reader_that_has_left_is_no_findings(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "do_images_async", *arguments),
        env=environment(),
        stdout=writer,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writer)
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (141, b"")


def use(command: click.Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every name of a command mean this one."""

    def get_command(*_: object) -> click.Command:
        return command

    monkeypatch.setattr(type(main), "get_command", get_command)


def test_an_error_of_ours_is_one_line_and_70_without_its_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command("broken")
    def broken() -> None:
        raise KeyError("a secret")

    use(broken, monkeypatch)
    assert run(["broken"]) == 70
    out, line = capsys.readouterr()
    assert (out, line.count("\n")) == ("", 1)
    assert line.startswith("do-images: internal error: KeyError at ")
    assert "a secret" not in line
    monkeypatch.setenv("DO_IMAGES_LOG", "debug")
    assert run(["broken"]) == 70
    shown = capsys.readouterr().err
    assert " in broken\n" in shown
    assert "a secret" not in shown


def test_an_error_of_the_system_that_is_none_of_the_output_is_70_in_the_systems_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command("broken")
    def broken() -> None:
        raise OSError(errno.EMFILE, "Too many open files", "a secret")

    use(broken, monkeypatch)
    assert run(["broken"]) == 70
    line = capsys.readouterr().err
    assert line.startswith("do-images: internal error: OSError (Too many open files) at ")
    assert "a secret" not in line


@pytest.mark.parametrize(
    ("locale", "argument", "reason"),
    fewer(
        [
            ("C", "g\u00f6lden".encode(), "ascii; LC_ALL=C.UTF-8 makes it utf-8\n"),
            ("C.UTF-8", b"g\xf6lden", "utf-8\n"),
        ]
    ),
)
async def test_an_argument_that_the_locale_can_not_read_is_said_to_be_one(
    locale: str, argument: bytes, reason: str
) -> None:
    if locale == "C" and not (sys.prefix + str(ROOT)).isascii():
        pytest.skip("needs a folder with an ASCII name: in this locale, Python itself does not start")
    where = ("--image-url", "https://example.com/a", "--region", "nyc3")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "do_images_async", "create", argument, *where),
        env=environment(LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", DIGITALOCEAN_TOKEN=TOKEN),
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert "NAME holds a lone surrogate" in stderr.decode()
    assert stderr.decode().endswith(f"; the command line is read as {reason}")


def test_a_package_that_is_too_old_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command("broken")
    def broken() -> None:
        raise ImportError("cannot import name 'a' from 'aiohttp' (/site-packages/aiohttp.py)")

    use(broken, monkeypatch)
    assert run(["broken"]) == 70
    line = capsys.readouterr().err
    assert "internal error: ImportError (cannot import name 'a' from 'aiohttp' (" in line
    assert "`pip check` names packages that are missing or too old)" in line


def test_a_demo_that_can_not_listen_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(_: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "error while attempting to bind on address ('127.0.0.1', 0)")

    monkeypatch.setattr(ImagesEmulator, "__aenter__", fail)
    assert run(DEMO) == 2
    assert capsys.readouterr().err == "Error: can't listen on 127.0.0.1: Cannot assign requested address\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the working folder can't be deleted")
async def test_a_quota_file_in_a_working_folder_that_is_gone_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    async with ImagesEmulator(images=3) as emulator:
        variables = {**account(emulator, emulator.token), "DO_IMAGES_QUOTA_FILE": "q.db"}
        with monkeypatch.context() as patch:
            patch.chdir(gone)
            gone.rmdir()
            # A process: in a folder that is gone, `python -c`, which xdist's workers are, has a bug in 3.13.
            ended = await do_images("list", **variables)
    assert ended.status == 0
    assert ended.stderr == (
        "do-images: warning: the quota is not shared with others: q.db: No such file or directory;"
        " DO_IMAGES_QUOTA_FILE names another file, or is off\n"
    )


async def test_a_broken_installation_ends_with_70() -> None:
    program = (
        "import sys; sys.modules['do_images_async.cli.app'] = None\nfrom do_images_async.cli import main\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program + "sys.exit(main())", stderr=asyncio.subprocess.PIPE, env=environment()
    )
    _, stderr = await process.communicate()
    assert process.returncode == 70
    assert stderr.startswith(b"do-images: internal error: ")
    assert stderr.count(b"\n") == 1


UNUSED = {
    ("--version",): ["aiohttp", "rich"],
    ("--help",): ["aiohttp", "asyncio", "rich", "yarl", "yaml", "do_images_async.audit"],
    ("list", "--help"): ["rich", "do_images_async.audit", "do_images_async.testing"],
    ("audit", "--help"): ["rich", "do_images_async.testing"],
}
"""What a command must not import, nor those above it."""


async def test_a_help_imports_only_what_it_needs() -> None:
    program = (
        "import json, sys; from do_images_async.cli import main\n"
        f"for sys.argv[1:], unused in {[*UNUSED.items()]}:\n"
        "    assert main() == 0\n"
        "    print(json.dumps([*sys.argv[1:], [*{*unused} & {*sys.modules}]]), file=sys.stderr)"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        env=environment(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, imported = await process.communicate()
    assert [json.loads(line) for line in imported.splitlines()] == [[*each, []] for each in UNUSED]
    assert process.returncode == 0


def test_the_lines_of_the_list_are_the_first_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    listed = capsys.readouterr().out.partition("Commands:\n")[2]
    with click.Context(main) as context:
        for line in listed.splitlines():
            name, _, text = line.strip().partition(" ")
            command = main.get_command(context, name)
            assert command is not None
            assert (command.help or "").startswith(text.strip())
