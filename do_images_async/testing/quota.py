"""The server's count of requests: a sliding log for each token and each limit."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence

import attrs

from do_images_async.testing.answers import usual_problem
from do_images_async.testing.arguments import number, whole

__all__ = ["DOCUMENTED", "Meter", "Quota", "QuotaLog", "Verdict"]


@attrs.frozen
class Quota:
    """A limit: at most `limit` requests in any window of `seconds`.

    The 429 of a limit on less than an hour has `retry-after`, as that of the documented minute; of an hour or
    more it has none. `Fault(times=None, headers={"retry-after": ""})` removes it from all answers.

    Args:
        limit: how many requests, from 1.
        seconds: the length of the window.
    """

    limit: int = attrs.field(validator=whole(1))
    seconds: float = attrs.field(validator=number(0.001, 1e9))


DOCUMENTED = (Quota(250, 60.0), Quota(5000, 3600.0))
_HOUR = 3600.0


@attrs.frozen(kw_only=True)
class Verdict:
    """The decision on a request, and the values of its quota headers.

    Attributes:
        accepted: whether every window had room for the request.
        limit, remaining, reset: the `ratelimit-*` headers; they describe the longest window, but `remaining`
            is 0 when a shorter one refuses the request, unless `burst_remaining_zero` is False.
        retry_after: whole seconds until the spent windows have room; None if one of them is an hour or more.
    """

    accepted: bool
    limit: int
    remaining: int
    reset: int
    retry_after: int | None


class QuotaLog:
    """A log of the requests of one token. Rejected ones count as well.

    Args:
        quotas: the limits.
        burst_remaining_zero: whether a 429 of a shorter window says `remaining: 0`.
    """

    def __init__(self, quotas: Sequence[Quota], *, burst_remaining_zero: bool = True) -> None:
        self._burst_remaining_zero = burst_remaining_zero
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
        remaining = max(0, longest.limit - len(log))
        return Verdict(
            accepted=not full,
            limit=longest.limit,
            remaining=0 if full and self._burst_remaining_zero else remaining,
            reset=math.ceil(log[0] + longest.seconds),
            retry_after=self._retry_after(full, now),
        )

    def _retry_after(self, full: list[tuple[Quota, deque[float]]], now: float) -> int | None:
        if not full or full[-1][0].seconds >= _HOUR:
            return None
        # The window has room when all but `limit - 1` of its entries have left.
        waits = [times[len(times) - quota.limit] + quota.seconds - now for quota, times in full]
        return max(1, math.ceil(max(waits)))


class Meter:
    """The logs of all tokens; requests without a token share one.

    Args:
        quotas: the limits; None for no limit and no quota headers.
        clock: Unix time, in seconds.
        burst_remaining_zero: as for `QuotaLog`.
        stale_resets: draws how far in the past half of the resets lie; None for correct resets.
    """

    def __init__(
        self,
        quotas: Sequence[Quota] | None,
        clock: Callable[[], float],
        *,
        burst_remaining_zero: bool = True,
        stale_resets: random.Random | None = None,
    ) -> None:
        self._quotas = quotas
        self._clock = clock
        self._burst_remaining_zero = burst_remaining_zero
        self._stale_resets = stale_resets
        self._logs: dict[str | None, QuotaLog] = {}

    def count(self, token: str | None, headers: dict[str, str]) -> Verdict | None:
        """Count a request and add the quota headers."""
        if self._quotas is None:
            return None
        log = self._logs.get(token)
        if log is None:
            log = QuotaLog(self._quotas, burst_remaining_zero=self._burst_remaining_zero)
            self._logs[token] = log
        now = self._clock()
        verdict = log.record(now)
        headers["ratelimit-limit"] = str(verdict.limit)
        headers["ratelimit-remaining"] = str(verdict.remaining)
        headers["ratelimit-reset"] = str(self._reset(verdict, now))
        return verdict

    def _reset(self, verdict: Verdict, now: float) -> int:
        rng = self._stale_resets
        if rng is None or rng.random() < 0.5:
            return verdict.reset
        return int(now - rng.uniform(60, 3300))

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
