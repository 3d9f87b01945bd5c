"""Servers that count in different ways against three limiters, and what each policy is good for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace
from unittest import mock

import limits.storage.memory
from aiolimiter import AsyncLimiter
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from benchmarks.quota.contenders import now_ns
from do_images_async._quota import policies
from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.limiter import RateLimiter
from tests.support.counting import MODELS, Tally, run_against
from tests.support.neighbours import (
    Pauses,
    SharedServer,
    neighbours_bursts,
    neighbours_calls,
    neighbours_even_calls,
)
from tests.support.simulation import MINUTE, Limit, Limiter
from tests.support.virtual_loop import VirtualLoop

__all__ = ["compare_servers", "switch_policies_off"]

_LIMIT = Limit(100, 10.0)
_WINDOWS = 30
_OUTAGE = (100.0, 115.0)
"""Seconds from when until when a server refuses everything, in the run that measures the recovery."""


def _ours() -> Limiter:
    return RateLimiter(TokenBucket(_LIMIT.capacity, per=_LIMIT.seconds), clock=now_ns)


class _Aiolimiter:
    def __init__(self) -> None:
        self._limiter = AsyncLimiter(_LIMIT.capacity, _LIMIT.seconds)

    async def acquire(self) -> None:
        await self._limiter.acquire()


class _MovingWindow:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        setattr(limits.storage.memory, "time", SimpleNamespace(time=loop.time))  # noqa: B010 (as in contenders)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._item = RateLimitItemPerSecond(_LIMIT.capacity, round(_LIMIT.seconds))
        self._loop = loop

    async def acquire(self) -> None:
        while not self._limiter.hit(self._item):
            reset = self._limiter.get_window_stats(self._item).reset_time
            await asyncio.sleep(max(reset - self._loop.time(), 0.0) + 0.001)


_LIMITERS: dict[str, Callable[[], Limiter]] = {
    "do_images_async": _ours,
    "aiolimiter": _Aiolimiter,
    "limits, moving window": _MovingWindow,
}


def compare_servers(seed: int) -> str:
    """Return a Markdown table of every server against every limiter.

    "Later" leaves the first two windows out.
    """
    start = 2 * _LIMIT.seconds
    lines = [
        "| Server | Limiter | Refused | Used | Refused later | Used later | Windows to recover |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for model in MODELS:
        for name in _LIMITERS:
            tally = _run(model, name, seed, outage=(-1.0, -1.0))
            back = _run(model, name, seed, outage=_OUTAGE).windows_to_recover()
            lines.append(
                f"| {model} | {name} | {tally.refused_part():.1%} | {tally.used():.1%}"
                f" | {tally.refused_part(start):.1%} | {tally.used(start):.1%} | {back:.1f} |"
            )
    return "\n".join(lines)


def _run(model: str, name: str, seed: int, outage: tuple[float, float]) -> Tally:
    random.seed(seed)

    async def main() -> Tally:
        counting = MODELS[model](_LIMIT)
        return await run_against(
            _LIMITERS[name](), counting, _LIMIT, windows=_WINDOWS, seed=seed, outage=outage
        )

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(turn=1000)) as runner:
        return runner.run(main())


_Part = tuple[type, object]


def _open(_: object, now: int, *_args: object, **_options: object) -> int:
    return now


_CLOSING: _Part = (policies.Closing, _open)
_REMAINING: _Part = (policies.Remaining, _open)
_PACING: _Part = (policies.Pacing, _open)
_IN_FLIGHT: _Part = (policies.InFlight, _open)

_OFF: dict[str, tuple[_Part, ...]] = {
    "all": (),
    "without Closing": (_CLOSING,),
    "without Remaining": (_REMAINING,),
    "without Pacing": (_PACING,),
    "without InFlight": (_IN_FLIGHT,),
    "without Pacing and InFlight": (_PACING, _IN_FLIGHT),
    "none": (_CLOSING, _REMAINING, _PACING, _IN_FLIGHT),
}


_NEIGHBOURS: dict[str, Pauses] = {
    "half, in bursts of 25": neighbours_bursts,
    "half, in bursts of 60": partial(neighbours_bursts, size=60),
    "half, evenly": partial(neighbours_even_calls, part=0.5),
    "three quarters, evenly": partial(neighbours_even_calls, part=0.75),
    "three quarters, at random": partial(neighbours_calls, part=0.75),
    "nine tenths, evenly": partial(neighbours_even_calls, part=0.9),
    "three quarters, evenly, every other five minutes": partial(
        neighbours_even_calls, part=0.75, on=300.0, off=300.0
    ),
}
"""What others spend of the minute's quota."""


def switch_policies_off(seed: int, hours: float = 0.5) -> str:
    """Return two Markdown tables: without each of the policies, and beside different neighbours.

    In the first, the neighbour spends half of the minute's quota in bursts of 25; also at a server with GCRA.
    """
    lines = [
        "| Policies | Beside bursts: refused | closings | used of the rest | GCRA: refused | used |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, parts in _OFF.items():
        with ExitStack() as stack:
            for owner, replacement in parts:
                stack.enter_context(mock.patch.object(owner, "opens_at", replacement))
            gcra = _run("GCRA, burst of a fifth", "do_images_async", seed, outage=(-1.0, -1.0))
            cells = _beside_a_neighbour(seed, hours)
        lines.append(f"| {name} | {cells} | {len(gcra.refused):,} | {gcra.used():.1%} |")
    lines += [
        "",
        "| Neighbour, and only a 429 tells anything | Refused | Closings | Used of the rest |",
        "|---|--:|--:|--:|",
    ]
    for name, pauses in _NEIGHBOURS.items():
        lines.append(f"| {name} | {_beside_a_neighbour(seed, hours, pauses, tells=False)} |")
    return "\n".join(lines)


def _beside_a_neighbour(
    seed: int, hours: float, pauses: Pauses = neighbours_bursts, *, tells: bool = True
) -> str:
    limits = (MINUTE, Limit(15_000, 3600.0))
    random.seed(seed)
    shared = SharedServer(limits, seed, pauses=pauses, tells=tells)

    async def main() -> None:
        buckets = [TokenBucket(limit.capacity, per=limit.seconds) for limit in limits]
        await shared.run([RateLimiter(*buckets, clock=now_ns)], hours * 3600, callers=20)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(turn=1000)) as runner:
        runner.run(main())
    rest = MINUTE.capacity * hours * 60 - shared.sent_by_neighbour
    return f"{sum(shared.refusals):,} | {len(shared.refusals):,} | {shared.accepted / rest:.1%}"
