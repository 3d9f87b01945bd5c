"""The progress on stderr of work that takes longer than a second."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs

from do_images_async import Limiter
from do_images_async.cli.live import registered
from do_images_async.cli.status import complain
from do_images_async.cli.text import counted

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["Progress", "Watch", "show_progress", "show_words"]

_INTERVAL = 0.1
_PER_PAGE = 200


@attrs.frozen(kw_only=True)
class Watch:
    """The rules for showing progress.

    Attributes:
        quiet: never show it.
        lines: show it as lines, even on a terminal.
        patience: seconds before a terminal shows it.
        interval: seconds between two lines if stderr is no terminal, and before the first.
    """

    quiet: bool = False
    lines: bool = False
    patience: float = 1.0
    interval: float = 10.0


@attrs.define
class Progress:
    """The progress of reading a listing.

    Attributes:
        account: the account's name, if several are read.
        pages: pages read.
        images: images read.
        requests: requests sent, including those of the second reading.
        total: the server's count of images, from the last page that had one.
        interrupted: whether the reading was interrupted.
        shortfall: why a listing that was read to its end can't be shown to be complete.
        failure: the error that ended the reading after some pages, in words.
    """

    account: str | None = None
    pages: int = 0
    images: int = 0
    requests: int = 0
    total: int | None = None
    interrupted: bool = False
    shortfall: str | None = None
    failure: str | None = None

    def advance(self, images: int, total: int | None) -> None:
        """Count one more page."""
        self.pages += 1
        self.images += images
        self.total = self.total if total is None else total

    def why_partial(self) -> str | None:
        """Return why the listing is not complete; None if nothing is known to be missing."""
        if self.failure is not None:
            return f"{self._ended('failed')}: {self.failure}"
        return self._ended("interrupted") if self.interrupted else self.shortfall

    def _ended(self, how: str) -> str:
        if self.is_read_once:
            return f"{how} while all {counted(self.images, 'image')} were read again, to miss none"
        total = f" of {self.total:,}" if self.total else ""
        return f"{how} after {counted(self.images, 'image')}{total}"

    @property
    def is_read_once(self) -> bool:
        """Return whether the first reading has found all images by the server's count."""
        return bool(self.total) and self.images >= (self.total or 0)

    @property
    def expected(self) -> int | None:
        """Return the requests that two readings take; None before the server's count is known."""
        return None if self.total is None else 2 * max(1, math.ceil(self.total / _PER_PAGE))

    @property
    def done(self) -> int:
        """Return the requests that count as done: fewer than expected until the list is stable."""
        return self.requests if self.expected is None else min(self.requests, self.expected - 1)

    def describe(self, wait: float) -> str:
        """Return the numbers in words, with the seconds of a wait for the quota."""
        account = f"{self.account}: " if self.account else ""
        images = f"{self.images:,}/{self.total:,} images" if self.total else counted(self.images, "image")
        again = ", reading again to miss none" if self.is_read_once else ""
        pause = f", {wait:.0f} s until the quota allows more" if wait else ""
        return f"{account}{images}, {counted(self.pages, 'page')}{again}{pause}"


def waits(limiter: Limiter) -> float:
    """Return the seconds that the next call waits for the quota; 0 if no call waits."""
    return limiter.next_permit_in() if limiter.stats().waiting else 0.0


@asynccontextmanager
async def show_progress(
    limiter: Limiter, watch: Watch, account: str | None = None
) -> AsyncGenerator[Progress, None]:
    """Show the counts of the yielded object until the block ends.

    Args:
        limiter: whose waits are shown as well.
        watch: when it is shown.
        account: the account's name, if several are read.
    """
    progress = Progress(account)
    before = limiter.stats().granted

    def line() -> tuple[str, int, int | None]:
        progress.requests = limiter.stats().granted - before
        return progress.describe(waits(limiter)), progress.done, progress.expected

    async with _shown(line, watch):
        yield progress


@asynccontextmanager
async def show_words(limiter: Limiter, watch: Watch, words: Callable[[], str]) -> AsyncGenerator[None, None]:
    """Show the current work in words until the block ends.

    Args:
        limiter: whose waits are shown as well.
        watch: when it is shown.
        words: returns the words.
    """

    def line() -> tuple[str, int, int | None]:
        wait = waits(limiter)
        pause = f", {wait:.0f} s until the quota allows more" if wait else ""
        return words() + pause, 0, None

    async with _shown(line, watch):
        yield


@asynccontextmanager
async def _shown(line: Callable[[], tuple[str, int, int | None]], watch: Watch) -> AsyncGenerator[None, None]:
    if watch.quiet:
        yield
        return
    paint = _paint if sys.stderr.isatty() and not watch.lines else _log
    painter = asyncio.create_task(paint(line, watch))
    try:
        yield
    finally:
        painter.cancel()
        await asyncio.gather(painter, return_exceptions=True)


async def _log(line: Callable[[], tuple[str, int, int | None]], watch: Watch) -> None:
    while True:
        await asyncio.sleep(watch.interval)
        complain(line()[0])


async def _paint(line: Callable[[], tuple[str, int, int | None]], watch: Watch) -> None:
    await asyncio.sleep(watch.patience)
    painter = _Painter()
    with registered(painter):
        try:
            while True:
                painter.paint(*line())
                await asyncio.sleep(_INTERVAL)
        finally:
            painter.clear()


class _Painter:
    """Paints the progress on the terminal; each time it was cleared, in a new line."""

    def __init__(self) -> None:
        from do_images_async.cli.terminal import progress_console  # rich is slow to import

        self._console = progress_console()
        self._began = time.monotonic()
        self._bar: Bar | None = None

    def paint(self, description: str, completed: int, total: int | None) -> None:
        if self._bar is None:
            self._bar = self._begin()
        for task in self._bar.task_ids:
            self._bar.update(task, completed=completed, total=total, description=description)
        self._bar.refresh()

    def clear(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            with suppress(OSError):  # the terminal is gone
                bar.stop()

    def _begin(self) -> Bar:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (
            SpinnerColumn(),
            BarColumn(bar_width=16),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
        )
        # By default it replaces stdout and stderr, which would lose the output of others.
        # No refresh from rich's own thread: the limiter must be read in the event loop's thread.
        bar = Bar(
            *columns,
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
            auto_refresh=False,
            transient=True,
        )
        task = bar.add_task("", total=None)
        bar.tasks[task].start_time = bar.get_time() - (time.monotonic() - self._began)
        bar.start()
        return bar
