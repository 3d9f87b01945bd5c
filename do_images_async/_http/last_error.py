"""The last failed attempt's error, for a wait whose time is up while a call is being retried.

A call that is cancelled raises no error of its own: the errors of its attempts would be lost.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from do_images_async.errors import DOImagesError

__all__ = ["LastError", "keep_last_error", "note_error"]


class LastError:
    """The last error that was noted while it was kept, if any."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: DOImagesError | None = None


_kept: ContextVar[LastError | None] = ContextVar("do_images_async_last_error", default=None)


@contextmanager
def keep_last_error() -> Generator[LastError]:
    """Keep the errors of attempts that this task makes within the block."""
    token = _kept.set(last := LastError())
    try:
        yield last
    finally:
        _kept.reset(token)


def note_error(error: DOImagesError) -> None:
    """Keep the error of an attempt, if a wait of this task wants it."""
    last = _kept.get()
    if last is not None:
        last.error = error
