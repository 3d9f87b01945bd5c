"""The limits, and the tokens that are left of each at a moment."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from typing import cast

import attrs

from do_images_async._arguments import check_range, check_seconds

__all__ = [
    "DOCUMENTED",
    "STARVED_PART",
    "Level",
    "TokenBucket",
    "check_buckets",
    "check_reserve",
    "read_buckets",
]

_SECOND = 1_000_000_000


@attrs.frozen
class TokenBucket:
    """One limit: `capacity` requests in any window of `per` seconds (API reference: "Rate Limit").

    Args:
        capacity: requests that the server allows in any window; at least 1.
        per: the window, in seconds.
        margin: seconds added to the window, against clocks that run apart and a server that counts in whole
            seconds; by default a sixtieth of the window, at most 5 s.

    Raises:
        TypeError, ValueError: an argument is not a number, or out of range.
    """

    capacity: int
    per: float = attrs.field(kw_only=True)
    margin: float | None = attrs.field(kw_only=True, default=None)

    def __attrs_post_init__(self) -> None:
        check_range(self.capacity, "capacity", 1)
        check_seconds(self.per, "per")
        if self.margin is not None:
            check_seconds(self.margin, "margin", zero=True)

    @property
    def period(self) -> float:
        """Return the seconds from a response until its token is back."""
        return self.per + (min(self.per / 60, 5.0) if self.margin is None else self.margin)


DOCUMENTED = (TokenBucket(250, per=60), TokenBucket(5000, per=3600))
"""The quota that the API page states for every token."""

STARVED_PART = 8
"""One permit in so many goes to a call that has waited for a whole period because of its reserve."""


class Level:
    """The state of one bucket at a moment: its free tokens, and the moments when the others come back.

    Attributes:
        free: the free tokens; negative if others have spent more than were left.
        returns: the moments when tokens come back, in order.
    """

    __slots__ = ("bucket", "free", "period", "returns")

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket = bucket
        self.period = math.ceil(bucket.period * _SECOND)
        self.free = bucket.capacity
        self.returns: list[int] = []

    def start_spent(self, answered: Iterable[int], now: int, free: int = 0) -> None:
        """Take the tokens out, as if they were spent on the requests answered last, and the rest just now.

        Args:
            free: so many tokens stay, if there are as many beside the requests.
        """
        latest = sorted(answered)[-self.bucket.capacity :]
        others = self.bucket.capacity - len(latest)
        self.free = min(free, others)
        latest += [now] * (others - self.free)
        self.returns = sorted(moment + self.period for moment in latest)

    def collect(self, now: int) -> None:
        """Count the tokens that are back by now as free."""
        returns = self.returns
        if returns and returns[0] <= now:
            back = bisect_right(returns, now)
            del returns[:back]
            self.free += back

    def give_back(self, due: int) -> None:
        """Note the moment when a token comes back."""
        returns = self.returns
        if not returns or returns[-1] <= due:
            returns.append(due)
        else:
            returns.insert(bisect_right(returns, due), due)

    def spend(self, number: int, now: int) -> None:
        """Take out tokens for requests of others that the server has counted, even if none are free."""
        for _ in range(number):
            self.give_back(now + self.period)
        self.free -= number

    def next_return(self) -> int | None:
        return self.returns[0] if self.returns else None

    def earliest(self, number: int, now: int) -> int:
        """Return a lower bound of when the `number`-th token from now is free.

        It assumes that every request in flight was sent. A token that is spent again, or is in flight, comes
        back after a period at the earliest. A lost one comes back later, but another may be spent twice until
        then.
        """
        cycles, index = divmod(number - 1, self.bucket.capacity)
        again = now + self.period
        back = index - self.free
        if back < 0:
            first = now
        elif back < len(self.returns):
            first = min(self.returns[back], again)
        else:
            first = again
        return first + cycles * self.period


def read_buckets(buckets: object) -> tuple[TokenBucket, ...]:
    """Return the buckets of an iterable; raise TypeError if it is none, or something else is in it."""
    if not isinstance(buckets, Iterable):
        raise TypeError(f"buckets must be an iterable of TokenBucket, not {buckets!r}")
    read = tuple(cast("Iterable[TokenBucket]", buckets))
    check_buckets(read)
    return read


def check_buckets(buckets: Iterable[object]) -> None:
    """Raise TypeError unless all are buckets."""
    for bucket in buckets:
        if not isinstance(bucket, TokenBucket):
            raise TypeError(f"buckets must be of TokenBucket, not {bucket!r}")


def check_reserve(reserve: int, buckets: Iterable[TokenBucket]) -> None:
    """Raise ValueError or TypeError unless a call could ever leave `reserve` tokens in every bucket."""
    check_range(reserve, "reserve", 0, min(bucket.capacity for bucket in buckets) - 1)
