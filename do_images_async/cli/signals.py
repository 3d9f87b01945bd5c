"""SIGTERM, which interrupts a command as Ctrl-C does."""

from __future__ import annotations

import signal
from contextlib import suppress

__all__ = ["terminate_as_ctrl_c"]


def terminate_as_ctrl_c() -> None:
    """Let SIGTERM interrupt this process as Ctrl-C does, unless it is ignored or has a handler."""
    with suppress(ValueError):  # off the main thread
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
