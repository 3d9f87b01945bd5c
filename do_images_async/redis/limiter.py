"""A worker's side of a quota that lives in Redis: who waits here, what goes there, and what if it can't.

At most one exchange is under way at a time. It carries everything that has happened since the last one, so
that under load one round trip serves many requests. The store says when it is worth asking again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

import attrs
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from do_images_async._arguments import check_callable, check_seconds, check_text
from do_images_async._credentials import read_token
from do_images_async._quota.buckets import DOCUMENTED, TokenBucket, check_buckets, check_reserve
from do_images_async._quota.protocols import LimiterStats, Permit, Report, Ticket
from do_images_async.errors import ClientStateError, QuotaStoreError, QuotaWaitError
from do_images_async.redis.share import LocalShare
from do_images_async.redis.store import Answered, Exchange, Reply, Store, microseconds

__all__ = ["RedisRateLimiter"]

_SECOND = 1_000_000_000
_FLUSH = 0.05  # seconds that an answer may wait for company
_RETRY = 1.0  # seconds between two looks for a store that has failed


@attrs.define(eq=False)
class _Waiter:
    """A call that waits for a permit."""

    future: asyncio.Future[_Permit]
    reserve: int
    max_wait: float | None
    deadline: float
    told: bool = False


@attrs.define(eq=False)
class _Permit:
    """The right to send one request, under the lease of the membership that it was granted to."""

    _limiter: RedisRateLimiter | None
    ticket: Ticket
    membership: str

    def settle(self, report: Report | None = None) -> None:
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.settled(self.membership, self.ticket, report or Report())

    def release(self) -> None:
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.released(self.membership)

    def lose(self) -> None:
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.lost(self.membership)


class RedisRateLimiter:
    """A `RateLimiter` whose tokens lie in Redis, for all processes and machines that spend one API token.

    The guarantee is the same: as the server counts, no window of any bucket ever holds more requests than its
    capacity, whichever worker sent them. Redis' own clock counts; the workers' need not agree. Workers that
    wait get equal shares. The tokens of a worker that has died come back when its lease has ended and, after
    that, the grace and the bucket's period have passed.

    Use it in one event loop, and close it (`aclose`, or as an async context manager) after the last call.

    Args:
        redis: a client of redis-py's asyncio kind; it stays yours to close.
        token: the API token whose quota it is. Only a digest of it is kept, here and in the keys.
        buckets: the limits that hold together; without any, the documented 250 a minute and 5,000 an hour.
            All workers of a token must name the same.
        on_store_failure: what a call gets while Redis can't be reached: "raise" a `QuotaStoreError`, or
            "local": an equal share of the quota among the workers that were last seen.
        lease: seconds after which a worker that has not been heard of counts as dead; renewed in the
            background as long as requests are under way.
        grace: as in `RateLimiter`.
        store_timeout: seconds for one exchange with Redis.
        namespace: what every key in Redis begins with.
        on_wait: called when a call has to wait, with the seconds that it takes at the least.

    Raises:
        TypeError, ValueError: the token or another argument can't be used.
    """

    def __init__(
        self,
        redis: Redis,
        token: str,
        *buckets: TokenBucket,
        on_store_failure: Literal["raise", "local"] = "raise",
        lease: float = 10.0,
        grace: float = 120.0,
        store_timeout: float = 2.0,
        namespace: str = "do-images",
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        secret = read_token(token)
        if isinstance(secret, Exception):
            raise secret
        # A cluster's client or a wrapper will do. What else is passed may be a URL with a password in it.
        if isinstance(redis, SyncRedis) or not callable(getattr(redis, "register_script", None)):
            raise TypeError(f"redis must be a client of redis.asyncio, not a {type(redis).__name__}")
        check_buckets(buckets)
        if on_store_failure not in ("raise", "local"):
            raise ValueError(f'on_store_failure must be "raise" or "local", not {on_store_failure!r}')
        check_seconds(lease, "lease")
        check_seconds(grace, "grace", zero=True)
        check_seconds(store_timeout, "store_timeout")
        check_text(namespace, "namespace")
        check_callable(on_wait, "on_wait", optional=True)
        self.buckets: tuple[TokenBucket, ...] = buckets or DOCUMENTED
        self.on_wait = on_wait
        self._lasting = on_store_failure == "local"
        self._lease = lease
        self._grace = grace
        self._store = Store(redis, f"{namespace}:{{{secret.digest()}}}", self.buckets, store_timeout)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[_Waiter, None] = {}
        # What is to be told at the next exchange.
        self._answered: list[Answered] = []
        self._lost = 0
        self._unsent = 0
        self._elsewhere: list[int] = []
        self._settling = False
        # What the store is known to know.
        self._worker = uuid.uuid4().hex
        self._epoch = ""
        self._joined = False
        self._unconfirmed: Exchange | None = None
        self._number = 0
        self._last: Reply | None = None
        self._lease_ends = 0
        # When the requests of this worker were answered, as far as the longest period goes back.
        self._log: deque[int] = deque(maxlen=max(bucket.capacity for bucket in self.buckets))
        self._granted = 0
        self._in_flight = 0
        self._share: LocalShare | None = None
        self._due = math.inf
        self._flush_at = math.inf
        self._renew_at = math.inf
        self._wake = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        stats = self.stats()
        limits = ", ".join(f"{bucket.capacity} per {bucket.per:g} s" for bucket in self.buckets)
        return f"<RedisRateLimiter {limits}; {stats.in_flight} in flight, {stats.waiting} waiting>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Tell the store what it has not heard yet, and stop; calls that wait raise `ClientStateError`."""
        self._closed = True
        self._fail_waiting(ClientStateError("the limiter was closed while the call waited"))
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        if self._untold:
            # Without it the lease would end: what is lost is time.
            with contextlib.suppress(QuotaStoreError):
                await self._store.exchange(self._unconfirmed or self._compose())

    async def acquire(self, *, max_wait: float | None = None, reserve: int = 0) -> Permit:
        """Wait for a permit and take it.

        Args:
            max_wait: the longest wait, in seconds; None waits as long as it takes, 0 not at all.
            reserve: tokens that this call leaves in every bucket for calls without a reserve.

        Raises:
            QuotaWaitError: the wait would be longer than `max_wait`; at once where the store can tell.
            QuotaStoreError: Redis can't be reached, and `on_store_failure` is "raise".
            ClientStateError: the limiter is closed, or belongs to another event loop.
            TypeError, ValueError: `max_wait` is no number of seconds, or no bucket could ever hold `reserve`
                tokens and one more.
        """
        if max_wait is not None:
            check_seconds(max_wait, "max_wait", zero=True)
        check_reserve(reserve, self.buckets)
        loop = self._bind()
        deadline = math.inf if max_wait is None else loop.time() + max_wait
        while True:
            permit: Permit | None
            if self._share is not None:
                self._nudge()
                left = None if max_wait is None else max(0.0, deadline - loop.time())
                permit = await self._share.acquire(max_wait=left, reserve=reserve)
            else:
                permit = await self._queue_up(_Waiter(loop.create_future(), reserve, max_wait, deadline))
            if permit is not None:
                return permit

    def check_reserve(self, reserve: int) -> None:
        """Raise ValueError or TypeError unless a call could ever leave `reserve` tokens in every bucket."""
        check_reserve(reserve, self.buckets)

    def next_permit_in(self) -> float:
        """Seconds until a call of this worker is granted, at the earliest, as the store last said."""
        if self._share is not None:
            return self._share.limiter.next_permit_in()
        if not self._waiting or self._loop is None or self._due == math.inf:
            return 0.0
        return max(0.0, self._due - self._loop.time())

    def stats(self) -> LimiterStats:
        """This worker's counts at this moment; `available` and `pacing` are everybody's, as last heard."""
        local = None if self._share is None else self._share.limiter.stats()
        last = self._last
        return LimiterStats(
            granted=self._granted,
            in_flight=self._in_flight + (local.in_flight if local else 0),
            waiting=len(self._waiting) + (local.waiting if local else 0),
            available=last.free if last else tuple(bucket.capacity for bucket in self.buckets),
            pacing=last is not None and last.pacing,
        )

    # What permits report.

    def settled(self, membership: str, ticket: Ticket, report: Report) -> None:
        now = time.monotonic_ns()
        self._remember(now)
        if membership == self._worker:
            self._in_flight -= 1
            self._answered.append(Answered.of(ticket, report, now // 1000))
            self._flush_soon()
            if report.refused or (self._last is not None and self._last.pacing):
                # All workers must hear of it before they send more.
                self._flush_at = 0.0
                self._wake.set()

    def released(self, membership: str) -> None:
        if membership == self._worker:
            self._in_flight -= 1
            self._granted -= 1
            self._unsent += 1
            self._flush_soon()

    def lost(self, membership: str) -> None:
        self._remember(time.monotonic_ns() + round(self._grace * _SECOND))
        if membership == self._worker:
            self._in_flight -= 1
            self._lost += 1
            self._flush_soon()

    def _remember(self, answered: int) -> None:
        self._log.append(answered)

    def _spent_elsewhere(self, answered: int) -> None:
        self._granted += 1
        self._remember(answered)
        self._elsewhere.append(answered)

    # Waiting here.

    def _bind(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ClientStateError("the limiter is closed")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ClientStateError("the limiter belongs to another event loop; make one for each loop")
        return loop

    async def _queue_up(self, waiter: _Waiter) -> _Permit | None:
        """A permit that is good now; None when the call has to look again where permits are to be had."""
        self._waiting[waiter] = None
        self._nudge()
        try:
            permit = await waiter.future
        except _LookAgainError:
            return None
        except BaseException:
            self._waiting.pop(waiter, None)
            if waiter.future.done() and not waiter.future.cancelled() and not waiter.future.exception():
                waiter.future.result().release()
            raise
        if permit.membership == self._worker and time.monotonic_ns() < self._lease_ends:
            return permit
        # The process was stopped for so long that the store may have given the token to somebody else.
        permit.release()
        return None

    def _fail_waiting(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            if not waiter.future.done():
                waiter.future.set_exception(error)

    # Talking to the store.

    @property
    def _untold(self) -> bool:
        return bool(self._answered or self._lost or self._unsent or self._elsewhere or self._unconfirmed)

    @property
    def _busy(self) -> bool:
        return bool(self._waiting or self._in_flight or self._untold or (self._share and self._share.busy))

    def _nudge(self) -> None:
        self._wake.set()
        if self._pump is None and not self._closed:
            self._pump = asyncio.get_running_loop().create_task(self._talk())

    def _flush_soon(self) -> None:
        if self._flush_at == math.inf and self._loop is not None and not self._loop.is_closed():
            self._flush_at = self._loop.time() + _FLUSH
            self._nudge()

    async def _talk(self) -> None:
        try:
            while self._busy:
                await self._rest()
                if not await self._exchange():
                    return
        finally:
            self._pump = None

    async def _rest(self) -> None:
        """Sleep until there is a reason to talk."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            due = min(self._flush_at, self._renew_at if self._in_flight else math.inf)
            if self._waiting:
                due = min(due, self._due if self._newcomers_can_wait(loop.time()) else 0.0)
            if self._share is not None:
                due = self._share.look_at
            if due <= loop.time():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None if due == math.inf else due):
                    await self._wake.wait()
            if not self._busy:
                return

    def _newcomers_can_wait(self, now: float) -> bool:
        """Whether all who wait stand behind somebody who has been told when to come back."""
        if self._due == math.inf:
            return False
        told = min((waiter.reserve for waiter in self._waiting if waiter.told), default=math.inf)
        for waiter in list(self._waiting):
            if waiter.told:
                continue
            if waiter.reserve < told:
                return False
            self._tell(waiter, max(0.0, self._due - now), now)
        return True

    def _tell(self, waiter: _Waiter, wait: float, now: float) -> None:
        """Let a waiter know how long it takes at the least; it may not want to."""
        if now + wait > waiter.deadline:
            self._waiting.pop(waiter, None)
            if not waiter.future.done():
                waiter.future.set_exception(QuotaWaitError(wait=wait, max_wait=waiter.max_wait or 0.0))
        elif not waiter.told:
            waiter.told = True
            if self.on_wait is not None:
                self.on_wait(wait)

    async def _exchange(self) -> bool:
        """Talk once; returns whether to go on."""
        exchange = self._unconfirmed = self._unconfirmed or self._compose()
        sent = time.monotonic_ns()
        try:
            reply = await self._store.exchange(exchange)
        except QuotaStoreError as error:
            return self._do_without(error)
        except Exception as error:  # noqa: BLE001  (whoever waits must hear of it, not the event loop)
            self._unconfirmed = None
            self._fail_waiting(error)
            return False
        self._unconfirmed = None
        if reply.lost:
            self._tell_everything(exchange, reply.epoch)
        elif reply.gone:
            self._start_anew()
        else:
            self._joined, self._epoch = True, reply.epoch
            self._lease_ends = sent + round(self._lease * _SECOND)
            del self._elsewhere[: len(exchange.elsewhere)]
            self._hand_out(reply)
        self._end_share()
        if self._untold:
            self._flush_soon()
        return True

    def _compose(self) -> Exchange:
        now = time.monotonic_ns()
        wants = Counter(waiter.reserve for waiter in self._waiting if not waiter.future.done())
        # The store gave up what an idle worker had, nothing, when its lease ended: that is no loss.
        idle = not (self._in_flight or self._answered or self._lost or self._unsent)
        self._number += 1
        exchange = Exchange(
            number=str(self._number),
            worker=self._worker,
            epoch=self._epoch,
            new_epoch=uuid.uuid4().hex,
            joined=self._joined and not idle,
            holds=self._in_flight + len(self._answered) + self._lost + self._unsent,
            answered=self._answered,
            lost=self._lost,
            unsent=self._unsent,
            elsewhere=[(now - answered) // 1000 for answered in self._elsewhere],
            settling=microseconds(2 * _RETRY) if self._settling else 0,
            wants=sorted(wants.items()),
            clock=now // 1000,
            dice=random.random(),  # noqa: S311  (for a wait)
            buckets=sorted(
                ((bucket.capacity, microseconds(bucket.period)) for bucket in self.buckets),
                key=lambda bucket: bucket[1],
            ),
            lease=microseconds(self._lease),
            grace=microseconds(self._grace),
        )
        self._answered, self._lost, self._unsent = [], 0, 0
        self._settling = False
        self._flush_at = math.inf
        return exchange

    def _hand_out(self, reply: Reply) -> None:
        now = asyncio.get_running_loop().time()
        self._last = reply
        self._renew_at = now + self._lease / 3
        self._due = math.inf if reply.wait is None else now + reply.wait
        queues: dict[int, deque[_Waiter]] = {}
        for waiter in self._waiting:
            queues.setdefault(waiter.reserve, deque()).append(waiter)
        for reserve, tickets in reply.tickets.items():
            queue = queues.get(reserve, deque())
            for ticket in tickets:
                while queue and queue[0].future.done():
                    queue.popleft()
                if not queue:
                    self._unsent += 1
                    continue
                waiter = queue.popleft()
                del self._waiting[waiter]
                self._granted += 1
                self._in_flight += 1
                waiter.future.set_result(_Permit(self, ticket, self._worker))
        if reply.wait is not None:
            for waiter in list(self._waiting):
                self._tell(waiter, reply.wait, now)

    def _tell_everything(self, exchange: Exchange, epoch: str) -> None:
        """The store has lost its memory: let it know what this worker has done, and wait for the others."""
        self._epoch, self._joined, self._settling = epoch, False, True
        self._lost += exchange.lost
        self._answered, self._unsent = [], 0
        self._elsewhere = list(self._log)
        self._due = math.inf

    def _start_anew(self) -> None:
        """The store has given this worker up, and what it held for lost."""
        self._worker, self._joined = uuid.uuid4().hex, False
        self._answered, self._lost, self._unsent, self._in_flight = [], 0, 0, 0
        self._lease_ends = 0
        self._due = math.inf

    # Without the store.

    def _do_without(self, error: QuotaStoreError) -> bool:
        if self._share is None and self._lasting and self._last is not None:
            self._share = LocalShare.of(
                self.buckets,
                workers=self._last.workers,
                grace=self._grace,
                on_wait=self.on_wait,
                answered=self._log,
                in_flight=self._in_flight,
                tell=self._spent_elsewhere,
            )
        if self._share is None:
            self._fail_waiting(error)
            return False
        self._share.look_at = asyncio.get_running_loop().time() + _RETRY
        self._fail_waiting(_LookAgainError())
        return self._share.busy

    def _end_share(self) -> None:
        share, self._share = self._share, None
        if share is not None:
            self._settling = True
            share.end()


class _LookAgainError(Exception):
    """Permits are to be had elsewhere now."""
