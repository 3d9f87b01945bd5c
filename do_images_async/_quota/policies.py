"""The four policies that hold a request back although tokens are free.

Each policy says when the next request may go (`opens_at`: now or later; None when a response has to come
first) and learns from responses (`learn`). The gate takes the latest moment. Their whole state is plain data,
so that a store can keep it. `redis/quota.lua` has the same policies under the same names, and gets the
constants from here.

Times are integer nanoseconds of one monotonic clock.
"""

from __future__ import annotations

import math
import random
from typing import Final

import attrs
import msgspec

from do_images_async._quota.protocols import Report

__all__ = [
    "ALONE_PART",
    "CONSTANTS",
    "LONGEST_PAUSE",
    "ROUNDING_PART",
    "Closing",
    "InFlight",
    "Others",
    "Pacing",
    "Remaining",
    "Response",
]

_SECOND: Final = 1_000_000_000

LONGEST_PAUSE: Final = 3605.0
"""Seconds that a server is believed when it asks to wait: the longest documented window, and its margin."""

# A constant `…_PART` is a divisor: 4 stands for a quarter.

RESET_STEP: Final = 1.0
"""Seconds to wait after a reset: the server rounds it to a whole second."""

GROWTH: Final = 0.03
"""Part of the full rate by which pacing has become faster than that a period later."""

DOUBLINGS: Final = 2
"""How many times the rate of pacing doubles in a period, while the refusals may have been passing."""

RETURNS: Final = 16
"""How many times the rate of pacing doubles in a period, up to the clean rate."""

PROBES: Final = 16
"""How many times the rate of pacing doubles in the first period beyond the clean rate, at a patience of 1."""

MOST_PATIENCE: Final = 64
"""Patience is at most this; at least, it is a half."""

SAME_PART: Final = 25
"""Two refusals are at the same rate if the rates differ by less than this part of the full rate."""

BACKOFF: Final = 0.6
"""Factor of the rate for each refusal of the first request after a refusal."""

BURST_RATE: Final = 16
"""Pacing at this many times the full rate is as good as none."""

SLOWEST_GROWTH: Final = 32
"""Growth beyond the full rate is slowed by at most this factor."""

BURST_PART: Final = 30
"""Paced requests that were held back may catch up on at most this part of a period."""

FIRST_PART: Final = 4
"""Pacing begins with this part of the full rate at least: if few were accepted, few may have been sent."""

SLOWEST_PART: Final = 32
"""Pacing is never slower than this part of the full rate."""

ALONE_PART: Final = 2
"""Before any sign of others, this part of what is left may be in flight: as many of theirs may be hidden."""

SHARED_PART: Final = 8
"""While others spend too, this part of what is left may be in flight: they may take the rest."""

COUNTED_WITHIN: Final = 2.0
"""Seconds after which a request without a response is assumed to be counted or lost."""

FULL_WIDTH: Final = 256
"""From this many in flight on, there is no limit; it is reached from one in eight round trips."""

ROUNDING_PART: Final = 10
"""The server may have stopped counting this part of the shortest capacity: our tokens return later."""

CONSTANTS: Final[dict[str, float]] = {
    "rounding_part": ROUNDING_PART,
    "full_width": FULL_WIDTH,
    "reset_step": RESET_STEP,
    "growth": GROWTH,
    "doublings": DOUBLINGS,
    "returns": RETURNS,
    "probes": PROBES,
    "most_patience": MOST_PATIENCE,
    "same_part": SAME_PART,
    "backoff": BACKOFF,
    "burst_rate": BURST_RATE,
    "slowest_growth": SLOWEST_GROWTH,
    "burst_part": BURST_PART,
    "first_part": FIRST_PART,
    "slowest_part": SLOWEST_PART,
    "alone_part": ALONE_PART,
    "shared_part": SHARED_PART,
    "counted_within": COUNTED_WITHIN,
}
"""By the names under which a store that does not decide in Python gets them; seconds, or parts."""


class Response(msgspec.Struct, frozen=True, gc=False):
    """A response as the policies see it.

    Attributes:
        now: when it arrived.
        serial, finished: of the request; see `Ticket`.
        report: what the response says.
        latest: the serial of the request that was granted last.
        first: whether the request was granted after the last refusal was known.
        silence: nanoseconds since the response before it.
        capacity, period: of the shortest bucket.
        longest: the longest bucket's period.
    """

    now: int
    serial: int
    finished: int
    report: Report
    latest: int
    first: bool
    silence: int
    capacity: int
    period: int
    longest: int


