"""The limiter whose tokens are in a file: one quota for all processes of a user on one machine."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Literal, NoReturn, Self
from weakref import WeakSet

from do_images_async._arguments import read_base_url
from do_images_async._credentials import read_token
from do_images_async._loop import running_loop
from do_images_async._quota.buckets import DOCUMENTED, TokenBucket, check_reserve, read_buckets
from do_images_async._quota.permits import PermitContext
from do_images_async._quota.protocols import LimiterStats, Permit
from do_images_async._quota.sharing import origin_of_quota
from do_images_async._quota.sqlite import SQLiteStore
from do_images_async._quota.worker import Worker, WorkerOptions
from do_images_async.errors import ClientStateError, QuotaStoreError

__all__ = ["FileRateLimiter", "default_path"]

_ORIGIN = "https://api.digitalocean.com"


def default_path() -> Path | None:
    """Return where the quota of this user's processes is kept; None where the user has no home folder."""
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    if home and not home.is_absolute():  # each working folder would have a quota of its own
        home = None
    folder: Path | None
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        folder = Path(local) if local else home and home / "AppData" / "Local"
    elif sys.platform == "darwin":
        folder = home and home / "Library" / "Application Support"
    else:
        state = Path(os.environ.get("XDG_STATE_HOME", ""))
        folder = state if state.is_absolute() else home and home / ".local" / "state"
    return folder and folder / "do-images" / "quota.db"


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return the file that a path names now, whatever folder the process works in later."""
    text = os.fspath(path)
    if not text or "\0" in text:
        raise ValueError(f"path must name a file, not {text!r}")
    with contextlib.suppress(OSError):  # the folder was deleted: there the file can't be used, as a call says
        return Path(text).absolute()
    return Path(text)


class FileRateLimiter:
    """A `RateLimiter` whose tokens are in a file, for all processes of a user on one machine.

    The guarantee is the same: as the server counts, no window of any bucket ever holds more requests than
    its capacity, whichever process sent them and however short it lived. Processes that wait get equal
    shares. The tokens of a process that has died come back when its lease has ended and, after that, the
    grace and the bucket's period have passed. The time in which the machine was off does not count.

    A file that was replaced by its backup is noticed: nothing is granted for two seconds, in which processes
    that are alive report what it lacks, and requests go evenly for a minute. One that was deleted looks to a
    new process like the first use of the token: one request goes first (see `slow_start`). Only a process
    that knows more notices one that was written over in place.

    Each `ImagesAPI` that gets it spends the quota of its own token at its own origin. It may be used from any
    number of event loops and threads, each of which counts as a process; a forked child goes on as one more.
    The file holds a digest of the token, and no other user may read it. It must be on a local disk, where it
    and the two that SQLite keeps beside it take up to 1 MB, and 0.2 MB for each further token.

    Args:
        path: the file, made when it is missing; by default `do-images/quota.db` in the user's state folder.
        token: the API token whose quota it is, for those who use no `ImagesAPI`.
        base_url: the server that counts, likewise; any spelling that `ImagesAPI` takes is the same quota.
        buckets: the limits that hold together; by default the documented 250 a minute and 5,000 an hour.
            All processes of a token must name the same.
        on_store_failure: what a call gets while the file can't be used: "raise" a `QuotaStoreError`, or
            "local": an equal share of the quota among the processes that were last seen; all of it where
            none were. A warning is logged then.
        lease: seconds after which a process that has not been heard of counts as dead; renewed in the
            background as long as requests are in flight.
        grace: as in `RateLimiter`.
        store_timeout: seconds for one exchange with the file.
        on_wait: called when a call has to wait, with the seconds that it takes at the least. What it raises
            is logged and goes no further.
        slow_start: with a file that holds nothing, or was not used for longer than the longest period, begin
            with one request in flight, then 2, 4, 8 … while they succeed (eight round trips to full width):
            nobody knows what was spent before. It refuses no call: one whose `max_wait` has passed while
            tokens are free goes, and ends it; one below 0.25 does so at once. False where nobody else can
            have spent anything.

    Raises:
        TypeError, ValueError: an argument can't be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        token: str | None = None,
        base_url: str = _ORIGIN,
        buckets: Iterable[TokenBucket] = DOCUMENTED,
        on_store_failure: Literal["raise", "local"] = "raise",
        lease: float = 10.0,
        grace: float = 120.0,
        store_timeout: float = 2.0,
        on_wait: Callable[[float], None] | None = None,
        slow_start: bool = True,
    ) -> None:
        # Nothing is sent there from here, so http will do.
        address = read_base_url(base_url, allow_insecure_http=True)
        del base_url  # it can hold a password
        digest: str | None = None
        if token is not None:
            secret = read_token(token)
            token = None  # what is raised from here on has no secret among its local variables
            if isinstance(secret, Exception):
                raise secret
            digest = secret.digest()
        if path is not None and not isinstance(path, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"path must be a str or a path, not {type(path).__name__}")
        if isinstance(address, Exception):
            raise address
        options = WorkerOptions(
            buckets=read_buckets(buckets) or DOCUMENTED,
            on_store_failure=on_store_failure,
            lease=lease,
            grace=grace,
            store_timeout=store_timeout,
            on_wait=on_wait,
            slow_start=slow_start,
        )
        self.buckets: tuple[TokenBucket, ...] = options.buckets
        self._options = options
        self._path = default_path() if path is None else _absolute(path)
        self._digest = digest
        self._origin = str(origin_of_quota(address.origin()))
        self._store: SQLiteStore | None = None
        self._workers: dict[asyncio.AbstractEventLoop, Worker] = {}
        self._others: dict[tuple[str, str], FileRateLimiter] = {}
        self._granted_before = 0
        self._closed = False
        self._lock = threading.Lock()
        _limiters.add(self)

    @property
    def on_wait(self) -> Callable[[float], None] | None:
        """Return the hook that the limiter was made with."""
        return self._options.on_wait

    def __repr__(self) -> str:
        if not hasattr(self, "_lock"):
            return "<FileRateLimiter that could not be made>"
        stats = self.stats()
        limits = ", ".join(f"{bucket.capacity} per {bucket.per:g} s" for bucket in self.buckets)
        return f"<FileRateLimiter {limits}; {stats.in_flight} in flight, {stats.waiting} waiting>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a FileRateLimiter is neither pickled nor copied: make one in each process, for the same file"
        )

    async def __aenter__(self) -> Self:
        if self._closed:
            raise ClientStateError("the limiter is closed")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Write what the file does not hold yet, and stop; calls that wait raise `ClientStateError`.

        It takes `store_timeout` at most. The end of the process does the same.
        """
        self._closed = True
        here = running_loop()
        with self._lock:
            workers = dict(self._workers)
        elsewhere: list[asyncio.Future[None]] = []
        for loop, worker in workers.items():
            if loop is here:
                await worker.aclose()
            elif not loop.is_closed():
                with contextlib.suppress(RuntimeError):  # it has been closed since
                    closing = asyncio.run_coroutine_threadsafe(worker.aclose(), loop)
                    elsewhere.append(asyncio.wrap_future(closing))
        if elsewhere:
            await asyncio.wait(elsewhere, timeout=self._options.store_timeout)
        self._retire(lambda loop: loop.is_closed())
        if self._store is not None:
            self._store.close()
        for other in list(self._others.values()):
            await other.aclose()

    async def acquire(self, *, max_wait: float | None = None, reserve: int = 0) -> Permit:
        """Wait for a permit and take it.

        Args:
            max_wait: the longest wait, in seconds; None waits as long as it takes, 0 not at all.
            reserve: tokens that this call leaves in every bucket for calls without a reserve. Where others
                never leave as many, such calls get one permit in eight of all, once they have waited for a
                period of the shortest bucket; but no more than half of what their process gets, if it
                also has calls without a reserve.

        Raises:
            QuotaWaitError: the wait would be longer than `max_wait`; at once where the file can tell.
            QuotaStoreError: the file can't be used, and `on_store_failure` is "raise".
            ClientStateError: the limiter is closed, or nothing has named the token.
            TypeError, ValueError: `max_wait` is no number of seconds, or no bucket could ever hold `reserve`
                tokens and one more.
        """
        return await self._worker().acquire(max_wait=max_wait, reserve=reserve)

    def for_token(self, digest: str, origin: str) -> FileRateLimiter:
        """Return the limiter of a token's quota at an origin: this one for the first, others like it later.

        Args:
            digest: stands for the token.
            origin: the server that counts.
        """
        with self._lock:
            if self._store is None and self._digest in (None, digest):
                self._digest, self._origin = digest, origin
            if (self._digest, self._origin) == (digest, origin):
                return self
            other = self._others.get((digest, origin))
            if other is None:
                other = self._others[digest, origin] = self._like_this(digest, origin)
            return other

    def _like_this(self, digest: str, origin: str) -> FileRateLimiter:
        options = self._options
        other = FileRateLimiter(
            self._path,
            buckets=options.buckets,
            on_store_failure=options.on_store_failure,
            lease=options.lease,
            grace=options.grace,
            store_timeout=options.store_timeout,
            on_wait=options.on_wait,
            slow_start=options.slow_start,
        )
        return other.for_token(digest, origin)

    def permit(self, *, max_wait: float | None = None, reserve: int = 0) -> PermitContext:
        """Return a context manager that acquires a permit for a block; see `RateLimiter.permit`."""
        return PermitContext(self, max_wait=max_wait, reserve=reserve)

    def check_reserve(self, reserve: int) -> None:
        """Raise ValueError or TypeError unless a call could ever leave `reserve` tokens in every bucket."""
        check_reserve(reserve, self.buckets)

    def next_permit_in(self) -> float:
        """Return the seconds until the next call without a reserve is granted, at the earliest; 0.0 for now.

        It is what the file said at this process's last exchange, counted down; 0.0 before the first. The
        calls that wait already are not counted, nor is what others have been granted since.
        """
        with self._lock:
            return max((worker.next_permit_in() for worker in self._workers.values()), default=0.0)

    def stats(self) -> LimiterStats:
        """Return this process's counts; `available` and `pacing` are everybody's, as last heard."""
        with self._lock:
            stats = [worker.stats() for worker in self._workers.values()]
        full = tuple(bucket.capacity for bucket in self.buckets)
        return LimiterStats(
            granted=self._granted_before + sum(each.granted for each in stats),
            in_flight=sum(each.in_flight for each in stats),
            waiting=sum(each.waiting for each in stats),
            available=tuple(map(min, zip(full, *(each.available for each in stats), strict=True))),
            pacing=any(each.pacing for each in stats),
        )

    def start_in_child(self) -> None:
        """Start again in a forked child, without the parent's calls and requests in flight."""
        self._lock = threading.Lock()
        self._workers = {}
        self._granted_before = 0
        if self._store is not None:
            self._store.start_in_child()

    def finish(self) -> None:
        """Write what the file does not hold yet and close it, at the end of the process."""
        self._retire(lambda _: True)
        if self._store is not None:
            self._store.close()

    def _worker(self) -> Worker:
        """Return the worker of the running event loop."""
        loop = running_loop()
        if self._closed:
            raise ClientStateError("the limiter is closed")
        worker = self._workers.get(loop)
        if worker is None:
            self._retire(lambda other: other.is_closed())
            with self._lock:
                worker = self._workers[loop] = Worker(
                    self._open(), self._options, blind=True, finish=self._end
                )
        return worker

    def _open(self) -> SQLiteStore:
        if self._store is None:
            if self._digest is None:
                raise ClientStateError(
                    "nothing has named the token: pass `token`, or the limiter to ImagesAPI"
                )
            name = f"{self._digest} {self._origin}"
            self._store = SQLiteStore(self._path, name, self.buckets, self._options.store_timeout)
        return self._store

    def _retire(self, ends: Callable[[asyncio.AbstractEventLoop], bool]) -> None:
        """Write what the workers of ended event loops have not reported yet, and drop these workers."""
        with self._lock:
            retired = [self._workers.pop(loop) for loop in list(self._workers) if ends(loop)]
        for worker in retired:
            self._granted_before += worker.stats().granted
            self._end(worker)

    def _end(self, worker: Worker) -> None:
        if self._store is not None:
            with contextlib.suppress(QuotaStoreError):
                worker.finish(self._store.exchange_now)


_limiters: WeakSet[FileRateLimiter] = WeakSet()


def _start_in_child() -> None:
    for limiter in list(_limiters):
        limiter.start_in_child()


@atexit.register
def _finish() -> None:
    for limiter in list(_limiters):
        limiter.finish()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_in_child)
