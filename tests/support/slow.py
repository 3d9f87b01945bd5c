"""The switch for the slow tests: `pytest --run-slow`, or `RUN_SLOW=1` in the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["RUN_SLOW", "examples", "fewer"]

T = TypeVar("T")

RUN_SLOW = os.environ.get("RUN_SLOW") == "1"


def examples(full: int) -> int:
    """Return how many examples a property test tries: `full` of them with the slow tests, else a fifth."""
    return full if RUN_SLOW else max(10, full // 5)


def fewer(cases: Sequence[T], number: int = 1) -> Sequence[T]:
    """Return the cases of a parametrized test: all of them with the slow tests, else the first few."""
    return cases if RUN_SLOW else cases[:number]
