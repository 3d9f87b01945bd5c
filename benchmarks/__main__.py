"""`python -m benchmarks [NAME ...]`: all comparisons, or those that are named; a table, JSON and a plot."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.measure import Result
from benchmarks.report import describe_machine, plot, table, to_json

NAMES = (
    "calls",
    "fanout",
    "decoding",
    "listing",
    "memory",
    "acquire",
    "waiting",
    "imports",
    "size",
    "loops",
    "connections",
    "retention",
)


def title(name: str) -> str:
    """Return a benchmark's title: the first line of its docstring."""
    return (import_module(f"benchmarks.{name}").__doc__ or name).splitlines()[0].rstrip(".")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"which to run, of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a promise is not kept")
    parser.add_argument(
        "--output",
        type=Path,
        help="write results.json and results.svg into this directory "
        "(default: benchmarks/, when all are run)",
    )
    parsed = parser.parse_args()
    if unknown := set(parsed.name) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if parsed.output is None and not parsed.name:
        parsed.output = Path(__file__).parent
    return parsed


def main() -> int:
    options = parse()
    machine = describe_machine()
    print("\n".join(f"{what}: {value}" for what, value in machine.items()), end="\n\n")
    results: dict[str, Result] = {}
    for name in options.name or NAMES:
        results[name] = import_module(f"benchmarks.{name}").run()
        print(table(title(name), results[name]), end="\n\n", flush=True)
    if options.output is not None:
        titles = {name: title(name) for name in results}
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "results.json").write_text(to_json(machine, titles, results), encoding="utf-8")
        (options.output / "results.svg").write_text(plot(machine, titles, results), encoding="utf-8")
    missed = [check for result in results.values() for check in result.checks if not check.kept]
    for check in missed:
        print(check, file=sys.stderr)
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
