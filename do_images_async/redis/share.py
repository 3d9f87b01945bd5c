"""What a worker may spend on its own while the store can't be reached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Self

import attrs

from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.limiter import RateLimiter
from do_images_async._quota.protocols import Permit, Report

__all__ = ["LocalShare"]

_SECOND = 1_000_000_000


@attrs.define(eq=False)
class _LocalPermit:
    """A permit of the share; the store is told of its request later."""

    _permit: Permit | None
    _tell: Callable[[int], None]
    _grace: float

    def settle(self, report: Report | None = None) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.settle(report)
            self._tell(time.monotonic_ns())

    def release(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.release()

    def lose(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.lose()
            self._tell(time.monotonic_ns() + round(self._grace * _SECOND))


@attrs.define(eq=False)
class LocalShare:
    """An equal share of the quota, for one worker.

    Its tokens count as spent at first: those of this worker's own requests are back when they are, all others
    a period from now, when whatever any worker spent through the store no longer counts.

    Attributes:
        limiter: grants the permits.
        look_at: the loop's time at which to look for the store again.
    """

    limiter: RateLimiter
    _workers: int
    _tell: Callable[[int], None]
    _grace: float
    look_at: float = 0.0
    _calls: set[asyncio.Timeout] = attrs.field(factory=set[asyncio.Timeout])

    @classmethod
    def of(
        cls,
        buckets: tuple[TokenBucket, ...],
        *,
        workers: int,
        grace: float,
        on_wait: Callable[[float], None] | None,
        answered: Iterable[int],
        in_flight: int,
        tell: Callable[[int], None],
    ) -> Self | None:
        """A share for one of so many workers; None when it would be nothing."""
        if min(bucket.capacity for bucket in buckets) < workers:
            return None
        shares = [attrs.evolve(bucket, capacity=bucket.capacity // workers) for bucket in buckets]
        limiter = RateLimiter(*shares, grace=grace, on_wait=on_wait)
        pending = time.monotonic_ns() + round(grace * _SECOND)
        limiter.start_spent([*answered, *[pending] * in_flight])
        return cls(limiter, workers, tell, grace)

    @property
    def busy(self) -> bool:
        """Whether calls wait or are under way."""
        stats = self.limiter.stats()
        return bool(stats.waiting or stats.in_flight)

    async def acquire(self, *, max_wait: float | None, reserve: int) -> Permit | None:
        """A permit; None when the store is back."""
        most = min(bucket.capacity for bucket in self.limiter.buckets) - 1
        share = min(reserve // self._workers, most)
        call = asyncio.timeout(None)
        self._calls.add(call)
        try:
            async with call:
                permit = await self.limiter.acquire(max_wait=max_wait, reserve=share)
        except TimeoutError:
            return None
        finally:
            self._calls.discard(call)
        return _LocalPermit(permit, self._tell, self._grace)

    def end(self) -> None:
        """The store is back: send those who wait there."""
        for call in self._calls:
            if not call.expired():
                call.reschedule(0)
