"""CPU of one `get` with 50 in flight, on asyncio's own loop and on uvloop's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks import alternatives
from benchmarks.fanout import IN_FLIGHT, fanned_out
from benchmarks.measure import Result, Sample, compare
from benchmarks.server import running_server

__all__ = ["run"]

ROUNDS = 15


async def measure(url: str) -> Sample:
    async with alternatives.ours(url) as get:
        return (await compare({"": fanned_out(get)}, calls=3 * IN_FLIGHT, rounds=1))[""]


def loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    uvloop: Any = import_module("uvloop")
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


def run() -> Result:
    factories = loop_factories()
    spent: dict[str, list[float]] = {name: [] for name in factories}
    with running_server() as url:
        for _ in range(ROUNDS):
            for name, factory in factories.items():
                with asyncio.Runner(loop_factory=factory) as runner:
                    spent[name] += runner.run(measure(url)).rounds
    return Result(unit="µs", samples={name: Sample.of(rounds) for name, rounds in spent.items()})
