"""The interface between HTTP and the quota: the limiter that calls use, and the report of a response.

`_http` and `redis` depend on this module, not on a particular limiter.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import attrs
import msgspec

__all__ = ["Limiter", "LimiterOfTokens", "LimiterStats", "Permit", "Report", "Ticket", "check_limiter"]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The quota as one response states it.

    Attributes:
        remaining: requests left in the longest window; None when it does not say.
        counted: requests that the server has counted in it, ours and others'; None when it does not say.
        refused: whether the request was refused for the quota.
        retry_after: seconds until a refused request has a chance; None when it does not say.
        reset_in: seconds until the oldest request of the longest window expires; None when it does not say.
    """

    remaining: int | None = None
    counted: int | None = None
    refused: bool = False
    retry_after: float | None = None
    reset_in: float | None = None


class Ticket(msgspec.Struct, frozen=True, gc=False):
    """The position of a request among the others.

    Attributes:
        serial: its number in the order of grants, from 1.
        finished: how many requests were known to be over when it was granted.
    """

    serial: int
    finished: int


class Permit(Protocol):
    """The right to send one request. Its holder reports exactly once what happened to the request.

    One that is dropped without a report keeps its tokens until the limiter is gone; nothing says so.
    """

    def settle(self, report: Report | None = None) -> None:
        """Report that the response's headers arrived: the tokens come back one period from now.

        Args:
            report: what the headers say of the quota.
        """
        ...

    def release(self) -> None:
        """Report that the request was never sent: the tokens come back at once."""
        ...

    def lose(self) -> None:
        """Report that no response arrived to a request that may have been sent.

        The tokens come back one grace and one period from now.
        """
        ...


class Limiter(Protocol):
    """The methods that a client needs of a limiter; see `RateLimiter`."""

    async def acquire(self, *, max_wait: float | None = None, reserve: int = 0) -> Permit: ...
    def check_reserve(self, reserve: int) -> None: ...
    def next_permit_in(self) -> float: ...
    def stats(self) -> LimiterStats: ...


@runtime_checkable
class LimiterOfTokens(Protocol):
    """A limiter that has a quota for each API token, and has to know which token a call uses."""

    def for_token(self, digest: str, origin: str) -> Limiter:
        """Return the limiter of a token's quota at an origin.

        Args:
            digest: stands for the token.
            origin: the server that counts.
        """
        ...


@attrs.frozen(kw_only=True)
class LimiterStats:
    """The counts of a limiter at a moment.

    Attributes:
        granted: permits granted so far, less those that came back unsent: the requests made.
        in_flight: requests that were granted and are not answered yet.
        waiting: calls that wait for a permit.
        available: tokens free now, one number for each bucket.
        pacing: whether requests go out evenly, since somebody else spends the quota too.
    """

    granted: int
    in_flight: int
    waiting: int
    available: tuple[int, ...]
    pacing: bool = False


_METHODS = ("acquire", "check_reserve", "next_permit_in", "stats")


def check_limiter(value: object) -> None:
    """Raise TypeError unless the value has every method of `Limiter`."""
    if isinstance(value, type):
        raise TypeError(f"limiter must be an instance, not the class {value.__name__}")
    missing = [name for name in _METHODS if not callable(getattr(value, name, None))]
    if missing:
        raise TypeError(
            f"limiter must have the methods of a RateLimiter, {', '.join(_METHODS)}; "
            f"{type(value).__name__} lacks {', '.join(missing)}"
        )
