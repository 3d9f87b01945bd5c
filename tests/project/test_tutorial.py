"""The tutorial, typed in an empty directory: its programs print what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from tests.support.programs import outcome_here
from tests.support.slow import RUN_SLOW, fewer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "tests" / "docs" / "pages" / "tutorial.md").read_text(encoding="utf-8")
STEP = re.compile(
    r"^`(?P<name>\w+\.py)`:\n\n```python\n(?P<program>.*?)^```\n\n"
    r"```console\n\$ \.venv/bin/python (?P<typed>\S+)\n(?P<output>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@attrs.frozen
class Step:
    """A program, its file name, and the output that the page shows."""

    name: str
    program: str
    output: str


STEPS = [Step(found["name"], found["program"], found["output"]) for found in STEP.finditer(PAGE)]


def without_seconds(output: str) -> str:
    """Return the output with every duration replaced: durations differ from run to run."""
    return re.sub(r"\b\d+ s\b", "N s", output)


def run(*command: str, directory: Path, timeout: float = 55, warnings: bool = False) -> str:
    """Return the output of a command that runs with nothing of this project in its environment."""
    ours = ("DIGITALOCEAN_", "PYTHON", "COVERAGE_")
    done = subprocess.run(  # noqa: S603  (ours)
        command,
        cwd=directory,
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    assert warnings or done.stderr == ""
    return done.stdout


def test_the_reader_runs_every_program_that_the_page_shows() -> None:
    assert len(STEPS) >= 6
    assert len(STEPS) == PAGE.count("```python") == PAGE.count("\n$ .venv/bin/python ")
    assert [found["typed"] for found in STEP.finditer(PAGE)] == [step.name for step in STEPS]


@pytest.mark.parametrize("step", fewer(STEPS, 3), ids=lambda step: step.name)
def test_a_program_typed_in_an_empty_directory_prints_what_the_page_shows(step: Step, tmp_path: Path) -> None:
    if RUN_SLOW or step == STEPS[0]:
        (tmp_path / step.name).write_text(step.program, encoding="utf-8")
        printed = run(sys.executable, "-W", "error", step.name, directory=tmp_path)
    else:
        printed, complaints = outcome_here(step.program)
        assert complaints == ""
    assert without_seconds(printed) == without_seconds(step.output)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(900)
def test_the_whole_page_works_in_a_new_environment_with_nothing_but_the_package(tmp_path: Path) -> None:
    (tmp_path / "do_images_async").symlink_to(ROOT)
    directory = tmp_path / "tutorial"
    directory.mkdir()
    for step in STEPS:
        (directory / step.name).write_text(step.program, encoding="utf-8")
    for shown in re.findall(r"^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        typed = re.findall(r"^\$ (.+)$", shown, re.MULTILINE)
        output = "".join(line for line in shown.splitlines(keepends=True) if not line.startswith("$ "))
        printed = "".join(
            run("/bin/sh", "-euc", line, directory=directory, timeout=600, warnings="pip" in line)
            for line in typed
        )
        assert without_seconds(printed) == without_seconds(output)
