"""The calls of one worker that wait for a permit."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable

import attrs

from do_images_async._quota.permits import GrantedPermit
from do_images_async.errors import QuotaWaitError

__all__ = ["AskAgainError", "Waiter", "Waiters", "call_on_wait"]

logger = logging.getLogger("do_images_async.quota")


class AskAgainError(Exception):
    """Permits now come from elsewhere: the call has to ask again."""


@attrs.define(eq=False)
class Waiter:
    """A call that waits for a permit.

    Attributes:
        deadline: the loop's time until which it wants to wait.
        since: the loop's time at which it began to wait.
        informed: whether it knows how long it takes at the least.
        is_last: whether the store is asked for the last time, since the deadline has come.
    """

    future: asyncio.Future[GrantedPermit]
    reserve: int
    max_wait: float | None
    deadline: float
    since: float
    informed: bool = False
    is_last: bool = False


class Waiters:
    """A queue for each reserve that calls must leave; first come, first served.

    Args:
        on_wait: called when a call has to wait, with the seconds that it takes at the least.
    """

    def __init__(self, on_wait: Callable[[float], None] | None) -> None:
        self.on_wait = on_wait
        self._waiting: dict[Waiter, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, waiter: Waiter) -> GrantedPermit | None:
        """Return a permit; None when the call has to ask again, perhaps elsewhere.

        The waiter has been added before.
        """
        try:
            return await waiter.future
        except AskAgainError:
            return None
        except BaseException:
            self._waiting.pop(waiter, None)
            if waiter.future.done() and not waiter.future.cancelled() and not waiter.future.exception():
                waiter.future.result().release()
            raise

    def add(self, waiter: Waiter) -> None:
        """Put a call at the end of its queue."""
        self._waiting[waiter] = None

    def promote(self, number: int, before: float) -> bool:
        """Let calls that leave a reserve, and began to wait before a moment, leave none, the oldest first.

        Without this, a steady load without a reserve would starve them for ever.

        Args:
            number: how many calls at most.

        Returns:
            whether there was one.
        """
        waiting = itertools.takewhile(lambda each: each.since <= before, self._waiting)
        starved = [each for each in waiting if each.reserve and not each.future.done()][:number]
        for waiter in starved:
            waiter.reserve = 0
        return bool(starved)

    def wants(self) -> list[tuple[int, int]]:
        """Return how many calls wait, by the reserve that they leave, the lowest first."""
        return sorted(Counter(each.reserve for each in self._open()).items())

    def mark_last(self, now: float) -> None:
        """Note for which calls the store is asked for the last time, since their deadline has come."""
        for waiter in self._open():
            waiter.is_last = waiter.deadline <= now

    def is_impatient(self, patience: float) -> bool:
        """Return whether the first call waits for less than `patience` seconds, or a deadline has come."""
        waiting = self._open()
        first = waiting[0].max_wait if waiting else None
        return (first is not None and first < patience) or any(each.is_last for each in waiting)

    def first_deadline(self) -> float:
        """Return the moment at which the first deadline comes."""
        return min((each.deadline for each in self._open()), default=math.inf)

    def _open(self) -> list[Waiter]:
        return [each for each in self._waiting if not each.future.done()]

    def grant(self, reserve: int, permits: Iterable[GrantedPermit]) -> list[GrantedPermit]:
        """Give permits to the calls of one reserve in turn; return those that no call waits for any more."""
        queue = deque(each for each in self._waiting if each.reserve == reserve and not each.future.done())
        left: list[GrantedPermit] = []
        for permit in permits:
            if not queue:
                left.append(permit)
                continue
            waiter = queue.popleft()
            del self._waiting[waiter]
            waiter.future.set_result(permit)
        return left

    def inform(self, wait: float, at_least: float, now: float) -> None:
        """Tell all calls the shortest wait; those that do not wait as long raise `QuotaWaitError`.

        Args:
            wait: the seconds until the store is asked again.
            at_least: the seconds until a permit may be granted, whatever responses say.
            now: the loop's time.
        """
        for waiter in list(self._waiting):
            self._inform(waiter, wait, at_least, now)

    def inform_newcomers(self, due: float, earliest: float, now: float) -> bool:
        """Inform calls behind one that knows its wait; return whether all calls know theirs.

        Args:
            due, earliest: the loop's time at the end of `wait` and `at_least`; see `inform`.
            now: the loop's time.
        """
        if due == math.inf:
            return False
        informed = min((waiter.reserve for waiter in self._waiting if waiter.informed), default=math.inf)
        for waiter in list(self._waiting):
            if waiter.informed:
                continue
            if waiter.reserve < informed:
                return False
            self._inform(waiter, max(0.0, due - now), max(0.0, earliest - now), now)
        return True

    def fail(self, error: Exception) -> None:
        """Raise an error in all calls that wait."""
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.future.done():
                waiter.future.set_exception(error)

    def _inform(self, waiter: Waiter, wait: float, at_least: float, now: float) -> None:
        if waiter.is_last or (at_least and now + at_least > waiter.deadline):
            self._waiting.pop(waiter, None)
            max_wait = waiter.max_wait or 0.0
            error = QuotaWaitError(
                wait=max_wait + now + (at_least or wait) - waiter.deadline, max_wait=max_wait
            )
            if not waiter.future.done():
                waiter.future.set_exception(error)
        elif not waiter.informed:
            waiter.informed = True
            if self.on_wait is not None:
                call_on_wait(self.on_wait, wait)


def call_on_wait(hook: Callable[[float], None], wait: float) -> None:
    """Call the user's hook; an exception in it is logged, and the call waits on."""
    try:
        hook(wait)
    except Exception:
        logger.exception("on_wait raised; the call waits on")
