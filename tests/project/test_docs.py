"""The documentation: its code runs unchanged, prints what the page says, and the site builds."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import itertools
import logging
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import attrs
import click
import pytest

import do_images_async
from do_images_async import ImagesAPI, audit, events, redis, retention, testing
from do_images_async.audit import rules
from do_images_async.cli.app import main as do_images
from do_images_async.testing import ImagesEmulator
from tests.docs.fill import MARKER, PAGES, PROGRAMS
from tests.support.programs import impatient
from tests.support.redis_servers import EXECUTABLE, NO_SERVER, RedisServer, redis_server, shared_redis
from tests.support.slow import RUN_SLOW

__all__ = ["redis_server", "shared_redis"]  # fixtures

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "tests" / "docs"
BENCHMARKS = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAM_SHOWN = re.compile(r"^<!-- program: (.+) -->$", re.MULTILINE)

NOT_ON_THEIR_OWN = {
    # Aliases, and names of the transport.
    *("Event", "EventHook", "GroupBy", "log", "logger", "outcome_of", "route_of", "tell"),
    *(name for name in rules.__all__ if name.islower()),  # the page shows their whole module
}
RUN_ELSEWHERE = {
    "python3 -m venv": ".ci/package installs the wheel into an empty environment",
    "bash .ci/run": "it runs this test",
    "nox -f .ci/noxfile.py -s release": ".ci/run builds the package; the tag is the release's",
    ".venv/bin/pytest": "it runs this test",
    ".venv/bin/python -m tests.docs.fill": "test_what_is_filled_into_the_pages_is_up_to_date",
    "mkdocs build": "test_the_site_builds_without_a_warning",
}
"""The first words of sh blocks that are not run here, and the tests that run them instead."""


@attrs.frozen
class Block:
    """A block of code, and the output that follows it on the page."""

    language: str
    text: str
    output: str | None


def blocks_of(page: Path) -> list[Block]:
    text = MARKER.sub("", page.read_text(encoding="utf-8"))  # generated parts have tests of their own
    found = list(BLOCK.finditer(text))
    blocks: list[Block] = []
    for block, following in itertools.zip_longest(found, found[1:]):
        adjacent = following is not None and not text[block.end() : following.start()].strip()
        output = following[2] if following is not None and adjacent and following[1] == "text" else None
        blocks.append(Block(block[1], block[2], output))
    return blocks


def name_of(page: Path) -> str:
    return str(page.relative_to(DOCS / "pages"))


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if any(block.language == language for block in blocks_of(page))]


@pytest.fixture
async def emulator(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ImagesEmulator]:
    """Serve an emulator to the pages' programs, which run on threads with event loops of their own."""
    async with ImagesEmulator(images=30, seed=7, import_seconds=0.05, action_seconds=0.05) as running:
        monkeypatch.setenv("DIGITALOCEAN_TOKEN", running.token)
        monkeypatch.setenv("DIGITALOCEAN_API_URL", running.url)
        yield running


@pytest.fixture
def logging_left_alone() -> Iterator[None]:
    """Undo a page's changes to logging."""
    root, ours = logging.getLogger(), logging.getLogger("do_images_async")
    levels, handlers = (root.level, ours.level), root.handlers[:]
    yield
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    root.handlers[:] = handlers


def outcome_of(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  (ours)
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )


