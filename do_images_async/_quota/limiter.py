"""The limiter in one process: it never sends more than a server with a sliding log allows.

A request takes one token from every bucket before it is sent. The token comes back one period after the
*response* arrived. So no window of one period on the server holds more than `capacity` requests, whatever the
latency, and no two clocks have to agree. Proof: take any such window, and the request in it that was granted
last. The server counts every other request of the window at a moment inside it, and each response came no
earlier than that. So none of their tokens was back when the last one was granted.

Times are integer nanoseconds of the monotonic clock: at the edge of a window, a float's rounding would break
the proof. Only waits, which may be late, are floats.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import itemgetter
from typing import NamedTuple, NoReturn
from weakref import WeakSet

import msgspec

from do_images_async._arguments import check_bool, check_callable, check_hook, check_seconds
from do_images_async._loop import running_loop
from do_images_async._quota.buckets import (
    DOCUMENTED,
    STARVED_PART,
    Level,
    TokenBucket,
    check_buckets,
    check_reserve,
)
from do_images_async._quota.gate import Gate
from do_images_async._quota.permits import GrantedPermit, PermitContext
from do_images_async._quota.protocols import LimiterStats, Permit, Report, Ticket
from do_images_async._quota.waiters import call_on_wait
from do_images_async.errors import QuotaWaitError

__all__ = ["RateLimiter"]

logger = logging.getLogger("do_images_async.quota")

_SECOND = 1_000_000_000
_NO_REPORT = Report()
_UNKNOWN_WAIT = 1.0  # seconds that a call is told if only a response can end its wait


class _Methods(msgspec.Struct, frozen=True):
    """The limiter's methods that take tokens back; see `Issuer`."""

    settled: Callable[[Ticket, Report | None], None]
    lost: Callable[[Ticket], None]
    released: Callable[[Ticket], None]


class _Waiting(NamedTuple):
    """A call that waits: its future, its reserve, and when it began to wait."""

    future: asyncio.Future[GrantedPermit]
    reserve: int
    since: int


