"""The audit of one account, or of several at once, as reports."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any

import attrs

from do_images_async import Image, ImagesAPI, TokenBucket
from do_images_async.audit import AuditReport, QuotaLeft, audit
from do_images_async.cli.named_accounts import Owners
from do_images_async.cli.progress import Progress, Watch, show_progress
from do_images_async.errors import DOImagesError, IncompleteListingError

__all__ = ["Account", "Reading", "Result", "demo_client", "read_accounts"]


@attrs.frozen(kw_only=True)
class Account:
    """The account whose images are read.

    Attributes:
        name: its name in the report; None if it is the only one.
        client: opens a client for it, which the reader closes.
    """

    name: str | None
    client: AbstractAsyncContextManager[ImagesAPI] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Reading:
    """The settings for reading accounts.

    Attributes:
        concurrency: the number of pages of an account that are in flight at once.
        watch: the rules for showing progress.
        options: the other arguments of `audit`.
    """

    concurrency: int
    watch: Watch
    options: dict[str, Any]


@attrs.frozen(kw_only=True)
class Result:
    """The result of reading an account.

    Attributes:
        report: the report; None if an error left nothing to report.
        error: that error.
        interrupted: whether Ctrl-C ended it, so that the report covers only a part.
    """

    report: AuditReport | None = None
    error: DOImagesError | None = None
    interrupted: bool = False


async def read_accounts(accounts: Sequence[Account], reading: Reading, owners: Owners) -> list[Result]:
    """Read all accounts at once, each on its own quota; return a report or an error for each.

    If the task is cancelled, as by Ctrl-C, the reports cover the images read until then, and say so.

    Args:
        accounts: the accounts.
        reading: the settings.
        owners: notes whose the images are.

    Raises:
        BadParameter: two accounts have an image of their own in common; the reading ends there.
    """
    tasks = [asyncio.create_task(_read(account, reading, owners)) for account in accounts]
    with suppress(asyncio.CancelledError):  # a task that has nothing to report raises it again below
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    await _stop(tasks)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if errors:
        raise errors[0]
    return [task.result() for task in tasks]


async def _stop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel all tasks until they have ended: the code that a task awaits may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)


async def _read(account: Account, reading: Reading, owners: Owners) -> Result:
    try:
        return await _report(account, reading, owners)
    except DOImagesError as error:
        return Result(error=error)


async def _report(account: Account, reading: Reading, owners: Owners) -> Result:
    async with account.client as api, show_progress(api.limiter, reading.watch, account.name) as progress:
        started = time.perf_counter()
        before = api.limiter.stats().granted
        images = _listed(api, progress, reading.concurrency, partial(owners.add, account.name))
        report = await audit(images, **reading.options)
        report = attrs.evolve(
            report,
            reported_total=progress.total,
            requests=api.limiter.stats().granted - before,
            pages=progress.pages,
            elapsed=round(time.perf_counter() - started, 3),
            incomplete=progress.why_partial(),
            quota=_quota(api),
        )
        return Result(report=report, interrupted=progress.interrupted)


async def _listed(
    api: ImagesAPI, progress: Progress, concurrency: int, check: Callable[[Sequence[Image]], None]
) -> AsyncGenerator[Image, None]:
    """Yield all images, after a check of each page's."""
    try:
        async with aclosing(api.list_pages(concurrency=concurrency, strict=True)) as pages:
            async for page in pages:
                progress.advance(len(page), page.total)
                check(page.images)
                for image in page.images:
                    yield image
    except asyncio.CancelledError:
        progress.interrupted = True  # the images read so far become a partial report
    except IncompleteListingError as error:
        progress.shortfall = str(error)  # also a partial report


def _quota(api: ImagesAPI) -> tuple[QuotaLeft, ...]:
    """Return the rest of each bucket, or of the server's limits; nothing if neither is known."""
    limiter = api.limiter
    # Not by its class: that of the file needs SQLite, which not every Python has.
    buckets: tuple[TokenBucket, ...] | None = getattr(limiter, "buckets", None)
    if buckets is None:
        return ()
    available = limiter.stats().available
    if all(available) and limiter.next_permit_in():
        return ()  # the server refuses requests for a while, so the count does not apply
    remaining = api.rate_limit.remaining if api.rate_limit else math.inf
    return tuple(
        QuotaLeft(bucket.capacity, bucket.per, int(min(left, remaining)))
        for bucket, left in zip(buckets, available, strict=True)
    )


@asynccontextmanager
async def demo_client(images: int, seed: int) -> AsyncGenerator[ImagesAPI, None]:
    """Open a client of an emulated account in this process."""
    from do_images_async.cli.emulator import cannot_listen
    from do_images_async.testing import ImagesEmulator  # a server, which only the demo needs

    emulator = ImagesEmulator(images=images, seed=seed, journal_limit=0)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(emulator)
        except OSError as error:
            raise cannot_listen("127.0.0.1", error) from None
        yield await stack.enter_async_context(ImagesAPI(emulator.token, base_url=emulator.url))
