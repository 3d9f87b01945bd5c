"""SIGTERM and SIGHUP, which interrupt a command as Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio  # which a help does without

__all__ = [
    "STOPPING",
    "hold_stopping",
    "ignore_stopping",
    "interrupt_again",
    "on_stopping",
    "releasing_stopping",
    "stopping_is_held",
    "terminate_as_ctrl_c",
]

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")

STOPPING: Final = tuple(number for number in signal.Signals if number.name in _NAMES)
"""The signals that interrupt a command; Windows has no SIGHUP."""


_NO_SIGNALS: Final = (NotImplementedError, RuntimeError, ValueError)
"""The errors of `add_signal_handler` on Windows and off the main thread, of asyncio and of uvloop."""


def terminate_as_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP interrupt this process as Ctrl-C does, unless ignored or with a handler."""
    with suppress(ValueError):  # off the main thread
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)


def ignore_stopping() -> None:
    """Ignore the signals until the process ends: its result is final, and so is its exit status."""
    with suppress(ValueError):  # off the main thread
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)


def on_stopping(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call back in the loop on each of the signals, but for those that are ignored, as SIGHUP is under nohup.

    On Windows, and off the main thread, signals interrupt the program instead. When a loop removes a handler,
    the system's takes its place for a moment, which kills the process, unless the signal is SIGINT. So only
    that one is the loop's, after which the others wake the loop as well.
    """

    def stop(*_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(callback)

    wakes = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    with suppress(*_NO_SIGNALS):
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue
            if number == signal.SIGINT or not wakes:
                loop.add_signal_handler(number, callback)
            else:
                signal.signal(number, stop)


def interrupt_again(loop: asyncio.AbstractEventLoop) -> None:
    """Undo `on_stopping`: the signals interrupt this process as Ctrl-C does."""
    _leave_loop(loop, signal.default_int_handler)


def hold_stopping(loop: asyncio.AbstractEventLoop) -> None:
    """Undo `on_stopping`: the signals do nothing more, except in `releasing_stopping`."""
    _leave_loop(loop, _held)


@contextmanager
def releasing_stopping() -> Generator[None]:
    """Let signals that `hold_stopping` holds raise KeyboardInterrupt if they come in the block."""
    _held.released = True
    try:
        yield
    finally:
        _held.released = False


def stopping_is_held() -> bool:
    """Return whether `hold_stopping` holds the signals."""
    return any(signal.getsignal(number) is _held for number in STOPPING)


class _Held:
    """The handler of signals that are held."""

    released = False

    def __call__(self, *_: object) -> None:
        if self.released:
            for number in STOPPING:
                if signal.getsignal(number) is self:
                    signal.signal(number, signal.default_int_handler)
            raise KeyboardInterrupt


_held: Final = _Held()


def _leave_loop(loop: asyncio.AbstractEventLoop, handler: Callable[..., object]) -> None:
    with suppress(*_NO_SIGNALS), _blocked():
        for number in STOPPING:
            loop.remove_signal_handler(number)
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)


@contextmanager
def _blocked() -> Generator[None]:
    """Let the system keep the signals until the block ends, while their handlers are changed."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