@attrs.define
class Closing:
    """The policy after a refusal: grant nothing before the moment that the server named.

    Attributes:
        until: the moment.
        serial: of the request that was granted last when the refusal arrived: refusals of requests up to
            that one belong to the same closing.
        refusals: closings since the last success.
    """

    until: int = 0
    serial: int = 0
    refusals: int = 0

    def opens_at(self, now: int) -> int:
        return max(now, self.until)

    def close(self, until: int) -> None:
        """Grant nothing before a moment."""
        self.until = max(self.until, until)

    def learn(self, response: Response) -> None:
        if not response.report.refused:
            if response.first:
                self.refusals = 0
            return
        if response.first:
            self.serial = response.latest
            self.refusals += 1
        pause = self._pause(response)
        jitter = random.uniform(0.0, min(1.0, pause / 10))  # noqa: S311  (keeps sister processes apart)
        self.close(response.now + round((pause + jitter) * _SECOND))

    def _pause(self, response: Response) -> float:
        """Return the seconds to wait after a refusal; never longer than the longest window.

        With `retry_after`, or while requests remain in the longest window, it is the shortest window that is
        spent. Otherwise it may be either one: the reset of the longest window is believed for one period of
        the shortest, and after each further refusal for twice as long. A `retry_after` of 0 is less than a
        second, rounded down.
        """
        report = response.report
        shortest, longest = response.period / _SECOND, response.longest / _SECOND
        if report.retry_after:
            return min(report.retry_after, longest)
        doubled = 2.0 ** min(self.refusals - 1, 60)
        backoff = min(doubled, shortest)
        if report.retry_after is not None or report.remaining or report.reset_in is None:
            return backoff
        return max(min(report.reset_in + RESET_STEP, shortest * doubled, longest), backoff)


@attrs.define
class Remaining:
    """The policy for the newest count of remaining requests: grant no more than it leaves, then probe.

    Attributes:
        newest: the serial of the newest-sent request whose response was read.
        ceiling: how many requests may be granted in all; None before the server has said.
        probe_at: when one more may go.
        reset_at: when the server says that there will be more.
        zero_serial: of the request that was granted last when the server said that none remain; None if it
            did not say so, or a later request has shown that some remained.
        disproved: whether a later request has shown that some remained; a refusal resets it.
    """

    newest: int = 0
    ceiling: int | None = None
    probe_at: int = 0
    reset_at: int = 0
    zero_serial: int | None = None
    disproved: bool = False

    def opens_at(self, now: int, sent: int, in_flight: int) -> int | None:
        if self.ceiling is None or sent < self.ceiling:
            return now
        return None if in_flight else max(now, self.probe_at)

    def learn(self, response: Response) -> None:
        """Learn from the response to a newer request than any before; see `_is_the_minutes` of the gate."""
        report = response.report
        if report.remaining is None:
            return
        if report.refused:
            self.disproved = False
        elif self.zero_serial is not None and response.serial > self.zero_serial:
            self.disproved = self.disproved or response.now < self.reset_at
        if report.remaining == 0 and self.disproved:
            self.ceiling = self.zero_serial = None
            return
        # Requests that were in flight when this one was granted may have arrived after it: not counted yet.
        self.ceiling = report.remaining + response.finished + 1
        self.zero_serial = None if report.remaining else response.latest
        wait, longest = RESET_STEP, response.longest / _SECOND
        if report.reset_in is not None:
            wait = min(report.reset_in + RESET_STEP, longest)
        self.reset_at = response.now + round(wait * _SECOND)
        # The count may have been that of the shortest window: probe after that window.
        self.probe_at = min(self.reset_at, response.now + response.period)


@attrs.define
class Others:
    """Requests that the server counts in the longest window and that are not ours.

    Nobody knows when those before the first count were made, nor when they expire. Later ones were made
    about when they were first seen.

    Attributes:
        before: how many of those before the first count still count; None before the first count.
        since: how many have come since then.
        seen: when these were seen, and how many each time.
    """

    before: int | None = None
    since: int = 0
    seen: list[tuple[int, int]] = attrs.field(factory=list[tuple[int, int]])

    def learn(self, now: int, longest: int, *, lower: int, uncertainty: int, upper: int) -> int:
        """Note how many there are; return how many have come since the last count.

        Args:
            now: the moment.
            longest: the longest bucket's period.
            lower: how many there are at least; negative when ours are not all counted.
            uncertainty: how many more there may be.
            upper: how many there can be, at the first count.
        """
        while self.seen and self.seen[0][0] <= now - longest:
            self.since -= self.seen.pop(0)[1]
        lower -= self.since
        before = upper if self.before is None else self.before
        self.before = before = max(0, min(before, lower + uncertainty))
        news = lower - before
        if news <= 0:
            return 0
        self.since += news
        self.seen.append((now, news))
        return news


