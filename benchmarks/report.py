"""Results as a table, as JSON, and as a plot in SVG."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from benchmarks.measure import Result

__all__ = ["describe_machine", "plot", "table", "to_json"]

PACKAGES: Final = (
    "aiohttp",
    "attrs",
    "cattrs",
    "msgspec",
    "multidict",
    "yarl",
    "uvloop",
    "httpx",
    "pydo",
    "python-digitalocean",
)
_LABEL, _BAR, _ROW, _MARGIN = 300, 420, 18, 16


def describe_machine() -> dict[str, str]:
    """Return the machine and the versions that the numbers depend on."""
    cores = os.cpu_count() or 1
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return {
        "machine": f"{_processor()}, {cores} cores{load}, {platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name))),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def table(title: str, result: Result) -> str:
    """Return a table with a line for each subject, its ratio against the first, and the promises."""
    base = next(iter(result.samples.values())).median
    lines = [title, f"  {'':38} {'median':>10} {'quartiles':>20} {'ratio':>8}"]
    for name, sample in result.samples.items():
        low, high = sample.quartiles
        spread = f"{_number(low)} to {_number(high)}" if len(sample.rounds) > 1 else ""
        median = f"{_number(sample.median)} {result.unit}"
        lines.append(f"  {name:38} {median:>10} {spread:>20} {sample.median / base:8.2f}")
    lines += [f"  {note}" for note in result.notes]
    lines += [f"  {check}" for check in result.checks]
    return "\n".join(lines)


def to_json(machine: Mapping[str, str], titles: Mapping[str, str], results: Mapping[str, Result]) -> str:
    """Return all measurements, round by round."""
    benchmarks = {
        name: {
            "title": titles[name],
            "unit": result.unit,
            "subjects": {
                subject: {
                    "median": sample.median,
                    "quartiles": sample.quartiles,
                    "rounds": sample.rounds,
                }
                for subject, sample in result.samples.items()
            },
            "checks": [
                {
                    "what": check.what,
                    "value": check.value,
                    "at_most" if check.at_most else "at_least": check.bound,
                    "kept": check.kept,
                }
                for check in result.checks
            ],
            "notes": result.notes,
        }
        for name, result in results.items()
    }
    return json.dumps({"environment": machine, "benchmarks": benchmarks}, indent=1, ensure_ascii=False) + "\n"


def plot(machine: Mapping[str, str], titles: Mapping[str, str], results: Mapping[str, Result]) -> str:
    """Return a plot with a bar for each subject's median, and a line from quartile to quartile."""
    drawn: list[str] = []
    y = 2 * _MARGIN
    for name, result in results.items():
        drawn.append(_text(_MARGIN, y, titles[name], "title"))
        y += _ROW
        longest = max(sample.quartiles[1] for sample in result.samples.values()) or 1.0
        for index, (subject, sample) in enumerate(result.samples.items()):
            drawn += _bar(y, subject, [sample.median, *sample.quartiles], longest, result.unit, index)
            y += _ROW
        y += _MARGIN
    drawn += [_text(_MARGIN, y + index * _ROW, line, "small") for index, line in enumerate(machine.values())]
    width, height = _LABEL + _BAR + 130, y + len(machine) * _ROW
    return "\n".join(_svg(drawn, width, height)) + "\n"


def _svg(drawn: Iterable[str], width: int, height: int) -> Iterable[str]:
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">'
    yield (
        "<style>text{font:12px sans-serif;fill:#222}.title{font-weight:bold}.small{font-size:10px;fill:#666}"
        ".base{fill:#9aa5b1}.bar{fill:#2b6cb0}.spread{stroke:#111;stroke-width:1}</style>"
    )
    yield f'<rect width="{width}" height="{height}" fill="#fff"/>'
    yield from drawn
    yield "</svg>"


def _bar(y: int, subject: str, values: list[float], longest: float, unit: str, index: int) -> Iterable[str]:
    median, low, high = (_BAR * value / longest for value in values)
    kind = "base" if index == 0 else "bar"
    yield _text(_MARGIN, y, subject)
    yield f'<rect class="{kind}" x="{_LABEL}" y="{y - 11}" width="{max(median, 1):.1f}" height="13"/>'
    ends = f'x1="{_LABEL + low:.1f}" x2="{_LABEL + high:.1f}"'
    yield f'<line class="spread" {ends} y1="{y - 4.5}" y2="{y - 4.5}"/>'
    yield _text(_LABEL + max(median, high) + 6, y, f"{_number(values[0])} {unit}")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y}" class="{kind}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
