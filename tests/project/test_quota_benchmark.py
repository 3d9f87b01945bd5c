"""A small run of `python -m benchmarks.quota`: its table, its plot, and its result."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.quota.processes import compare_runs
from tests.support.quota_processes import SCALED
from tests.support.redis_servers import needs_redis

ROOT = Path(__file__).parents[2]
CONTENDERS = {"do_images_async", "limits, moving window", "aiolimiter", "textbook token bucket"}


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.quota", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603 (ours)
    return done.stdout


def test_only_this_limiter_is_never_refused(tmp_path: Path) -> None:
    plot = tmp_path / "quota.svg"
    output = run("--requests", "3000", "--jobs", "1", "--plot", str(plot))
    rows = {
        name: re.findall(r"[\d.,]+", line.removeprefix(f"  {name}"))
        for line in output.splitlines()
        for name in CONTENDERS
        if line.startswith(f"  {name}")
    }
    assert rows.keys() == CONTENDERS
    refused, worst_minute, worst_hour = (int(cell.replace(",", "")) for cell in rows["do_images_async"][:3])
    assert (refused, worst_minute <= 250, worst_hour <= 5000) == (0, True, True)
    assert all(row[0] != "0" for name, row in rows.items() if name != "do_images_async")
    picture = ElementTree.parse(plot).getroot()  # noqa: S314 (we have drawn it)
    assert len(picture.findall("{http://www.w3.org/2000/svg}g")) == len(CONTENDERS)


def test_runs_back_to_back_are_refused_nothing_with_a_store() -> None:
    *_, with_file, without = compare_runs(2, 60, SCALED).splitlines()
    assert with_file.startswith("| FileRateLimiter | 120 | 0 | 0 |")
    assert without.startswith("| RateLimiter, no store |")


@needs_redis
def test_what_starved_workers_cost_is_counted() -> None:
    assert re.search(r" [\d.]+ Redis commands in [\d.]+ exchanges, [\d.]+ ms ", run("--starved"))
