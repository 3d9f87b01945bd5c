"""SIGTERM and SIGHUP, which interrupt a command as Ctrl-C does."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import Final

__all__ = ["STOPPING", "terminate_as_ctrl_c"]

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP")

STOPPING: Final = tuple(number for number in signal.Signals if number.name in _NAMES)
"""The signals that interrupt a command; Windows has no SIGHUP."""


def terminate_as_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP interrupt this process as Ctrl-C does, unless ignored or with a handler."""
    with suppress(ValueError):  # off the main thread
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)
