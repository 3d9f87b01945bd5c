"""What the server says of the quota, and when to hold back for it although the own log has tokens.

The quota belongs to the token, and others may spend it: a previous run, a colleague, the control panel. The
gate only ever makes a limiter tighter than its own log. It knows four reasons to hold back:

- closed: the server has refused a request; nothing is sent before the moment that it named.
- probing: after that one request goes first, and with every success one more may be under way.
- spent: the last word on the remaining requests, less those that it may not have counted yet.
- pacing: the server counts more and more requests that are not ours, or refuses one that the own log can't
  explain: somebody else spends too. Requests then go out evenly, after a refusal at the rate that was just
  accepted; it grows again until the next refusal, or to the full one.

Times are integer nanoseconds of one monotonic clock.
"""

from __future__ import annotations

import math
import random

import attrs

__all__ = ["LONGEST_PAUSE", "Gate", "Report", "Ticket"]

_SECOND = 1_000_000_000
LONGEST_PAUSE = 3605.0
"""Seconds that a server is believed when it asks to wait: an hour's quota, and its margin."""

_GROWTH = 0.03


@attrs.frozen(kw_only=True)
class Report:
    """What one response says of the quota.

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


@attrs.frozen
class Ticket:
    """Where a request stands among the others.

    Attributes:
        serial: its number in the order of grants, from 1.
        finished: how many requests were known to be over when it was granted.
    """

    serial: int
    finished: int


class Gate:
    """Says when the server's word allows the next request; the caller locks.

    Args:
        capacity, period: the shortest bucket's capacity, and its period in nanoseconds.
    """

    def __init__(self, capacity: int, period: int) -> None:
        self._capacity = capacity
        self._period = period
        # No reason to hold back, but perhaps the ceiling: what is true of almost every request.
        self._quiet = True
        self._closed_until = 0
        self._closing_serial = 0
        self._refusals = 0
        self._window: int | None = None
        self._newest = 0
        self._foreign = 0
        self._ceiling: int | None = None
        self._probe_at = 0
        self._interval: float | None = None
        self._paced_since = 0
        self._next_at = 0

    @property
    def pacing(self) -> bool:
        """Whether requests go out evenly, since somebody else spends the quota too."""
        return self._interval is not None

    def opens_at(self, now: int, sent: int, in_flight: int) -> int | None:
        """When the next request may go: now or later; None when a response has to come first.

        Args:
            now: the moment.
            sent: requests granted so far, those that were never sent left out.
            in_flight: how many of them are not answered.
        """
        if self._quiet and (self._ceiling is None or sent < self._ceiling):
            return now
        opens = max(now, self._closed_until)
        if self._window is not None and in_flight >= self._window:
            return None
        if self._ceiling is not None and sent >= self._ceiling:
            if in_flight:
                return None
            opens = max(opens, self._probe_at)
        if self._interval is not None:
            opens = max(opens, self._next_at)
        self._quiet = opens == now and self._window is None and self._interval is None
        return opens

    def granted(self, now: int) -> None:
        """Note that a request goes now."""
        if self._interval is None:
            return
        full = self._period / self._capacity
        interval = max(full, self._current_interval(now))
        if interval == full and now >= self._paced_since + self._period:
            self._interval = None
            return
        # What a closing has held back may follow a little faster.
        self._next_at = max(self._next_at, now - self._period // 30) + round(interval)

    def close(self, until: int) -> None:
        """Let nothing go before a moment."""
        self._quiet = False
        self._closed_until = max(self._closed_until, until)

    def answered(
        self, now: int, ticket: Ticket, report: Report, *, latest: int, outstanding: int, spent: int
    ) -> None:
        """Take in what a response says.

        Args:
            now: the moment.
            ticket: which request it answers.
            report: what it says.
            latest: the serial of the request that was granted last.
            outstanding: tokens that are not in the shortest bucket.
            spent: tokens that are not in the longest bucket.
        """
        if ticket.serial > self._newest:
            self._newest = ticket.serial
            self._look_at_the_hour(now, ticket, report, spent)
        if report.refused:
            # All that went before the first refusal came back belongs to the same closing.
            first = ticket.serial > self._closing_serial
            if first:
                self._closing_serial = latest
                self._refusals += 1
            self._hold_back(now, report)
            if report.retry_after is not None:
                self._pace(now, outstanding - (latest - ticket.serial), first=first)
        elif ticket.serial > self._closing_serial:
            self._refusals = 0
            self._widen()

    def _look_at_the_hour(self, now: int, ticket: Ticket, report: Report, spent: int) -> None:
        if report.remaining is not None:
            # Whatever was not over when this request went may have arrived after it, and not be counted.
            self._ceiling = report.remaining + ticket.finished + 1
            wait = 1.0 if report.reset_in is None else min(report.reset_in + 1.0, LONGEST_PAUSE)
            self._probe_at = now + round(wait * _SECOND)
        if report.counted is not None:
            foreign = max(0, report.counted - spent)
            if foreign > self._foreign and self._interval is None:
                self._quiet = False
                self._interval = self._period / self._capacity
                self._paced_since = self._next_at = now
            self._foreign = foreign

    def _hold_back(self, now: int, report: Report) -> None:
        pause = report.retry_after
        if pause is None:
            # One place in the longest window is free at its reset, and others want it too; the server names
            # a whole second.
            reset = 0.0 if report.reset_in is None else report.reset_in + 1.0
            pause = max(reset, min(2.0 ** (self._refusals - 1), 60.0))
        pause = min(pause, LONGEST_PAUSE)
        jitter = random.uniform(0.0, min(1.0, pause / 10))  # noqa: S311  (keeps sister processes apart)
        self.close(now + round((pause + jitter) * _SECOND))
        self._window = 1

    def _widen(self) -> None:
        if self._window is not None:
            self._window = self._window + 1 if self._window < self._capacity else None

    def _pace(self, now: int, accepted: int, *, first: bool) -> None:
        """Go on at the rate of the requests that the server had counted when it refused this one.

        Not slower than a quarter of the full rate: fewer may only mean that we have not asked for more.
        """
        least = max(1, self._capacity // 4)
        interval = self._period / max(least, min(accepted, self._capacity))
        if first or self._interval is None or interval > self._interval:
            self._interval = interval
        self._paced_since = now
        self._next_at = self._closed_until

    def _current_interval(self, now: int) -> float:
        periods = min((now - self._paced_since) / self._period, 60.0)
        faster = 1.0 + _GROWTH * (math.exp2(periods) - 1.0)
        return (self._interval or 0.0) / faster
