"""A timeout that a stopped process does not use up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["within"]

T = TypeVar("T")

_PARTS = 4


async def within(seconds: float, result: Awaitable[T]) -> T:
    """Return a result that arrives in time; cancel its task otherwise.

    The time is waited for in parts. SIGSTOP also stops the task or thread that makes the result; a stop that
    is longer than the timeout then uses up one part of it.

    Args:
        seconds: the timeout.
        result: a coroutine, which becomes a task, or a future.

    Raises:
        TimeoutError: it did not arrive.
    """
    task = asyncio.ensure_future(result)
    try:
        for _ in range(_PARTS):
            await asyncio.wait([task], timeout=seconds / _PARTS)
            if task.done():
                return task.result()
    finally:
        if task.cancel():
            await asyncio.wait([task], timeout=seconds / _PARTS)
    raise TimeoutError
