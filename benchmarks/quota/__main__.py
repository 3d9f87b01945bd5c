"""`python -m benchmarks.quota`: a million requests of 64 workers over a bad network, in virtual time.

Every limiter sends the same number of requests, and a sliding log like the provider's counts them: 250 in any
minute, 5,000 in any hour. A worker that is refused waits as long as the server asks for.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from benchmarks.quota.contenders import CONTENDERS, contend
from benchmarks.quota.plot import draw
from benchmarks.quota.processes import compare_runs, kill_and_stop, starve_workers
from benchmarks.quota.servers import compare_servers, switch_policies_off
from benchmarks.quota.store import measure_file
from tests.support.simulation import Outcome, Setting

OTHERS: dict[str, tuple[Callable[[argparse.Namespace], str], str]] = {
    "store": (lambda _: measure_file(), "what an exchange with the file costs"),
    "runs": (lambda _: compare_runs(), "three runs back to back, with a store and without (four minutes)"),
    "killed": (lambda _: kill_and_stop(), "six processes, one killed and one stopped (a minute)"),
    "starved": (lambda _: starve_workers(), "what 64 workers that wait cost a Redis"),
    "servers": (lambda options: compare_servers(options.seed), "servers that count in different ways"),
    "neighbours": (
        lambda options: switch_policies_off(options.seed),
        "each policy off, and other neighbours",
    ),
}
"""Measurements with an option of their own, and its help."""

SHOWN = 2.5 * 3600.0
"""Seconds in the plot."""


def table(outcomes: Mapping[str, Outcome]) -> str:
    """One line for each limiter."""
    head = ("refused", "worst minute", "worst hour", "hours", "quota used")
    lines = [f"  {'':22} {head[0]:>9} {head[1]:>13} {head[2]:>11} {head[3]:>9} {head[4]:>11}"]
    for name, outcome in outcomes.items():
        minute, hour = outcome.worst
        lines.append(
            f"  {name:22} {outcome.refused:9,} {minute:13,} {hour:11,} {outcome.hours:9,.1f}"
            f" {outcome.utilisation:11.1%}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quota", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="of each limiter (default: 1000000)")
    parser.add_argument("--workers", type=int, default=64, help="that share the limiter (default: 64)")
    parser.add_argument("--seed", type=int, default=1, help="of the network's dice (default: 1)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write an SVG of the first hours there")
    parser.add_argument("--jobs", type=int, default=len(CONTENDERS), help="processes (default: one for each)")
    parser.add_argument("--forgive", action="store_true", help="the server does not count what it refuses")
    only = parser.add_mutually_exclusive_group()
    for name, (measure, text) in OTHERS.items():
        only.add_argument(
            f"--{name}", action="store_const", dest="measure", const=measure, help=f"only: {text}"
        )
    options = parser.parse_args(arguments)
    if options.measure is not None:
        print(options.measure(options))
        return
    setting = Setting(
        requests=options.requests, workers=options.workers, seed=options.seed, forgiving=options.forgive
    )
    started = time.monotonic()
    run = partial(contend, setting=setting, keep=SHOWN)
    if options.jobs == 1:
        outcomes = {name: run(name) for name in CONTENDERS}
    else:
        with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
            outcomes = dict(zip(CONTENDERS, pool.map(run, CONTENDERS), strict=True))
    print(
        f"{setting.requests:,} requests of {setting.workers} workers, seed {setting.seed}; aiolimiter"
        f" {version('aiolimiter')}, limits {version('limits')}; ran for {time.monotonic() - started:.0f} s\n"
    )
    print(table(outcomes))
    if options.plot is not None:
        options.plot.write_text(draw(outcomes, seconds=SHOWN), encoding="utf-8")


if __name__ == "__main__":
    main()
