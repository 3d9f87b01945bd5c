"""Time limits for any number of tasks with one timer.

`asyncio.timeout` sets a timer for each use and cancels it, almost always unused: with thousands of calls a
minute that is most of its cost. Here all limits share one timer. It is set to the next deadline, and to the
one after that only when it fires.
"""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Self

__all__ = ["Deadline", "Deadlines"]


class Deadlines:
    """The time limits of one event loop, and their timer, which runs only while there are any.

    Attributes:
        due: when the timer fires, on the loop's clock; infinite while it is not set.
    """

    __slots__ = ("_running", "_timer", "due")

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.due = math.inf

    def __len__(self) -> int:
        return len(self._running)

    def new(self) -> Deadline:
        """Return a time limit, to be entered with `with` in its task."""
        return Deadline(self)

    def expire(self) -> None:
        """Expire all time limits now, and stop the timer."""
        for deadline in tuple(self._running):
            deadline.expire()
        self._stop()

    def add(self, deadline: Deadline) -> None:
        self._running.add(deadline)

    def discard(self, deadline: Deadline) -> None:
        self._running.discard(deadline)

    def set_timer(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        """Make the timer fire at `when`, on the loop's clock."""
        self._stop()
        self.due = when
        self._timer = loop.call_at(when, self._expire_due, loop)

    def _expire_due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self.due = None, math.inf
        now = loop.time()
        for deadline in tuple(self._running):
            if deadline.when <= now:
                deadline.expire()
        nearest = min((deadline.when for deadline in self._running), default=math.inf)
        if nearest < math.inf:
            self.set_timer(nearest, loop)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.due = None, math.inf


class Deadline:
    """A block of a task that ends with `TimeoutError` when its time is up; without `start` it never does.

    As with `asyncio.timeout`, the task is cancelled. At the end of the block the cancellation becomes a
    `TimeoutError`, unless somebody else has cancelled the task meanwhile.

    Attributes:
        when: the end of the time, on the loop's clock; infinite before `start`.
        expired: whether the time is up.
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
        """Start the time unless it was started or has expired."""
        if self.when < math.inf or self.expired or self._task is None:
            return
        loop = self._task.get_loop()
        self.when = loop.time() + seconds
        if self.when < self._deadlines.due:
            self._deadlines.set_timer(self.when, loop)

    def expire(self) -> None:
        """Interrupt the task, once: the time is up."""
        if self._task is not None and not self.expired:
            self.expired = True
            self.when = math.inf
            self._task.cancel()
