"""CPU of importing, in a fresh interpreter each time; and what must not be imported along with it."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure import Result, Sample, at_most, ratio

__all__ = ["run"]

BASE = "aiohttp"
OURS = "do_images_async"
OPTIONAL = (
    "click",
    "do_images_async.cli",
    "do_images_async.redis",
    "do_images_async.testing",
    "redis",
    "rich",
)


def in_fresh_interpreter(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603


def seconds(module: str) -> float:
    program = f"import time; begin = time.process_time(); import {module}; print(time.process_time() - begin)"
    return float(in_fresh_interpreter(program))


def optional_modules() -> list[str]:
    """Of the modules that only some users need, those that the import brings in."""
    loaded = in_fresh_interpreter(f"import {OURS}, sys; print(*sys.modules)").split()
    return [name for name in OPTIONAL if name in loaded]


def run(*, rounds: int = 21) -> Result:
    spent: dict[str, list[float]] = {BASE: [], OURS: []}
    for module in spent:
        seconds(module)  # writes what is compiled
    for _ in range(rounds):
        for module, taken in spent.items():
            taken.append(seconds(module))
    samples = {f"import {module}": Sample.of(taken, scale=1e3) for module, taken in spent.items()}
    base, ours = samples.values()
    unwanted = optional_modules()
    return Result(
        unit="ms",
        samples=samples,
        checks=(
            at_most("import do_images_async, against import aiohttp", ratio(ours, base), 1.25),
            at_most("modules of the extras that it imports", len(unwanted), 0),
        ),
        notes=tuple(f"imported along: {name}" for name in unwanted),
    )
