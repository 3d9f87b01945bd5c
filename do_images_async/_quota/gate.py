"""The gate: hold requests back for what the server says of the quota, although tokens are free.

The quota belongs to the API token, and others may spend it: a previous run, a colleague, the control panel.
The gate can only make a limiter stricter. It asks four policies, and takes the latest moment:

- `Closing`: the server has refused a request.
- `Remaining`: the newest count of remaining requests, less those that the server may not have counted yet.
- `Pacing`: somebody else spends too, as the server's count or a refusal shows. Requests go out evenly.
- `InFlight`: few requests in flight after a closing, and while others spend or nothing is known of them.

Times are integer nanoseconds of one monotonic clock.
"""

from __future__ import annotations

import attrs

from do_images_async._quota.policies import (
    ALONE_PART,
    ROUNDING_PART,
    Closing,
    InFlight,
    Others,
    Pacing,
    Remaining,
    Response,
)
from do_images_async._quota.protocols import Report, Ticket

__all__ = ["Gate"]

_NEVER = 1 << 62


@attrs.define
class Gate:
    """The state of the four policies; the caller holds the lock.

    Args:
        capacity, period: the shortest bucket's capacity, and its period in nanoseconds.
        longest: the longest bucket's period.
        slow_start: whether one request goes first at the start, and after each period without responses.

    Attributes:
        silent_at: when a period without a response will have passed.
        heard_at: when the last response came; None before the first.
        quiet: whether only `Remaining` can hold a request back, as is the case for almost every request.
    """

    capacity: int
    period: int
    longest: int
    slow_start: bool = False
    closing: Closing = attrs.field(factory=Closing)
    remaining: Remaining = attrs.field(factory=Remaining)
    others: Others = attrs.field(factory=Others)
    pacing: Pacing = attrs.field(factory=Pacing)
    in_flight: InFlight = attrs.field(factory=InFlight)
    heard_at: int | None = None
    quiet: bool = True
    silent_at: int = _NEVER

    def __attrs_post_init__(self) -> None:
        if self.slow_start and self.heard_at is None:
            self.start_slowly()

    @property
    def is_pacing(self) -> bool:
        """Return whether requests go out evenly, since somebody else spends the quota too."""
        return self.pacing.interval is not None

    def copy(self) -> Gate:
        """Return a copy, on which grants can be tried without changing this gate."""
        return attrs.evolve(self, in_flight=self.in_flight.copy(), pacing=attrs.evolve(self.pacing))

    def opens_at(self, now: int, sent: int, in_flight: int, free: int) -> int | None:
        """Return when the next request may go: now or later; None when a response has to come first.

        Args:
            now: the moment.
            sent: requests granted so far, without those that were never sent.
            in_flight: how many of them have no response yet.
            free: tokens in the shortest bucket.
        """
        ceiling = self.remaining.ceiling
        if self.quiet and now < self.silent_at and (ceiling is None or sent < ceiling):
            return now
        if now >= self.silent_at:
            # Others may have spent the tokens that count as free here.
            self.in_flight.start()
            self.silent_at = _NEVER
        paced = self.pacing.are_others_here(now, self.period)
        left = free if ceiling is None else min(free, ceiling - sent)
        allowed = self.in_flight.opens_at(now, in_flight, left, self.heard_at or 0, paced=paced)
        probe = self.remaining.opens_at(now, sent, in_flight)
        if allowed is None or probe is None:
            return None
        opens = max(self.closing.opens_at(now), probe, self.pacing.opens_at(now), allowed)
        cautious = self.in_flight.is_cautious(now, paced=paced)
        self.quiet = opens == now and self.in_flight.window is None and not (cautious or self.is_pacing)
        return opens

    def earliest(self, now: int, sent: int, in_flight: int) -> int:
        """Return when the next request may go at the earliest, whatever the responses until then say."""
        probe = self.remaining.opens_at(now, sent, in_flight)
        due = max(self.closing.opens_at(now), now if probe is None else probe, self.pacing.opens_at(now))
        return due if in_flight else max(due, self._until_counted(now, sent))

    def _until_counted(self, now: int, sent: int) -> int:
        """Return until when requests that ended without a response hold back the next one.

        None is in flight. More tokens may come back until then.
        """
        ceiling = self.remaining.ceiling
        left = self.capacity if ceiling is None else min(self.capacity, ceiling - sent)
        paced = self.pacing.are_others_here(now, self.period)
        in_flight = self.in_flight.copy()  # a question changes nothing
        allowed = in_flight.opens_at(now, 0, left, self.heard_at or 0, paced=paced)
        others_until = self.pacing.others_at + self.period if paced else now
        return min(allowed or now, max(others_until, self.in_flight.cautious_until))

    def granted(self, now: int, serial: int) -> None:
        """Note that a request goes now."""
        if self.quiet:
            return
        self.in_flight.grant(now, serial)
        self.pacing.grant(now, self.capacity, self.period, self.heard_at or 0)

    def start_slowly(self) -> None:
        """Begin with one request in flight, since nothing is known of what was spent before."""
        self.in_flight.start()
        self.quiet = False

    def end_slow_start(self, needed: int, free: int) -> None:
        """Allow any number in flight if `needed` are more than may be while nothing is known of others.

        What is left of the longest window stays guarded: `free` are the tokens in the shortest bucket.
        """
        limit = self.in_flight
        if limit.starting and limit.window is not None and needed > limit.window:
            limit.window, limit.starting = None, False
        if needed > free // ALONE_PART:
            limit.cautious_until = 0

    def close(self, until: int) -> None:
        """Grant nothing before a moment."""
        self.quiet = False
        self.closing.close(until)

    def expect_others(self, now: int) -> None:
        """Go evenly for a period, since others may have spent what is not known here."""
        self.quiet = False
        self.pacing.expect_others(now, self.capacity, self.period)

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
        """Learn from a response; return how many requests of others it shows that were not known before.

        Args:
            now: the moment.
            ticket: which request it answers.
            report: what it says.
            latest: the serial of the request that was granted last.
            in_flight: how many requests have no response yet.
            outstanding: tokens that are not in the shortest bucket.
            spent: tokens that are not in the longest bucket.
        """
        response = self._response(now, ticket, report, latest)
        self.heard_at = now
        if self.slow_start:
            self.silent_at = now + self.period
        self.in_flight.granted.pop(ticket.serial, None)
        if response.silence > self.period // 2:
            self.pacing.others_at = now
        others = 0
        if ticket.serial > self.remaining.newest:
            self.remaining.newest = ticket.serial
            if not _is_the_minutes(report):
                self.remaining.learn(response)
                others = self._learn_others(response, in_flight, spent)
        self.closing.learn(response)
        self.in_flight.learn(response)
        if report.refused:
            self.quiet = False
            if not _is_the_longest(report):
                accepted = outstanding + others - (latest - ticket.serial)
                repeated = max(self.closing.refusals - 1, 0)
                self.pacing.learn(response, accepted, self.closing.until, repeated)
        return others

    def _response(self, now: int, ticket: Ticket, report: Report, latest: int) -> Response:
        silence = self.period + 1 if self.heard_at is None else now - self.heard_at
        first = ticket.serial > self.closing.serial
        return Response(
            now,
            ticket.serial,
            ticket.finished,
            report,
            latest,
            first,
            silence,
            self.capacity,
            self.period,
            self.longest,
        )

    def _learn_others(self, response: Response, in_flight: int, spent: int) -> int:
        """Return how many new requests of others count in the shortest window."""
        counted = response.report.counted
        if counted is None:
            return 0
        if response.silence > self.period:
            # At first, and after a period without responses, nothing is known of others.
            self.in_flight.cautious_until, self.quiet = response.now + self.period, False
        if response.report.remaining == 0:
            # It may be the count of the shortest window, which tells nothing of others in the longest.
            return 0
        news = self.others.learn(
            response.now,
            self.longest,
            lower=counted - spent,
            # Of ours, those in flight may not be counted yet, and the oldest may no longer be counted.
            uncertainty=in_flight + self.capacity // ROUNDING_PART,
            upper=counted - response.finished - 1,
        )
        others = self.pacing.learn_others(response, news)
        self.quiet = self.quiet and not news
        return others


def _is_the_longest(report: Report) -> bool:
    """Return whether a refusal may be of the longest window; then it does not say how long to wait."""
    return report.retry_after is None and not report.remaining and report.reset_in is not None


def _is_the_minutes(report: Report) -> bool:
    """Return whether `remaining` and `counted` speak of the shortest window, and tell nothing of the longest.

    The API's description says that a burst is refused with `retry-after`, and that `ratelimit-remaining` may
    be 0 then.
    """
    return report.refused and report.retry_after is not None and report.remaining == 0
