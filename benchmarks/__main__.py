"""`python -m benchmarks [NAME ...]`: every comparison, or those that are named."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from importlib.metadata import version

from benchmarks import calls, decoding, waiting
from benchmarks.measure import Sample

BENCHMARKS: dict[str, tuple[str, Callable[[], dict[str, Sample]]]] = {
    "calls": ("CPU of one get, server in another process", calls.run),
    "waiting": ("CPU of one call that waits for the limiter and is served, by how many wait", waiting.run),
    "decoding": ("CPU of decoding a page of 200 images", decoding.run),
}
VERSIONS = ("aiohttp", "attrs", "cattrs", "msgspec", "pydo", "yarl")


def table(title: str, samples: dict[str, Sample]) -> str:
    """One line for each subject; ratios are against the first."""
    base = next(iter(samples.values())).median
    lines = [f"{title}", f"  {'':30} {'median':>10} {'quartiles':>19} {'ratio':>7}"]
    for name, sample in samples.items():
        quartiles = f"{sample.low:.0f} to {sample.high:.0f}"
        lines.append(f"  {name:30} {sample.median:7.0f} µs {quartiles:>16} µs {sample.median / base:7.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*BENCHMARKS, []], help="which to run (default: all)")
    names = parser.parse_args().name or list(BENCHMARKS)
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in VERSIONS))
    print(f"{platform.system()} on {platform.machine()}; medians of repetitions taken in turns\n")
    for name in names:
        title, run = BENCHMARKS[name]
        print(table(title, run()), end="\n\n")


if __name__ == "__main__":
    main()