@attrs.define
class Pacing:
    """The policy while others spend, or after a refusal that our own requests do not explain: grant evenly.

    After the first refusal, requests go at the rate that was just accepted, which then doubles twice a
    period: the refusal may not come again. After another one, the rate that was accepted is the clean rate,
    which is taken to cause no refusals. Beyond it the rate grows slowly at first, and ever faster. How slowly
    is learned: others who spend evenly refuse at the same rate again, so each such refusal doubles the
    patience; after a burst of others the rate is another one, which halves the patience. Where not even the
    first request after a refusal is accepted, requests go more slowly, so that the server's count falls; not
    so where that count shows the others, whose requests take tokens out of the bucket.

    Beyond the full rate it grows slowly. A refusal there means that the server refuses bursts, and the next
    growth is half as fast.

    Attributes:
        interval: nanoseconds between two requests when the pacing began; None without pacing.
        clean: nanoseconds between two requests at the rate that is taken to be clean; fewer than at the full
            rate after a first refusal.
        patience: the factor that slows the growth beyond the clean rate.
        slowness: the factor that slows the growth beyond the full rate; 0 if nothing was refused.
        since: when requests began or begin to go at `interval`.
        next_at: when the next request may go.
        others_at: the last sign of others.
    """

    interval: float | None = None
    clean: float = 0.0
    patience: float = 1.0
    slowness: int = 0
    since: int = 0
    next_at: int = 0
    others_at: int = 0

    def opens_at(self, now: int) -> int:
        return now if self.interval is None else max(now, self.next_at)

    def grant(self, now: int, capacity: int, period: int, heard_at: int) -> None:
        """Note that a request goes now; end the pacing at its highest rate after a period without others."""
        if self.interval is None:
            return
        full = period / capacity
        shortest = self._shortest(now, full, period)
        interval = max(shortest, self._current(now, full, period))
        if interval == shortest and heard_at >= self.others_at + period:
            self.interval = None
            return
        # After a closing, the first requests may follow each other a little faster.
        self.next_at = max(self.next_at, now - period // BURST_PART) + round(interval)

    def are_others_here(self, now: int, period: int) -> bool:
        """Return whether the server's count has shown others within a period."""
        return self.interval is not None and now < self.others_at + period

    def expect_others(self, now: int, capacity: int, period: int) -> None:
        """Start pacing, since others are here, or may be."""
        self.others_at, self.slowness = now, 0
        if self.interval is None:
            self.interval = self.clean = period / capacity
            self.patience = 1.0
            self.next_at = self.since = now

    def learn_others(self, response: Response, news: int) -> int:
        """Start pacing if others sent `news` requests; return how many of them the shortest window counts."""
        if not news:
            return 0
        now, period = response.now, response.period
        self.expect_others(now, response.capacity, period)
        # If we heard nothing for long, theirs are taken to have come evenly in that time.
        return min(math.ceil(news * period / max(response.silence, period)), response.capacity)

    def learn(self, response: Response, accepted: int, closed_until: int, repeated: int) -> None:
        """Go on at the rate of the requests that the server had accepted when it refused this one.

        Args:
            response: the refusal.
            accepted: how many requests the server had accepted within a period.
            closed_until: when the next request may go.
            repeated: how many refusals came before this one since the last success.
        """
        capacity, now, period = response.capacity, response.now, response.period
        full, fewest = period / capacity, max(1, capacity // SLOWEST_PART)
        interval, pause = period / max(fewest, min(accepted, capacity)), 0.0
        if self.interval is None:
            self.clean, self.patience, self.slowness = full / BURST_RATE, 1.0, 1
        elif response.first and not repeated:
            explained = self.are_others_here(now, period)
            self._fall_back(self._current(now, full, period), interval, full, explained=explained)
        if self.clean < full:
            # While everything is refused, few are accepted at any rate.
            interval = self.interval if self.interval and repeated else min(interval, full * FIRST_PART)
        elif repeated and self.slowness:
            interval = max(interval, self.clean) / BACKOFF ** min(repeated, 60)
            pause = interval = min(interval, period / fewest)
        if response.first or self.interval is None or interval > self.interval:
            self.interval = interval
        self.since = closed_until if self.clean >= full else now
        self.next_at = closed_until + round(pause)

    def _fall_back(self, refused: float, accepted: float, full: float, *, explained: bool) -> None:
        """Change the clean rate after a refusal.

        Args:
            refused, accepted, full: the rates, as nanoseconds between two requests.
            explained: whether the requests of others explain the refusal.
        """
        is_same = abs(full / accepted - full / self.clean) * SAME_PART < 1.0
        self.patience = min(2 * self.patience, MOST_PATIENCE) if is_same else max(self.patience / 2, 0.5)
        if refused < full:
            self.slowness = min(max(1, 2 * self.slowness), SLOWEST_GROWTH)
        elif not explained:
            self.slowness = max(1, self.slowness)
        self.clean = accepted

    def _shortest(self, now: int, full: float, period: int) -> float:
        """Return the shortest interval: beside others, or if nothing was refused, that of the full rate."""
        return full if not self.slowness or now < self.others_at + period else full / BURST_RATE

    def _current(self, now: int, full: float, period: int) -> float:
        """Return the interval: soon the clean rate's, then ever faster the full one's, then slowly less."""
        interval, clean = self.interval or 0.0, self.clean
        periods = min(max(now - self.since, 0) / period, 60.0)
        if clean < full:  # the only refusal so far may have been passing
            return max(clean, interval / math.exp2(DOUBLINGS * periods))
        until_clean = math.log2(max(interval / clean, 1.0)) / RETURNS
        if periods < until_clean:
            return interval / math.exp2(RETURNS * periods)
        periods -= until_clean
        # On the way to the full rate the number of doublings is exponential in time; `patience` divides it.
        until_full = math.log2(1.0 + math.log2(clean / full) * self.patience / PROBES)
        if periods < until_full:
            return clean / math.exp2(PROBES * (math.exp2(periods) - 1.0) / self.patience)
        periods -= until_full
        return full / (1.0 + GROWTH * (math.exp2(periods / max(1, self.slowness)) - 1.0))


@attrs.define
class InFlight:
    """The policy that limits the requests in flight, so that few are refused at once.

    After a closing, and while nothing is known of what was spent before, one request goes first. Each success
    allows one more in flight, so that the number doubles with each round trip: 2, 4, 8 …. While others spend,
    or nothing is known of them yet, the limit is a part of what is left.

    Attributes:
        window: how many may be in flight; None for any number.
        starting: whether the limit is there because nothing is known, and not because of a refusal.
        last_at: when the last request was granted, while they were limited.
        cautious_until: the moment until which nothing is known of others.
        granted: the requests that the server may not have counted yet, and when they were granted.
    """

    window: int | None = None
    starting: bool = False
    last_at: int = 0
    cautious_until: int = 0
    granted: dict[int, int] = attrs.field(factory=dict[int, int])

    def copy(self) -> InFlight:
        return attrs.evolve(self, granted=dict(self.granted))

    def is_cautious(self, now: int, *, paced: bool) -> bool:
        return paced or now < self.cautious_until

    def opens_at(self, now: int, in_flight: int, left: int, heard_at: int, *, paced: bool) -> int | None:
        if self.window is not None and in_flight >= self.window:
            # A caller that takes several permits before the first response must not wait for ever.
            return max(now, self.last_at + round(COUNTED_WITHIN * _SECOND)) if self.starting else None
        if not self.is_cautious(now, paced=paced):
            self.granted.clear()
            return now
        counted_within = round(COUNTED_WITHIN * _SECOND)
        most = left // ALONE_PART
        if paced:
            most = left // SHARED_PART if now < heard_at + counted_within else 0
        granted = self.granted
        while granted and (oldest := next(iter(granted.items())))[1] <= now - counted_within:
            del granted[oldest[0]]
        if len(granted) < max(1, most):
            return now
        return next(iter(granted.values())) + counted_within

    def start(self) -> None:
        """Begin with one request in flight."""
        self.window, self.starting = 1, True

    def grant(self, now: int, serial: int) -> None:
        """Note that a request goes now."""
        self.granted[serial] = self.last_at = now

    def learn(self, response: Response) -> None:
        if response.report.refused:
            self.window, self.starting = 1, False
        elif response.first and self.window is not None:
            wide = self.window >= min(response.capacity, FULL_WIDTH)
            self.window = None if wide else self.window + 1
