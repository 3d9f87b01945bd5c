"""A command that makes one change: its report, also when it is interrupted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

import attrs

from do_images_async.cli.columns import Column
from do_images_async.cli.in_flight import Interruption
from do_images_async.cli.output import told_if_lost
from do_images_async.cli.rows import Rows
from do_images_async.cli.running import run_interruptibly
from do_images_async.cli.status import Exit, Stopped, message_with_notes
from do_images_async.errors import DOImagesError

__all__ = ["Change"]

T = TypeVar("T", bound=attrs.AttrsInstance)


@attrs.define
class Change(Generic[T]):
    """One change, and the object that it made or changed.

    Attributes:
        rows: the output.
        columns: the columns of the object.
        interruption: the interruption of the command.
    """

    rows: Rows
    columns: Sequence[Column[T]]
    interruption: Interruption = attrs.field(factory=Interruption, init=False)
    _made: list[T] = attrs.field(factory=list[T], init=False)
    _words: list[str] = attrs.field(factory=list[str], init=False)
    _error: DOImagesError | None = attrs.field(default=None, init=False)

    async def make(self, begin: Callable[[], Awaitable[T]], words: Callable[[T], str]) -> T:
        """Await the call that makes the change; an interruption lets its request in flight end.

        Args:
            begin: begins the call.
            words: returns what was changed, in words.

        Raises:
            DOImagesError: the call failed, or was interrupted.
        """
        try:
            made = await self.interruption.to_its_end(begin)
        except DOImagesError as error:
            self._error = error
            raise
        self._made.append(made)
        self._words.append(words(made))
        return made

    def report(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do the work, and write its object; if it ends after the change, the object as last seen.

        Args:
            work: begins the work, once the output is open.

        Raises:
            Stopped: it was interrupted, or the object can't be written.
            DOImagesError: the change failed, or what comes after it, such as a wait.
        """
        with told_if_lost(self._words), self.rows.destination() as target:
            result, error = self._run(work())
            self.rows.write(target, [result], self.columns)
        if error is not None:
            raise error
        if self.interruption.begun:
            raise Stopped(Exit.INTERRUPTED, "; ".join(["interrupted", *self._words]))
        return result

    def _run(self, work: Coroutine[Any, Any, T]) -> tuple[T, DOImagesError | None]:
        try:
            return run_interruptibly(work, self.interruption), None
        except Stopped as stopped:
            if stopped.status is not Exit.INTERRUPTED:
                raise
            if self._made:
                return self._made[-1], None
            if self._error is None:
                raise
            # The signal came after the request had failed, while the client was closed.
            message = f"interrupted; {message_with_notes(self._error)}"
            raise Stopped(Exit.INTERRUPTED, message) from None
        except DOImagesError as error:
            if not self._made:
                raise
            return _last_seen(error, self._made[-1]), error


def _last_seen(error: DOImagesError, made: T) -> T:
    """Return the image or action that the error of a wait has seen, or else what was made."""
    seen = (getattr(error, name, None) for name in ("image", "action"))
    return next((each for each in seen if isinstance(each, type(made))), made)
