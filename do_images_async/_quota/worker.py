"""A worker's side of a quota that several processes share: its calls, its exchanges, and its failover.

At most one exchange is under way at a time. It carries everything that has happened since the last one, so
that under load one round trip serves many requests. The store says when it is worth asking again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import uuid
from collections import deque
from collections.abc import Callable
from typing import Literal

import attrs

from do_images_async._arguments import check_bool, check_choice, check_hook, check_seconds
from do_images_async._loop import running_loop
from do_images_async._quota.buckets import DOCUMENTED, STARVED_PART, TokenBucket, check_buckets, check_reserve
from do_images_async._quota.clock import clock_ns
from do_images_async._quota.failover import Failover
from do_images_async._quota.permits import GrantedPermit
from do_images_async._quota.protocols import LimiterStats, Permit, Report, Ticket
from do_images_async._quota.store import Answered, Exchange, Reply, Store, microseconds
from do_images_async._quota.waiters import AskAgainError, Waiter, Waiters
from do_images_async.errors import ClientStateError, QuotaStoreError

__all__ = ["Worker", "WorkerOptions"]

logger = logging.getLogger("do_images_async.quota")
_SECOND = 1_000_000_000
_FLUSH = 0.05  # seconds that a report may wait for others
_RETRY = 1.0  # seconds between two attempts to reach a store that has failed
_SOONEST = 0.25  # seconds after which a store that waits for responses wants to be asked again


@attrs.frozen(kw_only=True)
class WorkerOptions:
    """The options of the limiters over a store; see `RedisRateLimiter`.

    Raises:
        TypeError, ValueError: an option can't be used.
    """

    buckets: tuple[TokenBucket, ...] = DOCUMENTED
    on_store_failure: Literal["raise", "local"] = "raise"
    lease: float = 10.0
    grace: float = 120.0
    store_timeout: float = 2.0
    on_wait: Callable[[float], None] | None = None
    slow_start: bool = True

    def __attrs_post_init__(self) -> None:
        check_buckets(self.buckets)
        check_choice(self.on_store_failure, "on_store_failure", ("raise", "local"))
        check_seconds(self.lease, "lease")
        check_seconds(self.grace, "grace", zero=True)
        check_seconds(self.store_timeout, "store_timeout")
        check_hook(self.on_wait, "on_wait")
        check_bool(self.slow_start, "slow_start")


@attrs.define(eq=False)
class _Spent:
    """A request of a worker that has ended.

    Attributes:
        moment: when it was answered, or would have been at the latest.
        told: when the store had confirmed that it knows; None before.
    """

    moment: int
    told: int | None = None


@attrs.define(eq=False)
class _Membership:
    """The name under which the store knows a worker, and the issuer of the permits granted under it."""

    _worker: Worker
    name: str = attrs.field(factory=lambda: uuid.uuid4().hex)

    def settled(self, ticket: Ticket, report: Report | None) -> None:
        self._worker.settled(self, ticket, report or Report())

    def released(self, _ticket: Ticket) -> None:
        self._worker.released(self)

    def lost(self, _ticket: Ticket) -> None:
        self._worker.lost(self)


class Worker:
    """A limiter for one event loop of one process whose tokens are in a store.

    Args:
        store: keeps the quota.
        options: how it is kept.
        blind: whether "local" also holds for a store that was never reached; see `Failover`.
        finish: called when the program ends its event loop, which cancels what runs in it.
    """

    def __init__(
        self,
        store: Store,
        options: WorkerOptions,
        *,
        blind: bool = False,
        finish: Callable[[Worker], None] | None = None,
    ) -> None:
        self.buckets = options.buckets
        self._options = options
        self._store = store
        self._finish = finish
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters = Waiters(options.on_wait)
        self._failover = Failover(
            options.buckets,
            allowed=options.on_store_failure == "local",
            blind=blind,
            grace=options.grace,
            on_wait=options.on_wait,
            note=self._note_elsewhere,
        )
        # Reported at the next exchange.
        self._answered: list[Answered] = []
        self._lost = 0
        self._unsent = 0
        self._elsewhere: list[_Spent] = []
        self._settling = False
        # State of the membership in the store.
        self._membership = _Membership(self)
        self._epoch = ""
        self._seen = 0
        self._promoted = 0
        self._joined = False
        self._unconfirmed: Exchange | None = None
        self._number = 0
        self._last: Reply | None = None
        self._heard_at = 0.0
        self._lease_ends = 0
        # The requests of this worker that may count in the longest period.
        self._log: deque[_Spent] = deque(maxlen=max(bucket.capacity for bucket in self.buckets))
        self._untold: list[_Spent] = []
        self._telling: list[_Spent] = []
        self._granted = 0
        self._in_flight = 0
        self._due = math.inf
        self._earliest = 0.0
        self._flush_at = math.inf
        self._renew_at = math.inf
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._closed = False

    async def acquire(self, *, max_wait: float | None = None, reserve: int = 0) -> Permit:
        """Wait for a permit and take it; see `RedisRateLimiter.acquire`."""
        if max_wait is not None:
            check_seconds(max_wait, "max_wait", zero=True)
        check_reserve(reserve, self.buckets)
        loop = self._bind()
        deadline = math.inf if max_wait is None else loop.time() + max_wait
        while True:
            if self._failover.active:
                self._start_pump()
                left = None if max_wait is None else max(0.0, deadline - loop.time())
                permit = await self._failover.acquire(max_wait=left, reserve=reserve)
            else:
                waiter = Waiter(loop.create_future(), reserve, max_wait, deadline, since=loop.time())
                self._waiters.add(waiter)
                self._start_pump()
                permit = await self._waiters.wait(waiter)
                if permit is not None and not self._holds_lease(permit):
                    # The process was stopped for so long that the store may have given the token away.
                    permit.release()
                    permit = None
            if permit is not None:
                return permit
            if self._closed:
                raise ClientStateError("the limiter was closed while the call waited")

    def next_permit_in(self) -> float:
        """Return the seconds until a call is granted, at the earliest; see `RedisRateLimiter`."""
        if self._failover.active:
            return self._failover.next_permit_in()
        if self._last is None or self._loop is None:
            return 0.0
        return max(0.0, self._heard_at + self._last.opens_in - self._loop.time())

    def stats(self) -> LimiterStats:
        """Return this worker's counts; `available` and `pacing` are everybody's, as last heard."""
        local = self._failover.stats()
        last = self._last
        return LimiterStats(
            granted=self._granted,
            in_flight=self._in_flight + (local.in_flight if local else 0),
            waiting=len(self._waiters) + (local.waiting if local else 0),
            available=last.free if last else tuple(bucket.capacity for bucket in self.buckets),
            pacing=last is not None and last.pacing,
        )

    def check_open(self) -> None:
        """Raise `ClientStateError` if the limiter is closed."""
        if self._closed:
            raise ClientStateError("the limiter is closed")

    async def aclose(self) -> None:
        """Send the reports that are left to the store, and stop, within `store_timeout`.

        Nothing here depends on a cancellation: the code that is awaited may swallow it.
        """
        self._closed = True
        self._waiters.fail(ClientStateError("the limiter was closed while the call waited"))
        self._failover.end()
        if self.has_reports:
            self._start_pump()
        self._wake.set()
        pump = self._pump
        if pump is None or self._loop is not asyncio.get_running_loop():
            return
        try:
            await asyncio.wait([pump], timeout=self._options.store_timeout)
        finally:
            pump.cancel()

    def finish(self, carry_out: Callable[[Exchange], Reply]) -> None:
        """Send the reports that are left to the store without an event loop, which has ended or is about to.

        Requests in flight are reported as lost.

        Args:
            carry_out: does what `Store.exchange` does, and raises what that raises.
        """
        self._closed = True
        unconfirmed, self._unconfirmed = self._unconfirmed, None
        if unconfirmed is not None:
            reply = carry_out(unconfirmed)
            self._unsent += sum(map(len, reply.tickets.values()))
        for _ in range(self._in_flight):
            self._note_lost()
        self._lost, self._in_flight = self._lost + self._in_flight, 0
        if self.has_reports:
            sent, reply = clock_ns(), carry_out(self._compose())
            if reply.lost:
                self._report_what_was_lost(reply, sent)
                carry_out(self._compose())
        self._membership = _Membership(self)  # what is reported from now on comes too late

    def _holds_lease(self, permit: GrantedPermit) -> bool:
        """Return whether the lease of a permit lasts, as far as the store has promised."""
        return permit.issuer is self._membership and clock_ns() < self._lease_ends

    # Reports of permits.

    def settled(self, membership: _Membership, ticket: Ticket, report: Report) -> None:
        now = clock_ns()
        self._note_spent(now)
        if membership is self._membership:
            self._in_flight -= 1
            self._answered.append(Answered.of(ticket, report, now // 1000))
            self._flush_soon()
            if report.refused or (self._last is not None and self._last.pacing):
                # All workers must hear of it before they send more.
                self._flush_at = 0.0
                self._wake.set()

    def released(self, membership: _Membership) -> None:
        if membership is self._membership:
            self._in_flight -= 1
            self._granted -= 1
            self._unsent += 1
            self._flush_soon()

    def lost(self, membership: _Membership) -> None:
        self._note_lost()
        if membership is self._membership:
            self._in_flight -= 1
            self._lost += 1
            self._flush_soon()

    def _note_elsewhere(self, answered: int) -> None:
        """Note a request that was made without the store."""
        self._granted += 1
        spent = _Spent(answered)
        self._log.append(spent)
        self._elsewhere.append(spent)

    def _note_spent(self, moment: int) -> None:
        spent = _Spent(moment)
        self._log.append(spent)
        self._untold.append(spent)

    def _note_lost(self) -> None:
        """Note a request that got no response: it counts as answered when the grace is over."""
        self._note_spent(clock_ns() + round(self._options.grace * _SECOND))

    # The exchanges.

    def _bind(self) -> asyncio.AbstractEventLoop:
        loop = running_loop()
        self.check_open()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ClientStateError("the limiter belongs to another event loop; make one for each loop")
        return loop

    @property
    def has_reports(self) -> bool:
        """Return whether something has happened that the store has not confirmed yet."""
        return bool(self._answered or self._lost or self._unsent or self._elsewhere or self._unconfirmed)

    @property
    def _busy(self) -> bool:
        if self._closed:
            return self.has_reports
        return bool(self._waiters or self._in_flight or self.has_reports or self._failover.busy)

    def _start_pump(self) -> None:
        self._wake.set()
        if self._pump is None and self._loop is not None and not self._loop.is_closed():
            self._pump = self._loop.create_task(self._run_exchanges())

    def _flush_soon(self) -> None:
        if self._flush_at == math.inf and self._loop is not None and not self._loop.is_closed():
            self._flush_at = self._loop.time() + _FLUSH
            if not self._closed:
                self._start_pump()

    async def _run_exchanges(self) -> None:
        try:
            while self._busy:
                await self._rest()
                if self._busy and not await self._exchange():
                    return
        except asyncio.CancelledError:
            if self._finish is not None and not self._closed:
                self._finish(self)
            raise
        finally:
            self._pump = None

    async def _rest(self) -> None:
        """Sleep until there is a reason for an exchange, or nothing left to do."""
        loop = asyncio.get_running_loop()
        while self._busy and not self._closed:
            self._wake.clear()
            due = self._next_exchange_at(loop.time())
            if due <= loop.time():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None if due == math.inf else due):
                    await self._wake.wait()

    def _next_exchange_at(self, now: float) -> float:
        if self._failover.active:
            return self._failover.retry_at
        due = min(self._flush_at, self._renew_at if self._in_flight else math.inf)
        if not self._waiters:
            return due
        if not self._waiters.inform_newcomers(self._due, self._earliest, now):
            return now
        return min(due, self._due, self._waiters.first_deadline())

    async def _exchange(self) -> bool:
        """Make one exchange; return whether to go on."""
        exchange = self._unconfirmed = self._unconfirmed or self._compose()
        sent = clock_ns()
        try:
            reply = await self._store.exchange(exchange)
        except QuotaStoreError as error:
            return self._start_failover(error)
        except Exception as error:  # noqa: BLE001  (calls that wait raise it, not the event loop)
            self._unconfirmed = None
            self._waiters.fail(error)
            return False
        self._unconfirmed = None
        if reply.lost:
            self._report_what_was_lost(reply, sent)
        elif reply.gone:
            self._join_again()
        else:
            self._joined, self._epoch = True, reply.epoch
            if not self._seen:
                # What was granted before this worker joined is no turn of its calls.
                self._promoted = reply.serial
            self._seen = max(self._seen, reply.serial)
            self._lease_ends = sent + round(self._options.lease * _SECOND)
            del self._elsewhere[: len(exchange.elsewhere)]
            told = clock_ns()
            for spent in self._telling:
                spent.told = told
            self._hand_out(reply)
        if self._failover.end():
            self._settling = True
        if self.has_reports:
            self._flush_soon()
        return True

    def _compose(self) -> Exchange:
        now = clock_ns()
        # The store gave up what an idle worker had, nothing, when its lease ended: that is no loss.
        idle = not (self._in_flight or self._answered or self._lost or self._unsent)
        self._number += 1
        if self._loop is not None:
            self._waiters.mark_last(self._loop.time())
        exchange = Exchange(
            number=str(self._number),
            worker=self._membership.name,
            epoch=self._epoch,
            seen=self._seen,
            new_epoch=uuid.uuid4().hex,
            joined=self._joined and not idle,
            holds=self._in_flight + len(self._answered) + self._lost + self._unsent,
            answered=self._answered,
            lost=self._lost,
            unsent=self._unsent,
            elsewhere=[(now - spent.moment) // 1000 for spent in self._elsewhere],
            settling=microseconds(2 * _RETRY) if self._settling else 0,
            wants=[] if self._closed else self._wants(),
            at_once=self._loop is not None and self._waiters.is_impatient(_SOONEST),
            slow_start=self._options.slow_start,
            clock=now // 1000,
            jitter=random.random(),  # noqa: S311  (for a wait)
            buckets=sorted(
                ((bucket.capacity, microseconds(bucket.period)) for bucket in self.buckets),
                key=lambda bucket: bucket[1],
            ),
            lease=microseconds(self._options.lease),
            grace=microseconds(self._options.grace),
        )
        self._telling, self._untold = [*self._untold, *self._elsewhere], []
        self._answered, self._lost, self._unsent = [], 0, 0
        self._settling = False
        self._flush_at = math.inf
        return exchange

    def _wants(self) -> list[tuple[int, int]]:
        """Return the permits that calls wait for, by reserve; see `Waiters.promote` for starved calls."""
        every = STARVED_PART
        if self._last is not None:
            # The workers with such calls share the eighth; beside others, half of their own permits at most.
            every *= max(1, self._last.reserving)
            if not all(reserve for reserve, _ in self._waiters.wants()):
                every = max(every, 2 * self._last.workers)
        if (turns := (self._seen - self._promoted) // every) > 0:
            before = asyncio.get_running_loop().time() - min(bucket.period for bucket in self.buckets)
            starved = self._waiters.promote(turns, before)
            self._promoted = self._promoted + turns * every if starved else self._seen
        return self._waiters.wants()

    def _hand_out(self, reply: Reply) -> None:
        now = asyncio.get_running_loop().time()
        self._last, self._heard_at = reply, now
        self._renew_at = now + self._options.lease / 3
        self._due = math.inf if reply.wait is None else now + reply.wait
        for reserve, tickets in reply.tickets.items():
            permits = [GrantedPermit(self._membership, ticket) for ticket in tickets]
            self._granted += len(permits)
            self._in_flight += len(permits)
            for permit in self._waiters.grant(reserve, permits):
                permit.release()
        self._earliest = now + reply.at_least
        if reply.wait is not None:
            self._waiters.inform(reply.wait, reply.at_least, now)

    def _report_what_was_lost(self, reply: Reply, sent: int) -> None:
        """Prepare to report the recent requests that a store does not know, or no longer.

        Args:
            reply: what the store has lost.
            sent: when the exchange was sent, which it has not carried out.
        """
        known = 0 if reply.age is None else sent - round(reply.age * _SECOND)
        self._epoch, self._joined, self._settling = reply.epoch, False, reply.age is None
        self._seen = 0
        self._answered, self._lost, self._unsent, self._untold = [], 0, 0, []
        self._elsewhere = [spent for spent in self._log if spent.told is None or spent.told > known]
        self._due = math.inf

    def _join_again(self) -> None:
        """Start under a new name: the store has removed this worker and counts its requests as lost."""
        self._membership, self._joined = _Membership(self), False
        self._answered, self._lost, self._unsent, self._in_flight = [], 0, 0, 0
        self._lease_ends = 0
        self._due = math.inf

    def _moments(self) -> list[int]:
        return [spent.moment for spent in self._log]

    def _start_failover(self, error: QuotaStoreError) -> bool:
        """Start the failover, or raise the error in the calls that wait; return whether to go on."""
        now = asyncio.get_running_loop().time()
        shared = not self._failover.active
        if error.refused:
            self._failover.end()
        if (
            self._closed
            or error.refused
            or not self._failover.begin(self._last, now - self._heard_at, self._moments(), self._in_flight)
        ):
            self._waiters.fail(error)
            return False
        if shared:
            logger.warning("the quota is not shared with others: %s", error.reason)
        self._failover.retry_at = now + _RETRY
        self._waiters.fail(AskAgainError())
        return self._failover.busy