class _Loop:
    """An event loop in which calls wait, or have a permit that they have not taken yet.

    Attributes:
        waiting: how many of its calls are in the queues.
        granted: what its calls were granted, until they run and take it: their reserve, when they began to
            wait, and the ticket.
        aside: its calls that are in no queue, since it was stopped.
        due, handle: its timer.
    """

    __slots__ = ("aside", "due", "granted", "handle", "loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting = 0
        self.granted: dict[asyncio.Future[GrantedPermit], tuple[int, int, Ticket]] = {}
        self.aside: list[_Waiting] = []
        self.due = 0
        self.handle: asyncio.TimerHandle | None = None

    def cancel_timer(self) -> None:
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None


class RateLimiter:
    """A limiter that grants permits so that no window of any bucket holds more requests than its capacity.

    Calls with the same reserve are served in the order in which they came, and a smaller reserve goes first.
    A steady load does not starve larger reserves for ever: one permit in eight goes to the call that has
    waited the longest for its reserve, once it has waited for a period of the shortest bucket.

    The limiter may be used from any number of event loops and threads. It has one timer in each loop in
    which calls wait, and none otherwise. A forked child shares the quota with its parent, and neither knows
    what the other does. If requests were made before the fork, the child starts with all buckets spent but
    the longest, of which it knows what the parent knew; its first call that waits for that logs a warning.

    Args:
        buckets: the limits that hold together; without any, the documented 250 a minute and 5,000 an hour.
        grace: seconds within which a request that was sent and never answered is assumed to have reached the
            server, if it ever does.
        on_wait: called when a call has to wait, with the seconds that it takes at the least. What it raises
            is logged and goes no further.
        slow_start: begin with one request in flight, then 2, 4, 8 … while they succeed (eight round trips to
            full width), and again after each silence of the shortest window: nobody knows what was spent
            before. It refuses no call: one whose `max_wait` has passed while tokens are free goes, and ends
            it. False where nobody else can have spent anything.
        clock: monotonic time in integer nanoseconds.

    Raises:
        TypeError, ValueError: an argument can't be used.
    """

    def __init__(
        self,
        *buckets: TokenBucket,
        grace: float = 120.0,
        on_wait: Callable[[float], None] | None = None,
        slow_start: bool = True,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        check_buckets(buckets)
        check_seconds(grace, "grace", zero=True)
        check_hook(on_wait, "on_wait")
        check_bool(slow_start, "slow_start")
        check_callable(clock, "clock")
        self.buckets: tuple[TokenBucket, ...] = buckets or DOCUMENTED
        self.on_wait: Callable[[float], None] | None = on_wait
        self._clock = clock
        self._grace = math.ceil(grace * _SECOND)
        # Everything below is used only with the lock held; nothing is awaited or called back meanwhile.
        self._lock = threading.Lock()
        self._levels = [Level(bucket) for bucket in self.buckets]
        self._shortest = min(self._levels, key=lambda level: level.period)
        self._longest = max(self._levels, key=lambda level: level.period)
        shortest, longest = self._shortest, self._longest
        self._gate = Gate(shortest.bucket.capacity, shortest.period, longest.period, slow_start=slow_start)
        self._issuer = _Methods(self._settled, self._take_lost, self._released)
        self._serial = 0
        self._disowned = 0
        self._forked = False  # a child that has not waited yet
        self._served_starved = 0
        self._granted = 0
        self._in_flight = 0
        self._finished = 0
        self._lost: deque[int] = deque()
        # One queue for each reserve. A future in it gets a Permit; its value is when it began to wait.
        self._queues: dict[int, OrderedDict[asyncio.Future[GrantedPermit], int]] = {}
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}
        _limiters.add(self)

    def __repr__(self) -> str:
        if not hasattr(self, "_loops"):
            return "<RateLimiter that could not be made>"
        stats = self.stats()
        limits = ", ".join(
            f"{free}/{bucket.capacity} per {bucket.per:g} s"
            for free, bucket in zip(stats.available, self.buckets, strict=True)
        )
        return f"<RateLimiter {limits}; {stats.in_flight} in flight, {stats.waiting} waiting>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a RateLimiter is neither pickled nor copied: it counts what this process sends; "
            "a FileRateLimiter or RedisRateLimiter counts for several"
        )

    async def acquire(self, *, max_wait: float | None = None, reserve: int = 0) -> Permit:
        """Wait for a permit and take it.

        Report what happened to the request: a permit that is dropped keeps its tokens. `permit` does it for a
        block.

        Args:
            max_wait: the longest wait, in seconds; None waits as long as it takes, 0 not at all.
            reserve: tokens that this call leaves in every bucket for calls without a reserve.

        Raises:
            QuotaWaitError: the wait would be longer than `max_wait`; at once where that is known, as long as
                nobody ahead gives up and no request in flight turns out to be unsent.
            TypeError, ValueError: `max_wait` is no number of seconds, or no bucket could ever hold `reserve`
                tokens and one more.
        """
        if max_wait is not None:
            check_seconds(max_wait, "max_wait", zero=True)
        if reserve != 0 or type(reserve) is not int:
            self.check_reserve(reserve)
        with self._lock:
            now = self._clock()
            if not self._queues:
                if max_wait == 0:
                    # This call can't wait for the responses to the first requests.
                    self._gate.end_slow_start(self._in_flight + 1, self._shortest.free)
                ticket = self._take(now, reserve)
                if ticket is not None:
                    return GrantedPermit(self._issuer, ticket)
            self._skip_stopped_loops()
            wait = self._shortest_wait(now, reserve) if max_wait is not None or self.on_wait else 0.0
            if max_wait is not None and wait > max_wait:
                raise QuotaWaitError(wait=wait, max_wait=max_wait)
            waiter, loop = self._enter(reserve, now)
        self._serve()
        if not waiter.done():
            self._report_wait_or_leave(wait, waiter, loop, reserve)
        while True:
            permit = await self._wait(waiter, loop, max_wait, reserve)
            with self._lock:
                if waiter in loop.granted:
                    self._take_over(waiter, loop)
                    return permit
                waiter, loop = self._enter(reserve, now)  # it was taken back while this loop was stopped
                self._sort(reserve)
            self._serve()

    def _report_wait(self, wait: float) -> None:
        if self._forked:
            self._forked = False
            logger.warning(
                "this process was forked from one that had sent requests, so it waits for %.0f s at first; "
                "a FileRateLimiter shares the quota of both",
                self.next_permit_in(),
            )
        if self.on_wait is not None:
            call_on_wait(self.on_wait, wait)

    def permit(self, *, max_wait: float | None = None, reserve: int = 0) -> PermitContext:
        """Return a context manager that acquires a permit: `async with limiter.permit() as permit:`.

        The block sends one request. At its end the permit is settled, or lost when the block raises, unless
        the block has settled, released or lost it itself.

        Args:
            max_wait, reserve: as in `acquire`, whose exceptions it raises.
        """
        return PermitContext(self, max_wait=max_wait, reserve=reserve)

    def check_reserve(self, reserve: int) -> None:
        """Raise ValueError or TypeError unless a call could ever leave `reserve` tokens in every bucket."""
        check_reserve(reserve, self.buckets)

    def start_spent(self, answered: Iterable[int], free: Sequence[int] | None = None) -> None:
        """Begin with empty buckets, as if all tokens had been spent just now, or when requests were answered.

        Args:
            answered: moments on the clock at which earlier requests were answered, or may still be.
            free: for each bucket, the tokens that surely were not spent; without it, none.
        """
        moments, left = tuple(answered), free or [0] * len(self._levels)
        with self._lock:
            now = self._clock()
            for level, unspent in zip(self._levels, left, strict=True):
                level.start_spent(moments, now, unspent)

    def close_for(self, seconds: float) -> None:
        """Grant nothing for so many seconds: the server has said that the quota is spent.

        Raises:
            TypeError, ValueError: `seconds` is no number, negative or not finite.
        """
        check_seconds(seconds, "seconds", zero=True)
        with self._lock:
            self._gate.close(self._clock() + math.ceil(seconds * _SECOND))
        self._serve()

    def next_permit_in(self) -> float:
        """Return the seconds until a new call is granted at the earliest; 0.0 if it need not wait."""
        with self._lock:
            self._skip_stopped_loops()
            return self._shortest_wait(self._clock(), 0)

    def stats(self) -> LimiterStats:
        """Return the counts at this moment."""
        with self._lock:
            now = self._clock()
            self._skip_stopped_loops()
            for level in self._levels:
                level.collect(now)
            return LimiterStats(
                granted=self._granted,
                in_flight=self._in_flight,
                waiting=sum(loop.waiting + len(loop.aside) for loop in self._loops.values()),
                available=tuple(max(0, level.free) for level in self._levels),
                pacing=self._gate.is_pacing,
            )

    @property
    def idle(self) -> bool:
        """Return whether all tokens are back and no call waits, as in a new limiter."""
        stats = self.stats()
        full = all(
            free == bucket.capacity for free, bucket in zip(stats.available, self.buckets, strict=True)
        )
        return full and not stats.waiting and not self.next_permit_in()

    def _settled(self, ticket: Ticket, report: Report | None) -> None:
        """Take a permit's tokens back after a response; see `Permit`."""
        with self._lock:
            if ticket.serial <= self._disowned:
                return
            now = self._clock()
            self._give_back(now, 0)
            self._finished += 1
            self._learn(now, ticket, _NO_REPORT if report is None else report)
        self._serve_if_waiting()

    def _take_lost(self, ticket: Ticket) -> None:
        """Take a permit's tokens back after a request that was never answered; see `Permit`."""
        with self._lock:
            if ticket.serial <= self._disowned:
                return
            now = self._clock()
            self._give_back(now, self._grace)
            self._lost.append(now + self._grace)
        self._serve_if_waiting()

    def _released(self, ticket: Ticket) -> None:
        """Take a permit's tokens back after a request that was never sent; see `Permit`."""
        with self._lock:
            self._put_back(ticket)
        self._serve_if_waiting()

    def _start_in_child(self) -> None:
        """Start again in a forked child, without the parent's calls; the parent may spend the free tokens."""
        self._lock = threading.Lock()
        for loop in self._loops.values():
            loop.granted.clear()
        self._queues, self._loops = {}, {}
        if not self._serial:
            return
        self._forked = True
        now = self._clock()
        for level in self._levels:
            if level is self._longest and level is not self._shortest:
                for _ in range(self._in_flight):
                    level.give_back(now + self._grace + level.period)
            else:
                level.start_spent((), now)
        self._lost.extend([now + self._grace] * self._in_flight)
        self._in_flight = 0
        self._disowned = self._serial

    def _learn(self, now: int, ticket: Ticket, report: Report) -> None:
        for level in self._levels:
            level.collect(now)  # what has come back no longer counts on the server either
        others = self._gate.answered(
            now,
            ticket,
            report,
            latest=self._serial,
            in_flight=self._in_flight,
            outstanding=self._shortest.bucket.capacity - self._shortest.free,
            spent=self._longest.bucket.capacity - self._longest.free,
        )
        if others:
            # For the longest window, the server's own count of remaining requests is used.
            for level in self._levels:
                if level is not self._longest:
                    level.spend(others, now)

    def _give_back(self, now: int, grace: int) -> None:
        self._in_flight -= 1
        for level in self._levels:
            level.give_back(now + grace + level.period)

    def _put_back(self, ticket: Ticket) -> None:
        if ticket.serial <= self._disowned:
            return
        self._in_flight -= 1
        self._granted -= 1
        for level in self._levels:
            level.free += 1

    def _serve_if_waiting(self) -> None:
        if self._queues:
            self._serve()

    def _enter(self, reserve: int, since: int) -> tuple[asyncio.Future[GrantedPermit], _Loop]:
        waiter: asyncio.Future[GrantedPermit] = running_loop().create_future()
        return waiter, self._queue(waiter, reserve, since)

    def _queue(self, waiter: asyncio.Future[GrantedPermit], reserve: int, since: int) -> _Loop:
        if reserve not in self._queues:
            self._queues[reserve] = OrderedDict()
        self._queues[reserve][waiter] = since
        key = waiter.get_loop()
        if key not in self._loops:
            self._loops[key] = _Loop(key)
        loop = self._loops[key]
        loop.waiting += 1
        return loop

    def _sort(self, reserve: int) -> None:
        """Order a queue anew, after a call that came earlier has returned to it."""
        self._queues[reserve] = OrderedDict(sorted(self._queues[reserve].items(), key=itemgetter(1)))

    async def _wait(
        self, waiter: asyncio.Future[GrantedPermit], loop: _Loop, max_wait: float | None, reserve: int
    ) -> GrantedPermit:
        if max_wait is None:
            try:
                return await waiter
            except BaseException:
                self._leave(waiter, loop, reserve)
                raise
        try:
            async with asyncio.timeout(max_wait):
                return await asyncio.shield(waiter)
        except TimeoutError:
            self._end_slow_start(reserve)
            if waiter.done():
                return waiter.result()
            self._leave(waiter, loop, reserve)
        except BaseException:
            self._leave(waiter, loop, reserve)
            raise
        with self._lock:
            raise QuotaWaitError(wait=max_wait + self._expected_wait(reserve), max_wait=max_wait)

    def _report_wait_or_leave(
        self, wait: float, waiter: asyncio.Future[GrantedPermit], loop: _Loop, reserve: int
    ) -> None:
        try:
            self._report_wait(wait)
        except BaseException:
            self._leave(waiter, loop, reserve)
            raise

    def _end_slow_start(self, reserve: int) -> None:
        """End a slow start that holds a call whose `max_wait` has passed, although tokens are free."""
        with self._lock:
            now = self._clock()
            for level in self._levels:
                level.collect(now)
            if any(level.free <= reserve for level in self._levels):
                return
            if self._opens_at(now) != now:
                self._gate.end_slow_start(self._in_flight + 1, self._shortest.free)
        self._serve()

    def _expected_wait(self, reserve: int) -> float:
        """Return the seconds until a new call is granted; more than 0 also where a response decides it."""
        now = self._clock()
        opens = self._opens_at(now) or now
        return self._shortest_wait(now, reserve) or (opens - now) / _SECOND or _UNKNOWN_WAIT

    def _opens_at(self, now: int) -> int | None:
        return self._gate.opens_at(now, self._granted, self._in_flight, self._shortest.free)

    def _leave(self, waiter: asyncio.Future[GrantedPermit], loop: _Loop, reserve: int) -> None:
        """Leave the queue; a permit that was granted meanwhile goes to the next call."""
        if loop.loop.is_closed():
            return  # the garbage collector ends the call, perhaps while this very thread holds the lock
        with self._lock:
            if waiter in self._queues.get(reserve, ()):
                self._remove(waiter, loop, reserve)
                self._forget_if_unused(loop)
            elif waiter.done() and waiter in loop.granted:
                self._put_back(self._take_over(waiter, loop))
        self._serve()
        waiter.cancel()  # a grant from another thread may be on its way, and must find nobody

    def _remove(self, waiter: asyncio.Future[GrantedPermit], loop: _Loop, reserve: int) -> None:
        queue = self._queues[reserve]
        del queue[waiter]
        if not queue:
            del self._queues[reserve]
        loop.waiting -= 1
        if not loop.waiting and loop.loop is _current_loop():
            loop.cancel_timer()

    def _forget_if_unused(self, loop: _Loop) -> None:
        if not (loop.waiting or loop.granted or loop.aside):
            self._loops.pop(loop.loop, None)

    def _take_over(self, waiter: asyncio.Future[GrantedPermit], loop: _Loop) -> Ticket:
        """Return what was granted to a call, which has it from now on."""
        *_, ticket = loop.granted[waiter]
        del loop.granted[waiter]
        if not loop.granted:
            self._forget_if_unused(loop)
        return ticket

    def _skip_stopped_loops(self) -> None:
        """Set the calls aside whose loops do not run, and take back permits that they have not taken.

        When their loop runs again, they return to their places. Calls in closed loops are dropped.
        """
        for loop in tuple(self._loops.values()):
            if loop.loop.is_running():
                continue
            was_known = bool(loop.aside)
            for waiter, (reserve, since, ticket) in loop.granted.items():
                self._put_back(ticket)
                if not waiter.done():
                    loop.aside.append(_Waiting(waiter, reserve, since))
            loop.granted.clear()
            if loop.waiting:
                self._set_aside(loop)
            if loop.aside and not was_known:
                _call_in(loop.loop, partial(self._queue_again, loop))
            if not loop.aside or loop.loop.is_closed():
                del self._loops[loop.loop]

    def _set_aside(self, loop: _Loop) -> None:
        for reserve, queue in list(self._queues.items()):
            for waiter in [each for each in queue if each.get_loop() is loop.loop]:
                loop.aside.append(_Waiting(waiter, reserve, queue.pop(waiter)))
            if not queue:
                del self._queues[reserve]
        loop.waiting = 0

    def _queue_again(self, loop: _Loop) -> None:
        """Put the calls of a loop that runs again, in this thread, back into their queues."""
        loop.cancel_timer()
        with self._lock:
            calls, loop.aside = [call for call in loop.aside if not call.future.done()], []
            for call in calls:
                self._queue(*call)
            for reserve in {call.reserve for call in calls}:
                self._sort(reserve)
            self._forget_if_unused(loop)
        self._serve()

    def _take(self, now: int, reserve: int) -> Ticket | None:
        """Take a token from every bucket, or from none."""
        levels = self._levels
        for level in levels:
            if level.returns and level.returns[0] <= now:
                level.collect(now)
            if level.free <= reserve:
                return None
        if self._opens_at(now) != now:
            return None
        for level in levels:
            level.free -= 1
        self._granted += 1
        self._in_flight += 1
        self._serial += 1
        self._gate.granted(now, self._serial)
        while self._lost and self._lost[0] <= now:
            self._lost.popleft()
            self._finished += 1
        return Ticket(self._serial, self._finished)

    def _serve(self) -> None:
        """Grant the permits that can be granted, and set the timers of all loops for the next change."""
        while True:
            with self._lock:
                now = self._clock()
                self._skip_stopped_loops()
                granted = self._grant(now)
                late = self._set_alarms(now)
            # Where a loop has been closed since, somebody else may have the permit.
            if all([self._hand_over(*each) for each in granted]):  # noqa: C419  (each of them, in any case)
                break
        for loop in late:
            _call_in(loop, self._serve)

    def _grant(self, now: int) -> list[tuple[asyncio.Future[GrantedPermit], Ticket, _Loop]]:
        granted: list[tuple[asyncio.Future[GrantedPermit], Ticket, _Loop]] = []
        while self._queues:
            reserve = min(self._queues)
            waiter = next(iter(self._queues[reserve]))
            # A waiter that was cancelled in this turn of its loop has not left the queue yet.
            ticket = None
            if not waiter.done():
                ticket = self._take(now, reserve)
                if ticket is None:
                    break
                if ticket.serial >= self._served_starved + STARVED_PART:
                    starved = self._longest_starved(now, reserve)
                    if starved is not None:
                        self._served_starved = ticket.serial
                        reserve, waiter = starved
            since = self._queues[reserve][waiter]
            loop = self._loops[waiter.get_loop()]
            self._remove(waiter, loop, reserve)
            if ticket is None:
                self._forget_if_unused(loop)
            else:
                loop.granted[waiter] = reserve, since, ticket
                granted.append((waiter, ticket, loop))
        return granted

    def _longest_starved(self, now: int, above: int) -> tuple[int, asyncio.Future[GrantedPermit]] | None:
        """Return the call with a larger reserve that has waited the longest, if it has waited a period."""
        starved: tuple[int, asyncio.Future[GrantedPermit]] | None = None
        oldest = now - self._shortest.period
        for reserve in sorted(self._queues):
            if reserve <= above:
                continue
            waiting = (
                (waiter, since) for waiter, since in self._queues[reserve].items() if not waiter.done()
            )
            waiter, since = next(waiting, (None, now))
            if waiter is not None and (since < oldest or (since == oldest and starved is None)):
                starved, oldest = (reserve, waiter), since
        return starved

    def _hand_over(self, waiter: asyncio.Future[GrantedPermit], ticket: Ticket, loop: _Loop) -> bool:
        """Give a waiter its permit in its own loop; return False if that loop is closed."""
        if loop.loop is not _current_loop():
            return _call_in(loop.loop, lambda: self._arrive(waiter, loop))
        waiter.set_result(GrantedPermit(self._issuer, ticket))
        return True

    def _arrive(self, waiter: asyncio.Future[GrantedPermit], loop: _Loop) -> None:
        with self._lock:
            if waiter not in loop.granted:
                return  # taken back while this loop was stopped, or granted by the parent of a forked child
            if not waiter.cancelled():
                if not waiter.done():  # what was taken back and granted again is announced twice
                    *_, ticket = loop.granted[waiter]
                    waiter.set_result(GrantedPermit(self._issuer, ticket))
                return
            self._put_back(self._take_over(waiter, loop))
        self._serve_if_waiting()

    def _set_alarms(self, now: int) -> Iterable[asyncio.AbstractEventLoop]:
        """Set the timer of this thread's loop; return the other loops that must set theirs."""
        due = self._next_change(now)
        if due is None:
            if not self._queues or not any(loop.granted for loop in self._loops.values()):
                return ()
            due = now + _SECOND  # to see whether a loop has stopped whose calls have not taken their permits
        here = _current_loop()
        late: list[asyncio.AbstractEventLoop] = []
        for loop in self._loops.values():
            if not loop.waiting or (loop.handle is not None and loop.due == due):
                continue
            if loop.loop is here:
                loop.cancel_timer()
                loop.due = due
                loop.handle = loop.loop.call_later((due - now) / _SECOND, self._wake, loop)
            elif loop.handle is None or loop.due > due:
                late.append(loop.loop)
        return late

    def _wake(self, loop: _Loop) -> None:
        # The loop's clock may be a little ahead of ours: `_serve` looks, and sets the alarm again.
        with self._lock:
            loop.handle = None
        self._serve()

    def _next_change(self, now: int) -> int | None:
        """Return when the next call may be granted; None if none waits or a response must come first."""
        if not self._queues:
            return None
        reserve = min(self._queues)
        due = self._opens_at(now)
        if due is None:
            return None
        for level in self._levels:
            if level.free > reserve:
                continue
            back = level.next_return()
            if back is None:
                return None
            due = max(due, back)
        return due

    def _shortest_wait(self, now: int, reserve: int) -> float:
        """Return the seconds until a new call can be granted at the earliest; see `Level.earliest`."""
        for level in self._levels:
            level.collect(now)
        ahead = sum(len(queue) for other, queue in self._queues.items() if other <= reserve)
        due = max(level.earliest(ahead + reserve + 1, now) for level in self._levels)
        if reserve:
            # After a period it may get the next token, whatever it leaves and whoever is ahead.
            starved = max(level.earliest(1, now) for level in self._levels)
            due = min(due, max(starved, now + self._shortest.period))
        return (max(due, self._gate.earliest(now, self._granted, self._in_flight)) - now) / _SECOND


_limiters: WeakSet[RateLimiter] = WeakSet()


def _start_in_child() -> None:
    for limiter in list(_limiters):
        limiter._start_in_child()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (not for users)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_in_child)


def _current_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> bool:
    """Call back in another thread's loop; return False if that loop is closed."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return False
    return True
