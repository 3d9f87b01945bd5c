"""SIGTERM and SIGHUP, which interrupt a command as Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio  # which a help does without

__all__ = ["NO_SIGNALS", "STOPPING", "on_stopping", "terminate_as_ctrl_c"]

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")

STOPPING: Final = tuple(number for number in signal.Signals if number.name in _NAMES)
"""The signals that interrupt a command; Windows has no SIGHUP."""


NO_SIGNALS: Final = (NotImplementedError, RuntimeError, ValueError)
"""The errors of `add_signal_handler` on Windows and off the main thread, of asyncio and of uvloop."""


def terminate_as_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP interrupt this process as Ctrl-C does, unless ignored or with a handler."""
    with suppress(ValueError):  # off the main thread
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)


def on_stopping(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Call back in the loop on each of the signals, but for those that are ignored, as SIGHUP is under nohup.

    On Windows, and off the main thread, signals interrupt the program instead.
    """
    with suppress(*NO_SIGNALS):
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, callback)
