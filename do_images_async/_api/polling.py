"""Looking again and again until something has happened, or time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import attrs

from do_images_async._arguments import check_seconds

__all__ = ["Watched", "watch"]

T = TypeVar("T")

_GROWTH: Final = 1.5
_LONGEST: Final = 60.0


@attrs.frozen
class Watched(Generic[T]):
    """How a wait ended.

    Attributes:
        final: the state that it settled in; None when time was up.
        last: what was seen last; None when no answer came.
    """

    final: T | None
    last: T | None


async def watch(
    look: Callable[[], Awaitable[T]],
    settled: Callable[[T], bool],
    *,
    timeout: float,
    poll_interval: float,
) -> Watched[T]:
    """Look until what is seen is settled; the time between two looks grows by half each, up to a minute.

    Args:
        look: reads the state, with one request.
        settled: whether a state is the last one; may raise.
        timeout: seconds at most, requests included.
        poll_interval: seconds between the first two looks.

    Raises:
        TypeError, ValueError: `timeout` or `poll_interval` can't be used.
    """
    check_seconds(timeout, "timeout")
    interval = check_seconds(poll_interval, "poll_interval")
    seen: T | None = None
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            while True:
                seen = await look()
                if settled(seen):
                    return Watched(seen, seen)
                await asyncio.sleep(interval)
                interval = max(interval, min(interval * _GROWTH, _LONGEST))
    except TimeoutError:
        if not scope.expired():
            raise
    return Watched(None, seen)
