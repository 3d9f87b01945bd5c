"""Calls that are in flight when a command is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

__all__ = ["to_its_end"]

_GRACE: Final = 10.0
"""Seconds that a call in flight may still take when the command is interrupted."""


async def to_its_end(call: Awaitable[None]) -> None:
    """Await a call; if cancelled, give the call some time to finish before cancelling it."""
    task = asyncio.ensure_future(call)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            done, _ = await asyncio.wait([task], timeout=_GRACE)
        finally:
            task.cancel()
        if not done:
            raise
        task.result()
