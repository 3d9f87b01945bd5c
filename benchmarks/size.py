"""Size of the wheel, and the distributions that it brings beside aiohttp and what that needs.

There is one wheel for the client, the audit, and what extras unlock: the emulator, the command line, and the
limiter that needs Redis. The promise is about the core's size: the wheel without those files, as if
it were a wheel of its own. The whole wheel is shown beside it, and is larger.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.measure import Result, Sample, at_most

__all__ = ["run"]

ROOT = Path(__file__).parents[1]
BESIDE = tuple(f"do_images_async/{part}/" for part in ("audit", "cli", "redis", "testing"))
EXPECTED = {"attrs", "cattrs", "msgspec"}


def compressed() -> dict[str, int]:
    """Return the compressed bytes of each file of the wheel that is built from this checkout."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # noqa: S603
        (path,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(path) as wheel:
            return {entry.filename: entry.compress_size for entry in wheel.infolist()}


def closure(names: Iterable[str]) -> set[str]:
    """Return these distributions and all that they need in this environment, without extras."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        wanted = Requirement(todo.pop())
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name in found:
            continue
        found.add(name)
        for line in requires(wanted.name) or ():
            needed = Requirement(line)
            extras = wanted.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(line)
    return found


def run() -> Result:
    files = compressed()
    core = sum(size for name, size in files.items() if not name.startswith(BESIDE))
    # This project does not choose what cattrs needs on this Python.
    beyond = closure(["do-images-async"]) - closure(["aiohttp"]) - {"do-images-async"}
    unexpected = beyond - EXPECTED - closure(["cattrs"])
    return Result(
        unit="KB",
        samples={
            "the wheel": Sample.of([sum(files.values())], scale=1e-3),
            "of it: the core": Sample.of([core], scale=1e-3),
        },
        checks=(
            at_most("the core, as the wheel holds it, in KB", core / 1000, 100.0),
            at_most("distributions beside attrs, cattrs and msgspec", len(unexpected), 0),
        ),
        notes=(
            "the core is all but the emulator, the command line, the audit and what needs Redis",
            f"beside aiohttp and what it needs: {', '.join(sorted(beyond))}",
        ),
    )
