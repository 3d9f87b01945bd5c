"""The clock of the workers of a shared quota, and of the store on one machine."""

from __future__ import annotations

import time

__all__ = ["clock_ns"]

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def clock_ns() -> int:
    """Return nanoseconds since the machine was started; this clock can't be set.

    On Linux it also counts the time in which the machine sleeps, as the server's windows and the leases in a
    store on another machine do.
    """
    return time.monotonic_ns() if _BOOTTIME is None else time.clock_gettime_ns(_BOOTTIME)
