"""Virtual time that jumps to the next timer, exact to the nanosecond.

The benchmarks' loop, which fails (`NothingWillHappenError`) instead of hanging when nothing can ever happen
again, with a list of the timers that are pending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

from tests.support import virtual_loop
from tests.support.virtual_loop import SECOND

__all__ = ["SECOND", "TICK", "VirtualLoop", "clock", "let_run", "run_virtually", "sleep_ticks"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

TICK = SECOND // 64
"""A whole number of nanoseconds and a binary fraction of a second: sums of ticks are exact in floats too."""


class VirtualLoop(virtual_loop.VirtualLoop):
    """A loop with virtual time, and its timers."""

    def __init__(self, *, turn: int = 0) -> None:
        self._timers: list[asyncio.TimerHandle] = []
        self.timers_set = 0
        super().__init__(turn=turn)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        self._timers.append(handle)
        self.timers_set += 1
        return handle

    def pending_timers(self) -> list[asyncio.TimerHandle]:
        """Return the timers that are neither cancelled nor due."""
        now = self.time()
        self._timers = [timer for timer in self._timers if not timer.cancelled() and timer.when() > now]
        return list(self._timers)


def run_virtually(main: Coroutine[Any, Any, T], *, turn: int = 0) -> T:
    """Run a coroutine on a loop of its own, from time zero, each turn of which takes so many nanoseconds."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(turn=turn)) as runner:
        return runner.run(main)


def clock() -> int:
    """Return the running loop's time in nanoseconds."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.now_ns()


async def sleep_ticks(ticks: int) -> None:
    """Sleep a whole number of ticks."""
    await asyncio.sleep(ticks * TICK / SECOND)


async def let_run(turns: int = 4) -> None:
    """Let everything that is ready run, at one instant."""
    for _ in range(turns):
        await asyncio.sleep(0)
