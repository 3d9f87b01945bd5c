"""Time limits for any number of tasks at the price of one timer.

`asyncio.timeout` sets a timer for each use and cancels it again, as good as always in vain: with thousands of
calls in a minute that is most of what a limit costs. Here one timer stands for all; it is set to the nearest
moment, and looks for the next one only when it fires.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

__all__ = ["Deadline", "Deadlines"]


class Deadlines:
    """The time limits of one event loop, and their timer, which runs only while there are any."""

    __slots__ = ("_due", "_running", "_timer")

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf

    def __len__(self) -> int:
        return len(self._running)

    def new(self) -> Deadline:
        """A limit to be entered with `with`, in the task that it is for."""
        return Deadline(self)

    def expire(self) -> None:
        """Let all limits be reached now, and stop the timer."""
        for deadline in tuple(self._running):
            deadline.expire()
        self._stop()

    def add(self, deadline: Deadline) -> None:
        self._running.add(deadline)

    def discard(self, deadline: Deadline) -> None:
        self._running.discard(deadline)

    def look_at(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that limits are looked at no later than `when`."""
        if when < self._due:
            self._stop()
            self._due = when
            self._timer = loop.call_at(when, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._due = None, math.inf
        now = loop.time()
        for deadline in tuple(self._running):
            if deadline.when <= now:
                deadline.expire()
        nearest = min((deadline.when for deadline in self._running), default=math.inf)
        if nearest < math.inf:
            self.look_at(nearest, loop)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, math.inf


class Deadline:
    """A stretch of a task that ends with `TimeoutError` when its time is up; without `start` it has no end.

    As with `asyncio.timeout`, the task is cancelled, and the cancellation becomes a `TimeoutError` at the end
    of the stretch unless somebody else has cancelled the task meanwhile.

    Attributes:
        when: the moment, on the loop's clock.
        expired: whether it was reached.
    """

    __slots__ = ("_cancelling", "_deadlines", "_task", "expired", "when")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self.when = math.inf
        self.expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is for a task, and there is none")
        self._task = task
        self._cancelling = task.cancelling()
        self._deadlines.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        self._deadlines.discard(self)
        if self.expired and task is not None:
            asked = task.uncancel()
            if asked <= self._cancelling and isinstance(error, asyncio.CancelledError):
                raise TimeoutError from error

    def start(self, seconds: float) -> None:
        """Begin to count; what was begun or has expired stays."""
        if self.when < math.inf or self.expired or self._task is None:
            return
        loop = self._task.get_loop()
        self.when = loop.time() + seconds
        self._deadlines.look_at(self.when, loop)

    def expire(self) -> None:
        """The limit is reached: interrupt the task, once."""
        if self._task is not None and not self.expired:
            self.expired = True
            self.when = math.inf
            self._task.cancel()
