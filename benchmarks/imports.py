"""CPU of importing, in a fresh interpreter each time, and the modules that must not be imported with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Result, Sample, at_most, ratio

__all__ = ["run"]

OURS = "do_images_async"
PROGRAMS = {
    "import aiohttp": "import aiohttp",
    "from do_images_async import ImagesAPI": "from do_images_async import ImagesAPI",
    "do-images --help": "from do_images_async.cli.app import run; run(['--help'])",
}
OPTIONAL = (
    "click",
    "do_images_async.cli",
    "do_images_async.redis",
    "do_images_async.testing",
    "redis",
    "rich",
)


class Interpreters:
    """Fresh interpreters that share one directory of compiled files.

    What pip installs is compiled, and a checkout is not, nor will it be where the environment forbids it: so
    that both sides are compiled alike, they are here.
    """

    def __init__(self, compiled: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._environment = {**kept, "PYTHONPYCACHEPREFIX": str(compiled)}

    def run(self, program: str) -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=True, env=self._environment
        ).stdout

    def seconds(self, program: str) -> float:
        clock = "time.process_time()"
        timed = f"import time; begin = {clock}; {program}; print({clock} - begin)"
        return float(self.run(timed).splitlines()[-1])

    def optional_modules(self) -> list[str]:
        """Return the modules that the import loads although only some users need them."""
        loaded = self.run(f"from {OURS} import ImagesAPI; import sys; print(*sys.modules)").split()
        return [name for name in OPTIONAL if name in loaded]


def measure(rounds: int) -> tuple[dict[str, list[float]], list[str]]:
    spent: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as directory:
        interpreters = Interpreters(Path(directory))
        for program in PROGRAMS.values():
            interpreters.seconds(program)  # writes what is compiled
        for _ in range(rounds):
            for name, program in PROGRAMS.items():
                spent[name].append(interpreters.seconds(program))
        return spent, interpreters.optional_modules()


def run(*, rounds: int = 31) -> Result:
    spent, unwanted = measure(rounds)
    samples = {name: Sample.of(taken, scale=1e3) for name, taken in spent.items()}
    base, ours, shown = samples.values()
    return Result(
        unit="ms",
        samples=samples,
        checks=(
            at_most("import do_images_async, against import aiohttp", ratio(ours, base), 1.3),
            at_most("do-images --help, against import aiohttp", ratio(shown, base), 1.0),
            at_most("modules of the extras that it imports", len(unwanted), 0),
        ),
        notes=tuple(f"imported along: {name}" for name in unwanted),
    )
