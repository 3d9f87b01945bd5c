"""The clock that workers of a shared quota and the store of one machine count on."""

from __future__ import annotations

import time

__all__ = ["clock_ns"]

_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def clock_ns() -> int:
    """Return nanoseconds since the machine was started; nobody can set this clock.

    Where the system can tell (Linux), it goes on while the machine sleeps: the server's windows do so too,
    and so do the leases that a store on another machine keeps.
    """
    return time.monotonic_ns() if _BOOTTIME is None else time.clock_gettime_ns(_BOOTTIME)
