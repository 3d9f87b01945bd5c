"""Time that passes only when everybody sleeps: an hour of quota in a moment, exact to the nanosecond.

looptime supplies the loop. This adds integer nanoseconds, a list of the timers that are pending, and a
failure (`looptime.IdleTimeoutError`) instead of a hang when nothing can ever happen again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

import looptime

__all__ = ["SECOND", "TICK", "VirtualLoop", "clock", "let_run", "run_virtually", "sleep_ticks"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SECOND = 1_000_000_000
"""In nanoseconds."""

TICK = SECOND // 64
"""A whole number of nanoseconds and a binary fraction of a second: sums of ticks are exact in floats too."""


class VirtualLoop(looptime.LoopTimeEventLoop, asyncio.SelectorEventLoop):
    """A selector loop that jumps to the next timer when nothing is ready."""

    def __init__(self) -> None:
        self._timers: list[asyncio.TimerHandle] = []
        self.timers_set = 0
        super().__init__(resolution=1e-9, noop_cycles=0, idle_timeout=0.0)

    def now_ns(self) -> int:
        """The loop's time, exactly: a float of seconds holds nanoseconds for three weeks."""
        return round(self.time() * SECOND)

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
        """Timers that are neither cancelled nor due yet."""
        now = self.time()
        self._timers = [timer for timer in self._timers if not timer.cancelled() and timer.when() > now]
        return list(self._timers)


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own, from time zero."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def clock() -> int:
    """The running loop's time in nanoseconds."""
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
