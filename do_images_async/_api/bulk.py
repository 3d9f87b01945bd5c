"""Call an async function for any number of keys, a bounded number at a time.

An error in one call doesn't stop the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sized
from typing import Any, Generic, TypeVar, cast, overload

import attrs

from do_images_async._api.read_once import ReadOnce
from do_images_async._arguments import (
    check_bool,
    check_callable,
    check_hook,
    check_range,
    check_unread,
    shown,
)
from do_images_async._loop import running_loop

__all__ = ["BulkProgress", "Outcome", "fan_out"]

K = TypeVar("K")
V = TypeVar("V")
K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)


@attrs.frozen
class Outcome(Generic[K_co, V_co]):
    """The result of the call for one key.

    Attributes:
        key: what the call was made with.
        value: what it returned; None when it raised.
        error: what it raised; None when it returned.
    """

    key: K_co
    value: V_co | None = None
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Return whether the call returned."""
        return self.error is None

    def result(self) -> V_co:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return cast("V_co", self.value)


@attrs.frozen
class BulkProgress:
    """The progress of a fan-out.

    Attributes:
        done: calls that have ended.
        failed: how many of them raised.
        total: how many keys there are; None if `keys` has no length, such as a generator.
    """

    done: int
    failed: int
    total: int | None


# For mypy, which takes `[42, "ubuntu-24-04-x64"]` for a list of objects in the first overload. Where both
# match, the first one's outcomes are of a subtype.
@overload
def fan_out(  # type: ignore[overload-overlap]
    call: Callable[[K], Awaitable[V]],
    keys: Iterable[K] | AsyncIterable[K],
    *,
    concurrency: int = 32,
    ordered: bool = False,
    progress: Callable[[BulkProgress], object] | None = None,
) -> AsyncGenerator[Outcome[K, V], None]: ...


@overload
def fan_out(
    call: Callable[[int | str], Awaitable[V]],
    keys: Iterable[int | str] | AsyncIterable[int | str],
    *,
    concurrency: int = 32,
    ordered: bool = False,
    progress: Callable[[BulkProgress], object] | None = None,
) -> AsyncGenerator[Outcome[int | str, V], None]: ...


def fan_out(
    call: Callable[[K], Awaitable[V]],
    keys: Iterable[K] | AsyncIterable[K],
    *,
    concurrency: int = 32,
    ordered: bool = False,
    progress: Callable[[BulkProgress], object] | None = None,
) -> AsyncGenerator[Outcome[K, V], None]:
    """Call `call` with every key, and yield the outcome of each.

    Sends no requests of its own. Keys are drawn as they are needed: at most twice `concurrency` are drawn and
    not yet yielded. To stop early, use `aclosing`: closing the generator, or cancelling its task, cancels the
    calls in flight and waits for them. An async generator of keys is closed, too.

    What is returned can be read once, as that of `ImagesAPI.list`: another loop over it raises a ValueError.

    Args:
        call: an async function of one key.
        keys: any iterable or async iterable.
        concurrency: calls in flight at most.
        ordered: yield in the order of the keys; otherwise as the calls end.
        progress: called whenever a call has ended. If it raises, the calls in flight are cancelled, and the
            generator raises the same.

    Raises:
        TypeError, ValueError: an argument can't be used, such as a generator of keys that was read to its end
            or closed.
        Exception: what `keys` itself raises, once the outcomes of all keys drawn before the error have been
            yielded.
    """
    check_callable(call, "call")
    check_range(concurrency, "concurrency", 1)
    check_bool(ordered, "ordered")
    check_hook(progress, "progress")
    check_unread(keys, "keys")
    source = _iterator(keys)
    total = len(keys) if isinstance(keys, Sized) else None
    workers = _Workers(call, source, concurrency, ordered, _Tally(progress, total))
    return ReadOnce(_outcomes(workers, source), "generator of outcomes")


async def _outcomes(workers: _Workers[K, V], source: AsyncIterator[K]) -> AsyncGenerator[Outcome[K, V], None]:
    feeder = running_loop().create_task(workers.feed())
    feeder.add_done_callback(workers.to_yield.put_nowait)
    yielded = 0
    try:
        while not feeder.done() or yielded < workers.started:
            task = await workers.to_yield.get()
            if task is feeder:
                continue
            outcome: Outcome[K, V] = await task
            workers.unread.release()
            yielded += 1
            yield outcome
        await feeder
    finally:
        await _cancel(feeder, *workers.tasks)
        await _close(source)


class _Tally:
    """Counts the calls that have ended, and calls the progress hook."""

    def __init__(self, hook: Callable[[BulkProgress], object] | None, total: int | None) -> None:
        self._hook = hook
        self._total = total
        self._done = 0
        self._failed = 0

    def count(self, *, failed: bool) -> None:
        self._done += 1
        self._failed += failed
        if self._hook is not None:
            self._hook(BulkProgress(self._done, self._failed, self._total))


class _Workers(Generic[K, V]):
    """Runs the calls, each in a task of its own.

    Attributes:
        tasks: those that have not ended.
        to_yield: tasks whose outcomes are to be yielded: as they end, or in the order of their keys.
        unread: bounds the keys that are drawn and whose outcomes are not yet yielded.
        started: the number of tasks so far.
    """

    def __init__(
        self,
        call: Callable[[K], Awaitable[V]],
        source: AsyncIterator[K],
        concurrency: int,
        ordered: bool,
        tally: _Tally,
    ) -> None:
        self.tasks: set[asyncio.Task[Outcome[K, V]]] = set()
        self.to_yield: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
        self.unread = asyncio.Semaphore(2 * concurrency)
        self.started = 0
        self._call = call
        self._source = source
        self._running = asyncio.Semaphore(concurrency)
        self._ordered = ordered
        self._tally = tally

    async def feed(self) -> None:
        """Start a call for each key, whenever there is room for one."""
        while True:
            await self.unread.acquire()
            await self._running.acquire()
            try:
                key = await anext(self._source)
            except StopAsyncIteration:
                return
            self._start(key)

    def _start(self, key: K) -> None:
        task = asyncio.create_task(self._run(key))
        self.started += 1
        self.tasks.add(task)
        task.add_done_callback(self._end)
        if self._ordered:
            self.to_yield.put_nowait(task)

    def _end(self, task: asyncio.Task[Outcome[K, V]]) -> None:
        self.tasks.discard(task)
        self._running.release()
        if not task.cancelled():
            task.exception()  # mark it as retrieved, or asyncio logs it if the reader has left
        if not self._ordered:
            self.to_yield.put_nowait(task)

    async def _run(self, key: K) -> Outcome[K, V]:
        outcome: Outcome[K, V]
        try:
            outcome = Outcome(key, value=await self._call(key))
        except asyncio.CancelledError as error:
            if _is_being_cancelled():
                raise
            outcome = Outcome(key, error=error)  # the call cancelled itself, not the reader: it is this key's
        except Exception as error:  # noqa: BLE001  (whatever it is, it belongs to this key)
            outcome = Outcome(key, error=error)
        self._tally.count(failed=not outcome.ok)
        return outcome


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _iterator(keys: Iterable[K] | AsyncIterable[K]) -> AsyncIterator[K]:
    if isinstance(keys, AsyncIterable):
        return aiter(keys)
    if isinstance(keys, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        return _over(keys)
    raise TypeError(f"keys must be an iterable or an async iterable, not {shown(keys)}")


async def _over(keys: Iterable[K]) -> AsyncGenerator[K, None]:
    for key in keys:
        yield key


async def _close(source: AsyncIterator[Any]) -> None:
    if isinstance(source, AsyncGenerator):
        await source.aclose()
