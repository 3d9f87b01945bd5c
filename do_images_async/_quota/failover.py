"""The failover: a worker's own share of the quota while the store can't be reached."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Self

import attrs

from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.clock import clock_ns
from do_images_async._quota.limiter import RateLimiter
from do_images_async._quota.permits import GrantedPermit
from do_images_async._quota.protocols import LimiterStats, Permit, Report, Ticket
from do_images_async._quota.store import Reply

__all__ = ["Failover"]

_SECOND = 1_000_000_000
_UNNUMBERED = Ticket(0, 0)  # of a request that the store has not granted


@attrs.frozen(eq=False)
class _NotedPermit:
    """The issuer of a permit whose request is reported to the store later."""

    _permit: Permit
    _note: Callable[[int], None]
    _grace: float

    def settled(self, _ticket: Ticket, report: Report | None) -> None:
        self._permit.settle(report)
        self._note(clock_ns())

    def released(self, _ticket: Ticket) -> None:
        self._permit.release()

    def lost(self, _ticket: Ticket) -> None:
        self._permit.lose()
        self._note(clock_ns() + round(self._grace * _SECOND))


@attrs.define(eq=False)
class _LocalShare:
    """An equal share of the quota, for one worker.

    At first its tokens count as spent, but for those that surely were free in the store. Those of this
    worker's own requests come back when they are due. All others come back after a period, when requests made
    through the store no longer count.
    """

    limiter: RateLimiter
    _workers: int
    _note: Callable[[int], None]
    _grace: float
    _calls: set[asyncio.Timeout] = attrs.field(factory=set[asyncio.Timeout])

    @classmethod
    def of(
        cls,
        buckets: tuple[TokenBucket, ...],
        *,
        workers: int,
        grace: float,
        on_wait: Callable[[float], None] | None,
        note: Callable[[int], None],
    ) -> Self | None:
        """Return the share of one of `workers` workers; None if a bucket has too few tokens to share."""
        if min(bucket.capacity for bucket in buckets) < workers:
            return None
        shares = [attrs.evolve(bucket, capacity=bucket.capacity // workers) for bucket in buckets]
        limiter = RateLimiter(*shares, grace=grace, on_wait=on_wait, clock=clock_ns)
        return cls(limiter, workers, note, grace)

    @property
    def busy(self) -> bool:
        """Return whether calls wait or are in flight."""
        stats = self.limiter.stats()
        return bool(stats.waiting or stats.in_flight)

    async def acquire(self, *, max_wait: float | None, reserve: int) -> GrantedPermit | None:
        """Return a permit; None when the store is back."""
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
        return GrantedPermit(_NotedPermit(permit, self._note, self._grace), _UNNUMBERED)

    def end(self) -> None:
        """Wake the calls that wait here, since the store is back."""
        for call in self._calls:
            if not call.expired():
                call.reschedule(0)


class Failover:
    """The source of permits while the store can't be reached, if the options allow one.

    Args:
        buckets: the whole quota.
        allowed: whether the worker may spend a share of it on its own.
        blind: whether it may also if it never reached the store, and knows nothing of other workers: then it
            spends the quota as a `RateLimiter` does, alone.
        grace, on_wait: as in `RateLimiter`.
        note: called with the moment at which a request of the share was answered.

    Attributes:
        retry_at: the loop's time at which to try the store again; infinite while it can be reached.
    """

    def __init__(
        self,
        buckets: tuple[TokenBucket, ...],
        *,
        allowed: bool,
        blind: bool,
        grace: float,
        on_wait: Callable[[float], None] | None,
        note: Callable[[int], None],
    ) -> None:
        self.retry_at = math.inf
        self._buckets = buckets
        self._allowed = allowed
        self._blind = blind
        self._grace = grace
        self._on_wait = on_wait
        self._note = note
        self._share: _LocalShare | None = None

    @property
    def active(self) -> bool:
        """Return whether permits come from here now."""
        return self._share is not None

    @property
    def busy(self) -> bool:
        """Return whether calls wait here or are in flight."""
        return self._share is not None and self._share.busy

    def begin(self, last: Reply | None, age: float, answered: Iterable[int], in_flight: int) -> bool:
        """Start a share, unless there is one; return whether there is one now.

        Args:
            last: the store's last reply; None when it was never reached.
            age: seconds since then.
            answered: when requests of this worker were answered.
            in_flight: its requests that are not answered.
        """
        if self._share is None and self._allowed and (last is not None or self._blind):
            workers = 1 if last is None else last.workers
            share = _LocalShare.of(
                self._buckets, workers=workers, grace=self._grace, on_wait=self._on_wait, note=self._note
            )
            if share is not None and last is not None:
                pending = clock_ns() + round(self._grace * _SECOND)
                free = [left // workers for left in self._surely_free(last, age)]
                share.limiter.start_spent([*answered, *[pending] * in_flight], free)
            self._share = share
        return self._share is not None

    def _surely_free(self, last: Reply, age: float) -> list[int]:
        """Return the tokens of each bucket that nobody can have taken since the store's last reply.

        The shortest bucket bounds what all workers together were granted meanwhile.
        """
        shortest, *_longer = ordered = sorted(self._buckets, key=lambda bucket: bucket.period)
        granted = shortest.capacity * (int(age // shortest.period) + 1)
        free = {
            bucket: 0 if bucket is shortest else max(0, left - granted)
            for bucket, left in zip(ordered, last.free, strict=True)
        }
        return [free[bucket] for bucket in self._buckets]

    def end(self) -> bool:
        """End the share, since the store is back; return whether there was one."""
        share, self._share = self._share, None
        self.retry_at = math.inf
        if share is not None:
            share.end()
        return share is not None

    async def acquire(self, *, max_wait: float | None, reserve: int) -> GrantedPermit | None:
        """Return a permit of the share; None when it has ended."""
        if self._share is None:
            return None
        return await self._share.acquire(max_wait=max_wait, reserve=reserve)

    def stats(self) -> LimiterStats | None:
        """Return the share's counts; None when there is none."""
        return None if self._share is None else self._share.limiter.stats()

    def next_permit_in(self) -> float:
        """Return seconds until the share may grant a permit."""
        return 0.0 if self._share is None else self._share.limiter.next_permit_in()
