"""Decide which failed attempts are retried, and after how long."""

from __future__ import annotations

import random
from enum import Enum
from typing import Final

import attrs

from do_images_async._arguments import check_range, check_seconds

__all__ = [
    "BUDGET_IS_SPENT",
    "Failure",
    "RetryBudget",
    "RetryPolicy",
    "classify_status",
    "leaves_outcome_unknown",
    "may_retry",
]

BUDGET_IS_SPENT: Final = (
    "no retry: too many of this client's calls fail, so its retry budget is spent (see RetryPolicy)"
)
"""The note on an error that was not retried for this reason, and the log's line."""

_SAFE: Final = frozenset({"GET", "HEAD"})
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_TRANSIENT: Final = frozenset({408, 500, 502, 503, 504, *range(520, 528), 529, 530})
"""Statuses after which a retry may succeed; those above 504 are of the edge servers, Cloudflare's."""


class Failure(Enum):
    """The kind of a failed attempt: whether it may have been executed, and whether to retry it.

    Each value is (may have been executed, a retry may succeed, the limiter makes the retry wait).
    """

    NOT_EXECUTED_RETRY = (False, True, False)
    RATE_LIMITED = (False, True, True)
    MAYBE_EXECUTED_RETRY = (True, True, False)
    MAYBE_EXECUTED_FINAL = (True, False, False)
    NOT_EXECUTED_FINAL = (False, False, False)

    @property
    def maybe_executed(self) -> bool:
        """Return whether the server may have executed the request."""
        return self.value[0]

    @property
    def retryable(self) -> bool:
        """Return whether another attempt may succeed."""
        return self.value[1]


@attrs.frozen
class RetryPolicy:
    """The number of attempts, and the backoff between them.

    The backoff before attempt n + 1 is drawn evenly from 0 to min(cap, base * 2**(n - 1)) seconds ("full
    jitter"), so that clients that failed together do not retry together. After a 429 the limiter waits as
    long as the server says instead, an hour at most each time; if it does not say, first a second, then twice
    as long after each refusal, up to a minute. A limiter of your own that makes no call wait then gets the
    `retry-after`, else the backoff. Such retries use up no attempt until they have taken `max_wait`, by
    default an hour; unless `attempts` is 1, which sends once in any case, or the 429 is not the API's own: it
    has neither the API's JSON nor a `retry-after` nor quota headers, as the page of an edge server that
    blocks you. The `retry-after` of any other status makes the backoff longer, up to `cap`.

    Retried are 429, 408, 500, 502 to 504, Cloudflare's 520 to 530, a connection that fails, a timeout and a
    damaged body; but no POST that the server may have executed.

    However many `attempts`, each client has a retry budget, so that a storm of failures does not multiply the
    traffic: 50 retries, and one more for every ten successes, up to 50. Once it is spent, calls fail with
    their first error, which has a note that says so. A 429 takes nothing from it.

    Args:
        attempts: attempts at most, the first one included; 1 sends once.
        base: the longest backoff before the second attempt, in seconds.
        cap: the longest backoff before any attempt, in seconds.

    Raises:
        TypeError, ValueError: an argument is not a number, or out of range.
    """

    attempts: int = 4
    base: float = 0.5
    cap: float = 20.0

    def __attrs_post_init__(self) -> None:
        check_range(self.attempts, "attempts", 1)
        check_seconds(self.base, "base", zero=True)
        check_seconds(self.cap, "cap", zero=True)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after attempt number `attempt` (from 1) has failed."""
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt - 1, 60))
        return random.uniform(0.0, ceiling)  # noqa: S311  (jitter, not a secret)


class RetryBudget:
    """The retries that a client may still make, so that many failures at once do not multiply traffic.

    A retry takes one from the budget, and a success gives a tenth back, up to where it began. Occasional
    failures never exhaust it; a client whose calls all fail soon sends each of them once. A retry after 429
    takes nothing: the limiter delays those.

    Args:
        reserve: retries allowed before anything has succeeded.
        ratio: the part of a retry that one success earns.

    Attributes:
        was_spent: whether it has refused a retry since it was last whole.
    """

    __slots__ = ("_left", "_ratio", "_reserve", "was_spent")

    def __init__(self, reserve: float = 50.0, ratio: float = 0.1) -> None:
        self._left = self._reserve = reserve
        self._ratio = ratio
        self.was_spent = False

    def earn(self) -> None:
        """Count a success."""
        if self._left < self._reserve:
            self._left = min(self._reserve, self._left + self._ratio)
            self.was_spent = self.was_spent and self._left < self._reserve

    def spend(self) -> bool:
        """Take one retry from the budget; return False when none is left."""
        if self._left < 1:
            self.was_spent = True
            return False
        self._left -= 1
        return True


def classify_status(status: int) -> Failure:
    """Classify a status other than 2xx."""
    if status == 429:
        return Failure.RATE_LIMITED
    if status in _TRANSIENT:
        return Failure.MAYBE_EXECUTED_RETRY
    # A final 1xx, a redirect and a status that HTTP does not know do not say whether it was executed.
    return Failure.NOT_EXECUTED_FINAL if 400 <= status < 500 else Failure.MAYBE_EXECUTED_FINAL


def may_retry(method: str, failure: Failure) -> bool:
    """Return whether a retry may succeed without executing a write twice."""
    return failure.retryable and (method in _IDEMPOTENT or not failure.maybe_executed)


def leaves_outcome_unknown(method: str, failure: Failure) -> bool:
    """Return whether a write may have been executed although the attempt failed."""
    return method not in _SAFE and failure.maybe_executed
