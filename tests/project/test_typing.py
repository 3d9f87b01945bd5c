"""A user's program under mypy and pyright, both strict: correct uses pass, wrong ones do not."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import do_images_async
from do_images_async import ImagesAPI

HERE = Path(__file__).parents[1] / "typing"
USER, WRONG = HERE / "user.py", HERE / "wrong.py"
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.once

Place = tuple[str, int]


def checked(*command: str) -> str:
    done = subprocess.run(  # noqa: S603  (ours)
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def by_mypy() -> dict[Place, str]:
    strict = ("--strict", "--config-file=", "--python-version=3.11", "--no-error-summary")
    output = checked("mypy", *strict, str(USER), str(WRONG))
    found = re.findall(r"^(\S+?):(\d+): error: (.*)$", output, re.MULTILINE)
    return {(Path(path).name, int(line)): message for path, line, message in found}


def by_pyright() -> dict[Place, str]:
    python = f"--pythonpath={sys.executable}"
    output = json.loads(checked("pyright", "--outputjson", python, "-p", str(HERE)))
    return {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1): each["message"]
        for each in output["generalDiagnostics"]
    }


@pytest.mark.timeout(120)
@pytest.mark.parametrize("check", [by_mypy, by_pyright])
def test_right_uses_pass_and_each_wrong_one_is_rejected(check: Callable[[], dict[Place, str]]) -> None:
    found = check()
    assert {place: text for place, text in found.items() if place[0] != WRONG.name} == {}
    wrong = {
        (WRONG.name, number)
        for number, line in enumerate(WRONG.read_text(encoding="utf-8").splitlines(), 1)
        if "# wrong: " in line
    }
    assert len(wrong) > 20
    assert found.keys() == wrong


def test_the_users_program_uses_every_public_name() -> None:
    program = USER.read_text(encoding="utf-8")
    missing = [name for name in do_images_async.__all__ if not re.search(rf"\b{name}\b", program)]
    missing += [name for name in public(ImagesAPI) if f".{name}" not in program]
    assert missing == []


def public(kind: type) -> Iterable[str]:
    return (name for name, _ in inspect.getmembers(kind) if not name.startswith("_"))
