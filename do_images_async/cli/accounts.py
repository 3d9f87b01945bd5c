"""The reading of one account, or of several at once, into reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import attrs

from do_images_async import Image, ImagesAPI
from do_images_async.audit import AuditReport, audit
from do_images_async.cli.progress import Progress, Watch, show_progress
from do_images_async.errors import DOImagesError

__all__ = ["Account", "Reading", "demo_client", "read_accounts"]


@attrs.frozen(kw_only=True)
class Account:
    """Whose images are read.

    Attributes:
        name: what the report calls it; None where it is the only one.
        client: opens a client for it, which is closed at the end.
    """

    name: str | None
    client: AbstractAsyncContextManager[ImagesAPI] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Reading:
    """How accounts are read.

    Attributes:
        concurrency: pages of an account that are read at once.
        watch: when progress is shown.
        options: what `audit` takes beside the images.
    """

    concurrency: int
    watch: Watch
    options: dict[str, Any]


async def read_accounts(
    accounts: Sequence[Account], reading: Reading
) -> list[tuple[AuditReport | None, DOImagesError | None]]:
    """Read all accounts at once, each on its own quota; a report for each, or why there is none.

    When the task is cancelled, as by Ctrl-C, the reports are of what was read until then, and say so.
    """
    tasks = [asyncio.create_task(_read(account, reading)) for account in accounts]
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        await _stop(tasks)
        if any(task.cancelled() for task in tasks):
            raise
    return [task.result() for task in tasks]


async def _stop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel until all have ended: a cancellation can get lost in what a task is waiting for."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)


async def _read(account: Account, reading: Reading) -> tuple[AuditReport | None, DOImagesError | None]:
    try:
        return await _report(account, reading), None
    except DOImagesError as error:
        return None, error


async def _report(account: Account, reading: Reading) -> AuditReport:
    async with account.client as api, show_progress(api.limiter, reading.watch, account.name) as progress:
        started = time.perf_counter()
        before = api.limiter.stats().granted
        report = await audit(_listed(api, progress, reading.concurrency), **reading.options)
        return attrs.evolve(
            report,
            reported_total=progress.total,
            requests=api.limiter.stats().granted - before,
            pages=progress.pages,
            elapsed=round(time.perf_counter() - started, 3),
            incomplete=_why_partial(progress),
        )


async def _listed(api: ImagesAPI, progress: Progress, concurrency: int) -> AsyncGenerator[Image, None]:
    try:
        async with aclosing(api.list_pages(concurrency=concurrency, strict=True)) as pages:
            async for page in pages:
                progress.advance(len(page), page.total)
                for image in page.images:
                    yield image
    except asyncio.CancelledError:
        progress.interrupted = True  # what has been read becomes a report that says it is partial


def _why_partial(progress: Progress) -> str | None:
    if not progress.interrupted:
        return None
    total = f" of {progress.total:,}" if progress.total else ""
    return f"interrupted after {progress.images:,} images{total}"


@asynccontextmanager
async def demo_client(images: int, seed: int) -> AsyncGenerator[ImagesAPI, None]:
    """A client of an emulated account in this process."""
    from do_images_async.testing import ImagesEmulator  # a server, which only the demo needs

    async with (
        ImagesEmulator(images=images, seed=seed, journal_limit=0) as emulator,
        ImagesAPI(emulator.token, base_url=emulator.url) as api,
    ):
        yield api
