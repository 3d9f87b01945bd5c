"""Which failures may be sent again, and after how long."""

from __future__ import annotations

import random
from enum import Enum

import attrs

from do_images_async._arguments import check_range, check_seconds

__all__ = ["Failure", "RetryBudget", "RetryPolicy", "classify_status", "leaves_doubt", "may_send_again"]

_SAFE = frozenset({"GET", "HEAD"})
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_PASSING = frozenset({500, 502, 503, 504})


class Failure(Enum):
    """What became of an attempt that brought no success."""

    NEVER_SENT = "the request surely never left"
    REFUSED = "the server refused it unexecuted, for the quota"
    BROKEN = "it may have been carried out; another attempt may do better"
    DOUBTFUL = "it may have been carried out; another attempt would not do better"
    FINAL = "it was not carried out, and never will be"


@attrs.frozen
class RetryPolicy:
    """How often a request is sent, and how long to wait in between.

    The wait before attempt n + 1 is drawn evenly from 0 to min(cap, base * 2**(n - 1)) seconds ("full
    jitter"), so that clients that failed together do not come back together. A 429 is waited for as long as
    the server says instead.

    Args:
        attempts: how many times a request is sent at most; 1 sends once.
        base: the first wait's upper end, in seconds.
        cap: the longest wait, in seconds.

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
        """Seconds to wait after the `attempt`-th attempt (from 1) has failed."""
        ceiling = min(self.cap, self.base * 2.0 ** min(attempt - 1, 60))
        return random.uniform(0.0, ceiling)  # noqa: S311  (jitter, not a secret)


class RetryBudget:
    """What a client may still spend on sending again, so that a storm of failures does not multiply traffic.

    Sending again takes one from the budget, and a success gives a tenth back, up to where it began. A failure
    now and then never meets its end; a client for which everything fails soon sends each call once. A 429
    takes nothing from it: the limiter holds those back.

    Args:
        reserve: how many times may be sent again before anything has succeeded.
        ratio: the part of it that one success earns.
    """

    __slots__ = ("_left", "_ratio", "_reserve")

    def __init__(self, reserve: float = 50.0, ratio: float = 0.1) -> None:
        self._left = self._reserve = reserve
        self._ratio = ratio

    def earn(self) -> None:
        """Note a success."""
        if self._left < self._reserve:
            self._left = min(self._reserve, self._left + self._ratio)

    def spend(self) -> bool:
        """Take what sending again costs; False when the budget does not hold it."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


def classify_status(status: int) -> Failure:
    """What an HTTP status other than 2xx means for the request."""
    if status == 429:
        return Failure.REFUSED
    if status in _PASSING:
        return Failure.BROKEN
    return Failure.DOUBTFUL if status >= 500 else Failure.FINAL


def may_send_again(method: str, failure: Failure) -> bool:
    """Whether sending the request again can't do twice what was asked for once."""
    if failure is Failure.BROKEN:
        return method in _IDEMPOTENT
    return failure in (Failure.NEVER_SENT, Failure.REFUSED)


def leaves_doubt(method: str, failure: Failure) -> bool:
    """Whether the failure leaves open if a write was carried out."""
    return method not in _SAFE and failure in (Failure.BROKEN, Failure.DOUBTFUL)
