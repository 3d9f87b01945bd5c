"""An event loop with virtual time, which jumps to the next timer when nothing is ready.

The loops of the packages for this (looptime, async-solipsism) take a turn of the real selector, or more, for
each jump; a million requests ask for less.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

__all__ = ["SECOND", "NothingWillHappenError", "VirtualLoop"]

SECOND = 1_000_000_000
"""In nanoseconds."""


class NothingWillHappenError(RuntimeError):
    """A task waits and no timer is set: with real time the test would hang."""


class _Jump(selectors.BaseSelector):
    """A selector that moves the time instead of waiting; no I/O ever happens."""

    def __init__(self, turn: int) -> None:
        self.now = 0
        self._turn = turn
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingWillHappenError("the loop would wait for ever")
        self.now += round(timeout * SECOND) + self._turn
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self._keys[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return self._keys[fileobj]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that jumps to the next timer when nothing is ready; it starts at time zero.

    Args:
        turn: nanoseconds that each turn takes. With none, a limiter that waits for what its rounding has left
            waits for ever, which no real clock would let it do.
    """

    def __init__(self, *, turn: int = 0) -> None:
        self._jump = _Jump(turn)
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now / SECOND

    def now_ns(self) -> int:
        """Return the loop's time in nanoseconds; exact, as a float of seconds is for three weeks."""
        return self._jump.now
