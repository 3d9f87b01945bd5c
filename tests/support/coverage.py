"""Processes that coverage leaves alone: to measure one, it imports sqlite3 and writes a file."""

from __future__ import annotations

import os

__all__ = ["unmeasured"]


def unmeasured() -> dict[str, str]:
    """Return this process's environment without the variables by which coverage measures a child."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
