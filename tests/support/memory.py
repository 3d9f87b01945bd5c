"""The memory of a process."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

__all__ = ["peak_memory"]


def peak_memory() -> float:
    """Return the most memory that this program has held so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # `ru_maxrss` remembers what the process held before it became this program: a fork of its parent.
        return (
            int(re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(encoding="utf-8"), re.MULTILINE)[0])
            / 1024
        )
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
