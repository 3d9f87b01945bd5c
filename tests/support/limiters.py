"""Short ways to spend a limiter's tokens, for tests."""

from __future__ import annotations

import asyncio
from typing import Any

from do_images_async import Limiter, Permit
from do_images_async.errors import QuotaWaitError

__all__ = ["is_spent", "take"]


async def take(limiter: Limiter, number: int, **options: Any) -> list[Permit]:
    """Acquire so many permits at once."""
    return list(await asyncio.gather(*(limiter.acquire(**options) for _ in range(number))))


async def is_spent(limiter: Limiter) -> bool:
    """Return whether a call would have to wait now."""
    try:
        (await limiter.acquire(max_wait=0)).release()
    except QuotaWaitError:
        return True
    return False
