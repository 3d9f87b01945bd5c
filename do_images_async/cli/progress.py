"""What stderr shows of anything that takes longer than a second."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from do_images_async import Limiter
from do_images_async.cli.text import counted

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Progress", "Watch", "show_progress", "show_words"]

_INTERVAL = 0.1


@attrs.frozen(kw_only=True)
class Watch:
    """When progress is shown.

    Attributes:
        quiet: never.
        patience: seconds before a terminal shows it.
        interval: seconds between two lines where stderr is no terminal, and before the first.
    """

    quiet: bool = False
    patience: float = 1.0
    interval: float = 10.0


@attrs.define
class Progress:
    """How far the reading of a listing is.

    Attributes:
        account: whose it is, where several are read.
        pages: pages read.
        images: images read.
        total: how many images the server said there are, in the last page that said so.
        interrupted: whether the reading was broken off.
        shortfall: why what was read can't be shown to be everything, if it was read to its end.
    """

    account: str | None = None
    pages: int = 0
    images: int = 0
    total: int | None = None
    interrupted: bool = False
    shortfall: str | None = None

    def advance(self, images: int, total: int | None) -> None:
        """Count one more page."""
        self.pages += 1
        self.images += images
        self.total = self.total if total is None else total

    def why_partial(self) -> str | None:
        """Why what was read is not everything; None when nothing is known to be missing."""
        if not self.interrupted:
            return self.shortfall
        total = f" of {self.total:,}" if self.total else ""
        return f"interrupted after {counted(self.images, 'image')}{total}"

    def describe(self, wait: float) -> str:
        """The numbers in words, with the seconds of a wait for quota."""
        account = f"{self.account}: " if self.account else ""
        images = f"{self.images:,}/{self.total:,} images" if self.total else counted(self.images, "image")
        pause = f", {wait:.0f} s until the quota allows more" if wait else ""
        return f"{account}{images}, {counted(self.pages, 'page')}{pause}"


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

    def line() -> tuple[str, int, int | None]:
        return progress.describe(waits(limiter)), progress.images, progress.total

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
    paint = _paint if sys.stderr.isatty() else _log
    painter = asyncio.create_task(paint(line, watch))
    try:
        yield
    finally:
        painter.cancel()
        await asyncio.gather(painter, return_exceptions=True)


async def _log(line: Callable[[], tuple[str, int, int | None]], watch: Watch) -> None:
    while True:
        await asyncio.sleep(watch.interval)
        sys.stderr.write(f"do-images: {line()[0]}\n")
        sys.stderr.flush()


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
