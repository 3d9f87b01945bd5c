"""What the server says of the quota, and when to hold back for it although the own log has tokens.

The quota belongs to the token, and others may spend it: a previous run, a colleague, the control panel. The
gate only ever makes a limiter tighter than its own log. It knows five reasons to hold back:

- closed: the server has refused a request; nothing is sent before the moment that it named.
- probing: after that one request goes first, and with every success one more may be under way.
- spent: the last word on the remaining requests, less those that it may not have counted yet.
- pacing: the server counts more and more requests that are not ours, or refuses one that the own log can't
  explain: somebody else spends too. Requests then go out evenly, after a refusal at the rate that was just
  accepted; it grows again until the next refusal, or to the full one.
- wary: with others about, or nothing known of them yet, fewer requests are under way the less there is left,
  lest many be refused at once.

What it learns of others' requests it tells the limiter, which takes tokens out of its shorter buckets for
them.

Times are integer nanoseconds of one monotonic clock.
"""

from __future__ import annotations

import math
import random
from collections import deque

from do_images_async._quota.protocols import Report, Ticket

__all__ = ["LONGEST_PAUSE", "Gate"]

_SECOND = 1_000_000_000
LONGEST_PAUSE = 3605.0
"""Seconds that a server is believed when it asks to wait: an hour's quota, and its margin."""

_GROWTH = 0.03

_AHEAD = 8
"""While others spend too, no more than this part of what is left is under way: they may take the rest."""

_ON_THE_WAY = 2 * _SECOND
"""After this long a request without an answer is not waited for: it may be lost."""


