"""The limiter whose tokens are in Redis."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Literal, NoReturn, Self

from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from do_images_async._arguments import check_text
from do_images_async._credentials import read_token
from do_images_async._quota.buckets import DOCUMENTED, TokenBucket, check_reserve
from do_images_async._quota.permits import PermitContext
from do_images_async._quota.protocols import LimiterStats, Permit
from do_images_async._quota.worker import Worker, WorkerOptions
from do_images_async.redis.store import RedisStore

__all__ = ["RedisRateLimiter"]


class RedisRateLimiter:
    """A `RateLimiter` whose tokens are in Redis, for all processes and machines that spend one API token.

    The guarantee is the same: as the server counts, no window of any bucket ever holds more requests than its
    capacity, whichever worker sent them. Redis' own clock counts; the workers' need not agree. Workers that
    wait get equal shares. The tokens of a worker that has died come back when its lease has ended and, after
    that, the grace and the bucket's period have passed.

    Use it in one event loop, and close it (`aclose`, or as an async context manager) after the last call.

    Args:
        redis: a client of redis-py's asyncio kind, or its cluster's; it stays yours to close. Its `encoding`
            must leave ASCII as it is.
        token: the API token whose quota it is. Only a digest of it is kept, here and in the keys.
        buckets: the limits that hold together; without any, the documented 250 a minute and 5,000 an hour.
            All workers of a token must name the same.
        on_store_failure: what a call gets while Redis can't be reached: "raise" a `QuotaStoreError`, or
            "local": an equal share of the quota among the workers that were last seen, after a period of the
            shortest bucket, with a warning in the log. A worker that never reached Redis raises all the same.
        lease: seconds after which a worker that has not been heard of counts as dead; renewed in the
            background as long as requests are in flight.
        grace: as in `RateLimiter`.
        store_timeout: seconds for one exchange with Redis. The first also connects, which takes some five
            round trips.
        namespace: what every key in Redis begins with.
        on_wait: called when a call has to wait, with the seconds that it takes at the least. What it raises
            is logged and goes no further.
        slow_start: with a Redis that holds nothing, or was not used for longer than the longest period, begin
            with one request in flight, then 2, 4, 8 … while they succeed (eight round trips to full width):
            nobody knows what was spent before. It refuses no call: one whose `max_wait` has passed while
            tokens are free goes, and ends it; one below 0.25 does so at once. False where nobody else can
            have spent anything.

    Raises:
        TypeError, ValueError: the token or another argument can't be used.
    """

    def __init__(
        self,
        redis: Redis | RedisCluster,
        token: str,
        *buckets: TokenBucket,
        on_store_failure: Literal["raise", "local"] = "raise",
        lease: float = 10.0,
        grace: float = 120.0,
        store_timeout: float = 2.0,
        namespace: str = "do-images",
        on_wait: Callable[[float], None] | None = None,
        slow_start: bool = True,
    ) -> None:
        secret = read_token(token)
        del token  # what is raised from here on has no secret among its local variables
        if isinstance(secret, Exception):
            raise secret
        # A cluster's client or a wrapper will do. What else is passed may be a URL with a password in it.
        if isinstance(redis, SyncRedis) or not callable(getattr(redis, "register_script", None)):
            name = type(redis).__name__
            del redis
            raise TypeError(f"redis must be a client of redis.asyncio, not a {name}")
        namespace = check_text(namespace, "namespace")
        options = WorkerOptions(
            buckets=buckets or DOCUMENTED,
            on_store_failure=on_store_failure,
            lease=lease,
            grace=grace,
            store_timeout=store_timeout,
            on_wait=on_wait,
            slow_start=slow_start,
        )
        self.buckets: tuple[TokenBucket, ...] = options.buckets
        self._on_wait = on_wait
        key = f"{namespace}:{{{secret.digest()}}}"
        self._worker = Worker(RedisStore(redis, key, self.buckets, store_timeout), options)

    @property
    def on_wait(self) -> Callable[[float], None] | None:
        """Return the hook that the limiter was made with."""
        return self._on_wait

    def __repr__(self) -> str:
        if not hasattr(self, "_worker"):
            return "<RedisRateLimiter that could not be made>"
        stats = self.stats()
        limits = ", ".join(f"{bucket.capacity} per {bucket.per:g} s" for bucket in self.buckets)
        return f"<RedisRateLimiter {limits}; {stats.in_flight} in flight, {stats.waiting} waiting>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a RedisRateLimiter is neither pickled nor copied: make one in each process, for the same Redis"
        )

    async def __aenter__(self) -> Self:
        self._worker.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Send the reports that are left to Redis, and stop; calls that wait raise `ClientStateError`.

        It takes `store_timeout` at most.
        """
        await self._worker.aclose()

    async def acquire(self, *, max_wait: float | None = None, reserve: int = 0) -> Permit:
        """Wait for a permit and take it.

        Args:
            max_wait: the longest wait, in seconds; None waits as long as it takes, 0 not at all.
            reserve: tokens that this call leaves in every bucket for calls without a reserve. Where others
                never leave as many, such calls get one permit in eight of all, once they have waited for a
                period of the shortest bucket; but no more than half of what their worker gets, if it
                also has calls without a reserve.

        Raises:
            QuotaWaitError: the wait would be longer than `max_wait`; at once where the store can tell.
            QuotaStoreError: Redis can't be reached, and `on_store_failure` is "raise".
            ClientStateError: the limiter is closed, or belongs to another event loop.
            TypeError, ValueError: `max_wait` is no number of seconds, or no bucket could ever hold `reserve`
                tokens and one more.
        """
        return await self._worker.acquire(max_wait=max_wait, reserve=reserve)

    def permit(self, *, max_wait: float | None = None, reserve: int = 0) -> PermitContext:
        """Return a context manager that acquires a permit for a block; see `RateLimiter.permit`."""
        return PermitContext(self, max_wait=max_wait, reserve=reserve)

    def check_reserve(self, reserve: int) -> None:
        """Raise ValueError or TypeError unless a call could ever leave `reserve` tokens in every bucket."""
        check_reserve(reserve, self.buckets)

    def next_permit_in(self) -> float:
        """Return the seconds until the next call without a reserve is granted, at the earliest; 0.0 for now.

        It is what the store said at this worker's last exchange, counted down; 0.0 before the first. The
        calls that wait already are not counted, nor is what others have been granted since.
        """
        return self._worker.next_permit_in()

    def stats(self) -> LimiterStats:
        """Return this worker's counts; `available` and `pacing` are everybody's, as last heard."""
        return self._worker.stats()
