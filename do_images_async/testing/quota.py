"""The server's own count: a sliding log of every request, for each token and each limit."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import attrs

from do_images_async.testing.answers import usual_problem

__all__ = ["DOCUMENTED", "Meter", "Quota", "QuotaLog", "Verdict"]


@attrs.frozen
class Quota:
    """A limit: so many requests in any window of so many seconds."""

    limit: int
    seconds: float


DOCUMENTED = (Quota(250, 60.0), Quota(5000, 3600.0))


@attrs.frozen(kw_only=True)
class Verdict:
    """What the log says of one request.

    Attributes:
        accepted: whether every window had room for it.
        limit, remaining, reset: what the `ratelimit-*` headers say; they speak of the longest window.
        retry_after: whole seconds until a shorter window has room; None when the longest one is spent.
    """

    accepted: bool
    limit: int
    remaining: int
    reset: int
    retry_after: int | None


class QuotaLog:
    """The requests of one token. Rejected ones count as well, each until its own time is over."""

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self._windows = [(quota, deque[float]()) for quota in sorted(quotas, key=lambda q: q.seconds)]

    def record(self, now: float) -> Verdict:
        """Count a request that arrives now."""
        full: list[tuple[Quota, deque[float]]] = []
        for quota, times in self._windows:
            while times and times[0] <= now - quota.seconds:
                times.popleft()
            if len(times) >= quota.limit:
                full.append((quota, times))
        for _, times in self._windows:
            times.append(now)
        longest, log = self._windows[-1]
        return Verdict(
            accepted=not full,
            limit=longest.limit,
            remaining=max(0, longest.limit - len(log)),
            reset=math.ceil(log[0] + longest.seconds),
            retry_after=self._retry_after(full, now),
        )

    def _retry_after(self, full: list[tuple[Quota, deque[float]]], now: float) -> int | None:
        if not full or full[-1][0] is self._windows[-1][0]:
            return None
        # The window has room when all but `limit - 1` of its entries have left.
        waits = [times[len(times) - quota.limit] + quota.seconds - now for quota, times in full]
        return max(1, math.ceil(max(waits)))


class Meter:
    """A log for each token; requests without one share theirs.

    Args:
        quotas: the limits; None for no limit, and no headers that speak of one.
        clock: Unix time, in seconds.
    """

    def __init__(self, quotas: Sequence[Quota] | None, clock: Callable[[], float]) -> None:
        self._quotas = quotas
        self._clock = clock
        self._logs: dict[str | None, QuotaLog] = {}

    def count(self, token: str | None, headers: dict[str, str]) -> Verdict | None:
        """Count a request, whoever sent it, and put into the headers how the quota stands."""
        if self._quotas is None:
            return None
        verdict = self._logs.setdefault(token, QuotaLog(self._quotas)).record(self._clock())
        headers["ratelimit-limit"] = str(verdict.limit)
        headers["ratelimit-remaining"] = str(verdict.remaining)
        headers["ratelimit-reset"] = str(verdict.reset)
        return verdict

    def spend(self, token: str | None, headers: dict[str, str]) -> None:
        """Count a request.

        Raises:
            Problem: no quota is left for it.
        """
        verdict = self.count(token, headers)
        if verdict is None or verdict.accepted:
            return
        if verdict.retry_after is not None:
            headers["retry-after"] = str(verdict.retry_after)
        raise usual_problem(429)
