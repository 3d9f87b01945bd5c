"""Short ways to spend a limiter's tokens, for tests, and what every limiter must say of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from do_images_async import Limiter, LimiterStats, Permit, Report
from do_images_async.errors import QuotaWaitError
from tests.support.servers import eventually

__all__ = [
    "Unlimited",
    "expect_a_pause_and_pacing",
    "expect_next_permit_in_without_waiting_calls",
    "how_long",
    "is_spent",
    "keep_calling",
    "take",
]


class Unlimited:
    """A limiter as a user may write it, which makes no call wait, and a permit of it."""

    async def acquire(self, *, max_wait: float | None = None, reserve: int = 0) -> Permit:
        return self

    def check_reserve(self, reserve: int) -> None: ...

    def next_permit_in(self) -> float:
        return 0.0

    def stats(self) -> LimiterStats:
        return LimiterStats(granted=0, in_flight=0, waiting=0, available=(1,))

    def settle(self, report: Report | None = None) -> None: ...

    def release(self) -> None: ...

    def lose(self) -> None: ...


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


async def how_long(limiter: Limiter) -> float:
    """Return how long a call would wait."""
    with pytest.raises(QuotaWaitError) as caught:
        await limiter.acquire(max_wait=0)
    return caught.value.wait


async def keep_calling(
    acquire: Callable[..., Awaitable[Permit]], reserve: int, granted: dict[int, int]
) -> None:
    """Call for ever, each call a tenth of a second long, and count the permits by reserve."""
    while True:
        permit = await acquire(reserve=reserve)
        granted[reserve] += 1
        await asyncio.sleep(0.1)
        permit.settle()


async def expect_a_pause_and_pacing(new: Limiter) -> None:
    """Check that a limiter whose store may be older than it was pauses, and then goes evenly."""
    assert 1 < await how_long(new) < 3  # two seconds, and an exchange with the store
    (permit,) = await take(new, 1, max_wait=5)
    permit.settle()
    assert new.stats().pacing
    assert await how_long(new) > 1


async def expect_next_permit_in_without_waiting_calls(limiter: Limiter) -> None:
    """Check what a new limiter of two tokens a minute says of the next permit."""
    assert limiter.next_permit_in() == 0
    (first, second) = await take(limiter, 2)
    assert 40 < limiter.next_permit_in() <= 60, "an answer now, at the earliest"
    first.settle()
    second.release()
    await eventually(lambda: limiter.next_permit_in() == 0)
    (await limiter.acquire()).settle()
    with pytest.raises(QuotaWaitError) as caught:
        await limiter.acquire(max_wait=1)
    assert 40 < limiter.next_permit_in() <= caught.value.wait
