"""SIGTERM and SIGHUP, which interrupt a command as Ctrl-C does."""

from __future__ import annotations

import atexit
import os
import select
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    import asyncio  # which a help does without

__all__ = [
    "INTERRUPTED",
    "STOPPING",
    "blocked",
    "die_of_signal",
    "exit_again",
    "exit_on_stopping",
    "hold_stopping",
    "ignore_stopping",
    "note_ctrl_c",
    "on_stopping",
    "stopping_is_held",
    "terminate_as_ctrl_c",
    "wait_for_line",
    "wait_held",
]

INTERRUPTED: Final = "interrupted before it was complete"
"""The message of a command that was interrupted and has nothing else to report."""

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")

STOPPING: Final = tuple(number for number in signal.Signals if number.name in _NAMES)
"""The signals that interrupt a command; Windows has no SIGHUP."""


_USUAL: Final = {
    number: signal.default_int_handler if number.name == "SIGINT" else signal.SIG_DFL for number in STOPPING
}
"""The handlers with which Python starts."""

_NO_SIGNALS: Final = (NotImplementedError, RuntimeError, ValueError)
"""The errors of `add_signal_handler` on Windows and off the main thread, of asyncio and of uvloop."""


_PATIENCE: Final = 2.0
"""Seconds that the reader of a report may take for the next part of it after a signal."""

_received: Final[list[int]] = []
"""The signals so far."""


def exit_on_stopping() -> None:
    """Let the signals end this process at once, while it imports what it needs.

    An exception in the middle of an import may be lost, or reach the user as a traceback.
    """
    _received.clear()
    for number, usual in _USUAL.items():
        if signal.getsignal(number) is usual:
            with suppress(ValueError):  # off the main thread
                signal.signal(number, _exit)


def terminate_as_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP interrupt this process as Ctrl-C does, unless ignored or with a handler."""
    with suppress(ValueError):  # off the main thread
        for number in STOPPING:
            if signal.getsignal(number) in (signal.SIG_DFL, _exit):
                signal.signal(number, _interrupt)


def note_ctrl_c() -> None:
    """Take a KeyboardInterrupt that no handler here has raised for a SIGINT.

    While an event loop removes its handler, Python's own takes its place for a moment.
    """
    if not _received:
        _received.append(signal.SIGINT)


def die_of_signal() -> None:
    """End this process by the signal that interrupted it, if one did; not on Windows.

    A shell's loop stops at Ctrl-C only if the command died of it, and systemd takes a death by SIGTERM for a
    clean end.
    """
    if _received and hasattr(signal, "pthread_sigmask"):
        # As the interpreter does at its end, and multiprocessing at that of a child.
        atexit._run_exitfuncs()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        _die(_received[0])


def _die(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _interrupt(number: int, _: object) -> None:
    _received.append(number)
    raise KeyboardInterrupt


def _exit(number: int, _: object) -> None:
    with suppress(OSError):
        os.write(2, f"do-images: {INTERRUPTED}\n".encode())
    _die(number)


def ignore_stopping() -> None:
    """Ignore the signals until the process ends: its result is final, and so is its exit status."""
    with suppress(ValueError):  # off the main thread
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)


def on_stopping(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> Callable[[], bool]:
    """Call back in the loop on each of the signals, but for those that are ignored, as SIGHUP is under nohup.

    On Windows, and off the main thread, signals interrupt the program instead. When a loop removes a handler,
    the system's takes its place for a moment, which kills the process, unless the signal is SIGINT. So only
    that one is known to the loop, after which each of them wakes it.

    Returns:
        A function that returns whether there was a signal, also if the loop ended before it could call back.
    """
    before = len(_received)

    def stop(number: int, _: object) -> None:
        _received.append(number)
        if not loop.is_closed():
            loop.call_soon_threadsafe(callback)

    wakes = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    with suppress(*_NO_SIGNALS), blocked():
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue
            if number == signal.SIGINT or not wakes:
                loop.add_signal_handler(number, lambda: None)
            signal.signal(number, stop)
    return lambda: len(_received) > before


def wait_for_line(stream: TextIO) -> None:
    """Wait until the stream, a terminal, has a line. A signal at any moment raises KeyboardInterrupt.

    A blocking read does not see a signal that comes just before it, or on another thread.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows, whose `select` takes sockets only
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        with _waking(writer):
            while stream.fileno() not in select.select([stream.fileno(), reader], [], [])[0]:
                os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def _waking(descriptor: int) -> Generator[None]:
    """Let each signal write a byte there until the block ends."""
    try:
        before = signal.set_wakeup_fd(descriptor)
    except ValueError:  # off the main thread, which gets no signals
        yield
        return
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)


def exit_again(loop: asyncio.AbstractEventLoop) -> None:
    """Undo `on_stopping`: the signals end this process at once, until `terminate_as_ctrl_c`.

    An exception could come while the event loop stops, after which uvloop's can't be closed.
    """
    _leave_loop(loop, _exit)


def hold_stopping(loop: asyncio.AbstractEventLoop) -> None:
    """Undo `on_stopping`: the signals do nothing more, except in `wait_held`."""
    _leave_loop(loop, _held)


def stopping_is_held() -> bool:
    """Return whether `hold_stopping` holds the signals."""
    return any(signal.getsignal(number) is _held for number in STOPPING)


def wait_held(wait: Callable[[float | None], bool]) -> None:
    """Wait for the reader of a report while signals are held.

    A signal gives the reader some seconds more; another one, or the end of that time, ends the wait.

    Args:
        wait: waits so many seconds, or for ever with None; returns whether the reader is there.

    Raises:
        KeyboardInterrupt: the reader is not there in time. From then on each signal interrupts the process.
    """
    try:
        _wait_with_signals(wait)
    except KeyboardInterrupt:
        for number in STOPPING:
            if signal.getsignal(number) is _held:
                signal.signal(number, _interrupt)
        raise


def _wait_with_signals(wait: Callable[[float | None], bool]) -> None:
    if not _held.signalled:
        with suppress(KeyboardInterrupt), _held.released():
            wait(None)
            return
    with _held.released():
        if not wait(_PATIENCE):
            raise KeyboardInterrupt


class _Held:
    """The handler of signals that are held.

    Attributes:
        signalled: whether there was one.
    """

    def __init__(self) -> None:
        self.signalled = False
        self._raises = False

    def __call__(self, number: int, _: object) -> None:
        _received.append(number)
        self.signalled = True
        if self._raises:
            raise KeyboardInterrupt

    @contextmanager
    def released(self) -> Generator[None]:
        """Raise KeyboardInterrupt for signals that come in the block."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False


_held: Final = _Held()


def _leave_loop(loop: asyncio.AbstractEventLoop, handler: Callable[..., object]) -> None:
    with suppress(*_NO_SIGNALS), blocked():
        for number in STOPPING:
            loop.remove_signal_handler(number)
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)


@contextmanager
def blocked() -> Generator[None]:
    """Let the system keep the signals until the block ends, while their handlers are changed."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
