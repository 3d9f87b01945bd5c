"""What stderr shows of anything that takes longer than a second."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from do_images_async import Limiter
from do_images_async.cli.status import complain
from do_images_async.cli.text import counted

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Progress", "Watch", "show_progress", "show_words"]

_INTERVAL = 0.1
_PER_PAGE = 200


@attrs.frozen(kw_only=True)
class Watch:
    """When progress is shown.

    Attributes:
        quiet: never.
        lines: as lines, also on a terminal.
        patience: seconds before a terminal shows it.
        interval: seconds between two lines where stderr is no terminal, and before the first.
    """

    quiet: bool = False
    lines: bool = False
    patience: float = 1.0
    interval: float = 10.0


@attrs.define
class Progress:
    """How far the reading of a listing is.

    Attributes:
        account: whose it is, where several are read.
        pages: pages read.
        images: images read.
        requests: requests sent for them, those of the second reading included.
        total: how many images the server said there are, in the last page that said so.
        interrupted: whether the reading was broken off.
        shortfall: why what was read can't be shown to be everything, if it was read to its end.
    """

    account: str | None = None
    pages: int = 0
    images: int = 0
    requests: int = 0
    total: int | None = None
    interrupted: bool = False
    shortfall: str | None = None

    def advance(self, images: int, total: int | None) -> None:
        """Count one more page."""
        self.pages += 1
        self.images += images
        self.total = self.total if total is None else total

    def why_partial(self) -> str | None:
        """Return why what was read is not everything; None when nothing is known to be missing."""
        if not self.interrupted:
            return self.shortfall
        if self.is_read_once:
            return f"interrupted while all {counted(self.images, 'image')} were read again, to miss none"
        total = f" of {self.total:,}" if self.total else ""
        return f"interrupted after {counted(self.images, 'image')}{total}"

    @property
    def is_read_once(self) -> bool:
        """Whether as many images were read as the server says there are: the list is being read again."""
        return bool(self.total) and self.images >= (self.total or 0)

    @property
    def expected(self) -> int | None:
        """Requests that two readings take; None before the server has said how many images there are."""
        return None if self.total is None else 2 * max(1, math.ceil(self.total / _PER_PAGE))

    @property
    def done(self) -> int:
        """Requests that count as done: not all, before the list has come to rest."""
        return self.requests if self.expected is None else min(self.requests, self.expected - 1)

    def describe(self, wait: float) -> str:
        """Return the numbers in words, with the seconds of a wait for quota."""
        account = f"{self.account}: " if self.account else ""
        images = f"{self.images:,}/{self.total:,} images" if self.total else counted(self.images, "image")
        again = ", reading again to miss none" if self.is_read_once else ""
        pause = f", {wait:.0f} s until the quota allows more" if wait else ""
        return f"{account}{images}, {counted(self.pages, 'page')}{again}{pause}"


def waits(limiter: Limiter) -> float:
    """Seconds that the quota makes the next call wait; 0 when nobody waits."""
    return limiter.next_permit_in() if limiter.stats().waiting else 0.0


@asynccontextmanager
async def show_progress(
    limiter: Limiter, watch: Watch, account: str | None = None
) -> AsyncGenerator[Progress, None]:
    """Show what is counted in the yielded object until the block is left.

    Args:
        limiter: whose waits are shown as well.
        watch: when it is shown.
        account: whose listing it is, where several are read.
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
    """Show what is being done until the block is left.

    Args:
        limiter: whose waits are shown as well.
        watch: when it is shown.
        words: says it.
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
    from rich.console import Console  # rich takes its time to import
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=16),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    # It must not take over stdout or stderr, as it does by default: what others write there would be lost.
    # And it must not paint from a thread of its own, where the limiter must not be read.
    with Bar(
        *columns,
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
        auto_refresh=False,
        transient=True,
    ) as bar:
        await _repaint(bar, bar.add_task("", total=None), line)


async def _repaint(bar: Bar, task: TaskID, line: Callable[[], tuple[str, int, int | None]]) -> None:
    while True:
        description, completed, total = line()
        bar.update(task, completed=completed, total=total, description=description)
        bar.refresh()
        await asyncio.sleep(_INTERVAL)
