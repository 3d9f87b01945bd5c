"""Requests in flight that change something, when a command is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Final, TypeVar

import attrs
from yarl import URL

from do_images_async._http.last_error import LastError, keep_last_error
from do_images_async.cli.status import complain
from do_images_async.cli.text import counted
from do_images_async.errors import DOImagesError, TransportError
from do_images_async.events import Event, PermitGranted

__all__ = ["NOT_TRIED", "Interruption", "NotSentError", "UnfinishedError", "note_event"]

T = TypeVar("T")

NOT_TRIED: Final = "not tried"
"""The outcome of a change whose request was not sent, as the command was interrupted or stopped before."""

_GRACE: Final = 10.0
"""Seconds that a request in flight may still take when the command is interrupted."""

_CLEANUP: Final = 1.0
"""Seconds that a cancelled call may take to end."""

_CHANGING: Final = ("DELETE", "POST", "PUT")


class UnfinishedError(DOImagesError):
    """The command was interrupted while the request was in flight."""

    outcome_unknown = True

    def __str__(self) -> str:
        return f"{self.args[0]}: it may have been carried out"


class NotSentError(DOImagesError):
    """The command was interrupted before the request was sent."""

    def __init__(self) -> None:
        super().__init__("the request was not sent")


@attrs.define(eq=False)
class _Call:
    """A call that changes something, and how far it has got.

    Attributes:
        noun: the change in a word, which can be counted.
        in_flight: its requests that change something and have no answer yet.
        changed: the last request that was carried out, in words.
        cut: whether a request was cancelled in flight.
        stopping: whether it is to end with its requests in flight.
        last: the error of its last attempt.
        task: its task.
    """

    noun: str
    in_flight: int = attrs.field(default=0, init=False)
    changed: str = attrs.field(default="", init=False)
    cut: bool = attrs.field(default=False, init=False)
    stopping: bool = attrs.field(default=False, init=False)
    last: LastError = attrs.field(factory=LastError, init=False)
    _task: asyncio.Task[object] | None = attrs.field(default=None, init=False)

    async def run(self, call: Awaitable[T]) -> T:
        self._task = asyncio.current_task()
        token = _current.set(self)
        try:
            with keep_last_error() as self.last:
                return await call
        finally:
            _current.reset(token)

    def note(self, event: Event) -> None:
        if event.method not in _CHANGING:
            return
        if isinstance(event, PermitGranted):
            if self.stopping:  # since before its task began, when there was nothing to cancel
                raise asyncio.CancelledError
            self.in_flight += 1
            return
        if event.permitted:
            self.in_flight -= 1
        self.cut = self.cut or (event.permitted and event.outcome == "cancelled")
        if event.error is None and event.status is not None:
            self.changed = f"{event.method} {event.route} was sent"
        elif event.retry_in is not None and self.stopping:
            # Not from within its own step, where a timeout that begins later could take the cancellation.
            asyncio.get_running_loop().call_soon(self.stop)

    def stop(self) -> None:
        """Cancel it, unless a request is in flight, after which it ends by itself or comes back here."""
        self.stopping = True
        if not self.in_flight and not self.changed:
            self.leave()

    def leave(self) -> None:
        """Cancel it, whatever is in flight."""
        if self._task is not None:
            self._task.cancel()

    def why_unfinished(self) -> BaseException:
        """Return what is known of a call that was cancelled."""
        error = self.last.error
        if self.cut and isinstance(error, TransportError):
            if not error.outcome_unknown:
                return NotSentError()
            return UnfinishedError(f"{error.method} {URL(error.url).path} was sent")
        if self.changed:
            return UnfinishedError(self.changed)
        return NotSentError() if error is None else error


_current: ContextVar[_Call | None] = ContextVar("_current", default=None)


def note_event(event: Event) -> None:
    """Note what happens to an attempt, for the call that it belongs to; the hook of all clients."""
    call = _current.get()
    if call is not None:
        call.note(event)


@attrs.define(eq=False)
class Interruption:
    """The interruption of a command that changes something.

    The first signal lets requests in flight end, for some seconds, and nothing is sent after it. A second one
    does not wait for them. What is known of each call is returned or raised to whoever awaits it.

    Attributes:
        signals: the number of signals so far.
    """

    signals: int = attrs.field(default=0, init=False)
    _calls: set[_Call] = attrs.field(factory=set[_Call], init=False)

    @property
    def begun(self) -> bool:
        """Return whether there was a signal."""
        return self.signals > 0

    def interrupt(self) -> None:
        """React to a signal."""
        self.signals += 1
        for call in tuple(self._calls):
            if self.signals == 1:
                call.stop()
            else:
                call.leave()
        if self.signals == 1:
            self._say_what_is_in_flight()

    def _say_what_is_in_flight(self) -> None:
        waiting = sum(call.in_flight for call in self._calls)
        if waiting:
            nouns = {call.noun for call in self._calls if call.in_flight}
            noun = nouns.pop() if len(nouns) == 1 else "request"
            complain(f"interrupted; waiting for {counted(waiting, noun)} in flight, again to leave")

    async def to_its_end(self, begin: Callable[[], Awaitable[T]], noun: str = "request") -> T:
        """Await a call that changes something; if cancelled, only for what is in flight, and some seconds.

        Args:
            begin: begins the call.
            noun: the change in a word, which can be counted.

        Raises:
            UnfinishedError: it was interrupted, and may have been carried out.
            NotSentError: it was interrupted, and was not sent.
            DOImagesError: it failed, or its last attempt did before it was interrupted.
        """
        if self.begun:
            raise NotSentError
        call = _Call(noun)
        self._calls.add(call)
        task = asyncio.create_task(call.run(begin()))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            call.stop()
            with suppress(asyncio.CancelledError):  # again: it does not wait any longer
                await asyncio.wait([task], timeout=_GRACE)
            task.cancel()
            await _until_cancelled(task)
        finally:
            self._calls.discard(call)
        if task.done() and not task.cancelled():
            return task.result()
        raise call.why_unfinished()


async def _until_cancelled(task: asyncio.Task[object]) -> None:
    """Wait until a task that was cancelled has ended, however often this one is cancelled meanwhile."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _CLEANUP
    while not task.done() and (left := until - loop.time()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task], timeout=left)