def run(block: str, names: dict[str, Any]) -> None:
    """Run a block as a program, or, when it awaits at the top level, with an open client."""
    code = compile(block, "<page>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(_run_with_client(code, names))
    else:
        exec(code, names)  # noqa: S102  (the page is ours)


async def _run_with_client(code: CodeType, names: dict[str, Any]) -> None:
    async with ImagesAPI.from_env() as images:
        names["images"] = images
        await eval(code, names)  # noqa: S307  (the page is ours)


@pytest.mark.usefixtures("logging_left_alone")
@pytest.mark.parametrize(
    "page", [page for page in pages_with("python") if page.name != "tutorial.md"], ids=name_of
)
async def test_the_code_of_a_page_runs_and_prints_what_it_says(
    page: Path, emulator: ImagesEmulator, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if any("REDIS_URL" in block.text for block in blocks_of(page)):
        if EXECUTABLE is None:
            pytest.skip(NO_SERVER)
        redis: RedisServer = request.getfixturevalue("redis_server")
        monkeypatch.setenv("REDIS_URL", redis.url)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(page):
        if block.language != "python" or ("from pydo" in block.text and not RUN_SLOW):
            continue  # pydo is of the extra `dev`
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            await asyncio.to_thread(run, impatient(block.text), names)
        if block.output is not None:
            assert printed.getvalue() == block.output


@pytest.mark.parametrize("page", pages_with("sh"), ids=name_of)
async def test_the_shell_commands_of_a_page_run(page: Path, emulator: ImagesEmulator) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for block in blocks_of(page):
        if block.language != "sh" or any(block.text.startswith(start) for start in RUN_ELSEWHERE):
            continue
        command = ("/bin/bash", "-euo", "pipefail", "-c", block.text)
        done = await asyncio.to_thread(outcome_of, *command, PATH=path)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_every_program_is_shown_and_has_a_test() -> None:
    shown = {name for page in PAGES for name in PROGRAM_SHOWN.findall(page.read_text(encoding="utf-8"))}
    assert shown == {path.name for path in PROGRAMS.glob("*.py")}
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    for name in shown:
        assert re.search(rf'"{name}"|programs import .*\b{name.removesuffix(".py")}\b', tests), name


async def test_the_audit_finds_what_lacks_an_owner(emulator: ImagesEmulator) -> None:
    command = (sys.executable, "-W", "error", str(PROGRAMS / "audit_images.py"))
    done = await asyncio.to_thread(outcome_of, *command)
    assert done.stderr == ""
    assert done.returncode in (0, 1)
    assert done.stdout.startswith("30 images, ")
    assert re.search(r"MEDIUM +no-owner +\d+ images: ask who made it", done.stdout)


def test_every_public_name_is_in_the_reference() -> None:
    """Find each public name on its own page, or on the page of its module."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    modules = {"errors", "events"}
    values = {"__version__", "converter"}
    missing = [
        name
        for name in do_images_async.__all__
        if name not in modules | values and f"<!-- reference: do_images_async.{name} -->" not in text
    ]
    for module in (events, audit, retention, testing, redis):
        missing += [
            f"{module.__name__}.{name}"
            for name in module.__all__
            if f"<!-- reference: {module.__name__}.{name} -->" not in text and name not in NOT_ON_THEIR_OWN
        ]
    assert missing == []


def test_every_name_of_the_audit_s_reference_is_public() -> None:
    text = (ROOT / "tests/docs/pages/reference/audit.md").read_text(encoding="utf-8")
    names = re.findall(r"^### `(\w+)`$", text, re.MULTILINE)
    assert [name for name in names if name not in audit.__all__] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    spans = " ".join(re.findall(r"`([^`\n]+)`", text))
    named = re.findall(r"(?<!\S)(?:tests|do_images_async|\.ci)/[\w./-]+", spans)
    assert [name for name in named if not (ROOT / name).exists()] == []
    for module, rest in re.findall(r"python -m (benchmarks[.\w]*)([^\n`]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
        if module == "benchmarks":
            assert {word for word in rest.split() if word.isalpha()} <= BENCHMARKS, rest
    for target, anchor in re.findall(r"\]\(([^():#]*)(?:#([^()]+))?\)", text):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), f"{target}#{anchor}"


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_what_is_said_of_the_command_line_is_so(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace(", ", " ")  # Kubernetes writes the words as a list
    for name, rest in re.findall(r"\bdo-images (\w[\w-]*)([^\n|&`]*)", text):
        command = do_images.get_command(click.Context(do_images), name)
        assert command is not None, name
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--?[a-z][\w-]*", rest)) <= options | {"--help"}, f"{name}{rest}"


def test_no_page_says_that_it_is_not_written() -> None:
    unwritten = [
        page.name for page in PAGES if re.search(r"\b(TBD|TODO|FIXME)\b", page.read_text(encoding="utf-8"))
    ]
    assert unwritten == []


@pytest.mark.slow
@pytest.mark.once
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = outcome_of(
        *(sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"),
        *("-f", str(DOCS / "mkdocs.yml"), "-d", str(tmp_path / "site")),
        NO_MKDOCS_2_WARNING="1",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    site = tmp_path / "site"
    built = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    assert built >= {name_of(page).replace(".md", ".html") for page in PAGES}
    for page in site.rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="https?://[^"]+"', page.read_text(encoding="utf-8")
        )
        assert [tag for tag in fetched if 'rel="canonical"' not in tag] == [], "the site needs no network"


@pytest.mark.slow
@pytest.mark.once
def test_what_is_filled_into_the_pages_is_up_to_date() -> None:
    done = outcome_of(sys.executable, "-m", "tests.docs.fill", "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "run `python -m tests.docs.fill`"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_marker_has_an_end(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    markers = re.findall(r"^<!-- (?:program|reference|modules|commands|picture): .+ -->$", text, re.MULTILINE)
    assert len(markers) == len(MARKER.findall(text)) == text.count("\n<!-- end -->\n")


def test_the_architecture_page_names_the_modules_of_every_directory() -> None:
    architecture = (DOCS / "pages" / "developer" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "do_images_async"
    directories = {path.relative_to(package).parts[0] for path in package.glob("*/*.py")}
    shown = set(re.findall(r"^<!-- modules: (.+) -->$", architecture, re.MULTILINE))
    assert shown == directories | {"."}
    for path in package.rglob("*.py"):
        name = path.relative_to(package).as_posix()
        assert path.name == "__init__.py" or f"\n- `{name}`: " in architecture, f"{name} has no docstring"