class Others:
    """Requests that the server counts in the longest window and that are not ours.

    Those of before the first look may have come at any time, and leave when nobody can tell. Those that have
    come since are dated.

    Args:
        memory: the longest bucket's period in nanoseconds.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._before: int | None = None
        self._since = 0
        self._seen: deque[tuple[int, int]] = deque()

    def see(self, now: int, least: int, *, doubt: int, most: int) -> int:
        """Note how many there are; returns how many have come since the last look.

        Args:
            now: the moment.
            least: how many there are at the least; negative when ours are not all counted.
            doubt: how many more there may be.
            most: how many there can be, at the first look.
        """
        while self._seen and self._seen[0][0] <= now - self._memory:
            self._since -= self._seen.popleft()[1]
        least -= self._since
        before = most if self._before is None else self._before
        self._before = before = max(0, min(before, least + doubt))
        news = least - before
        if news <= 0:
            return 0
        self._since += news
        self._seen.append((now, news))
        return news


class Gate:
    """Says when the server's word allows the next request; the caller locks.

    Args:
        capacity, period: the shortest bucket's capacity, and its period in nanoseconds.
        memory: the longest bucket's period.
    """

    def __init__(self, capacity: int, period: int, memory: int) -> None:
        self._capacity = capacity
        self._period = period
        self._others = Others(memory)
        # No reason to hold back, but perhaps the ceiling: what is true of almost every request.
        self._quiet = True
        self._closed_until = 0
        self._closing_serial = 0
        self._refusals = 0
        self._window: int | None = None
        self._newest = 0
        self._heard_at = -period - 1
        self._wary_until = 0
        self._others_at = 0
        self._under_way: dict[int, int] = {}
        self._ceiling: int | None = None
        self._probe_at = 0
        self._interval: float | None = None
        self._paced_since = 0
        self._next_at = 0

    @property
    def pacing(self) -> bool:
        """Whether requests go out evenly, since somebody else spends the quota too."""
        return self._interval is not None

    def opens_at(self, now: int, sent: int, in_flight: int, free: int) -> int | None:
        """When the next request may go: now or later; None when a response has to come first.

        Args:
            now: the moment.
            sent: requests granted so far, those that were never sent left out.
            in_flight: how many of them are not answered.
            free: tokens in the shortest bucket.
        """
        ceiling = self._ceiling
        if self._quiet and (ceiling is None or sent < ceiling):
            return now
        opens = max(now, self._closed_until)
        if self._window is not None and in_flight >= self._window:
            return None
        if ceiling is not None and sent >= ceiling:
            if in_flight:
                return None
            opens = max(opens, self._probe_at)
        wary = now < self._wary_until
        if wary or self._interval is not None:
            left = free if ceiling is None else min(free, ceiling - sent)
            opens = max(opens, self._next_at, self._room_at(now, self._most_under_way(now, left)))
        else:
            self._under_way.clear()
        self._quiet = opens == now and self._window is None and self._interval is None and not wary
        return opens

    def earliest(self, now: int, sent: int, in_flight: int) -> int:
        """When the next request may go at the earliest, whatever is answered until then; see `opens_at`."""
        opens = max(now, self._closed_until)
        if self._ceiling is not None and sent >= self._ceiling and not in_flight:
            opens = max(opens, self._probe_at)
        return opens if self._interval is None else max(opens, self._next_at)

    def _most_under_way(self, now: int, left: int) -> int:
        """How many requests may be under way when so many tokens are left, lest many be refused at once.

        What others have sent since the last answer is not known. Before any sign of others, as many of theirs
        may be hidden as requests are under way: together they fit.
        """
        if self._interval is None:
            return max(1, left // 2)
        heard_lately = now < self._heard_at + _ON_THE_WAY
        return max(1, left // _AHEAD) if heard_lately else 1

    def _room_at(self, now: int, most: int) -> int:
        """When fewer than `most` requests are under way that the server may not have counted yet."""
        under_way = self._under_way
        while under_way and (oldest := next(iter(under_way.items())))[1] <= now - _ON_THE_WAY:
            del under_way[oldest[0]]
        if len(under_way) < most:
            return now
        return next(iter(under_way.values())) + _ON_THE_WAY

    def granted(self, now: int, serial: int) -> None:
        """Note that a request goes now."""
        if self._quiet:
            return
        self._under_way[serial] = now
        if self._interval is None:
            return
        full = self._period / self._capacity
        interval = max(full, self._current_interval(now))
        if interval == full and self._heard_at >= self._others_at + self._period:
            self._interval = None
            return
        # What a closing has held back may follow a little faster.
        self._next_at = max(self._next_at, now - self._period // 30) + round(interval)

    def close(self, until: int) -> None:
        """Let nothing go before a moment."""
        self._quiet = False
        self._closed_until = max(self._closed_until, until)

    def answered(
        self,
        now: int,
        ticket: Ticket,
        report: Report,
        *,
        latest: int,
        in_flight: int,
        outstanding: int,
        spent: int,
    ) -> int:
        """Take in what a response says; returns how many requests of others it shows that were not known.

        Args:
            now: the moment.
            ticket: which request it answers.
            report: what it says.
            latest: the serial of the request that was granted last.
            in_flight: how many requests are not answered.
            outstanding: tokens that are not in the shortest bucket.
            spent: tokens that are not in the longest bucket.
        """
        self._under_way.pop(ticket.serial, None)
        heard_at, self._heard_at = self._heard_at, now
        if now > heard_at + self._period // 2:
            self._others_at = now
        others = 0
        if ticket.serial > self._newest:
            self._newest = ticket.serial
            self._heed_what_remains(now, ticket, report)
            if report.counted is not None:
                # Ours that are under way may not be counted; those that are almost back are not any more.
                doubt = in_flight + self._capacity // 10
                most = report.counted - ticket.finished - 1
                news = self._others.see(now, report.counted - spent, doubt=doubt, most=most)
                others = self._heed_others(now, news, now - heard_at)
        if report.refused:
            # All that went before the first refusal came back belongs to the same closing.
            first = ticket.serial > self._closing_serial
            if first:
                self._closing_serial = latest
                self._refusals += 1
            self._hold_back(now, report)
            if report.retry_after is not None:
                self._pace(now, outstanding + others - (latest - ticket.serial), first=first)
        elif ticket.serial > self._closing_serial:
            self._refusals = 0
            self._widen()
        return others

    def _heed_what_remains(self, now: int, ticket: Ticket, report: Report) -> None:
        if report.remaining is None:
            return
        # Whatever was not over when this request went may have arrived after it, and not be counted.
        self._ceiling = report.remaining + ticket.finished + 1
        reset_in = report.reset_in
        wait = _SECOND if reset_in is None else round(min(reset_in + 1.0, LONGEST_PAUSE) * _SECOND)
        self._probe_at = now + wait

    def _heed_others(self, now: int, news: int, silence: int) -> int:
        """Be careful with so many new requests of others; returns how many count in the shortest window."""
        if silence > self._period:
            # At first, and after each silence, nobody knows whether we are alone.
            self._wary_until, self._quiet = now + self._period, False
        if not news:
            return 0
        self._others_at = now
        if self._interval is None:
            self._quiet = False
            self._interval = self._period / self._capacity
            self._next_at = self._paced_since = now
        # Those of a long silence came evenly, for all we know.
        return min(math.ceil(news * self._period / max(silence, self._period)), self._capacity)

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
        self._paced_since = self._others_at = now
        self._next_at = self._closed_until

    def _current_interval(self, now: int) -> float:
        periods = min((now - self._paced_since) / self._period, 60.0)
        faster = 1.0 + _GROWTH * (math.exp2(periods) - 1.0)
        return (self._interval or 0.0) / faster
