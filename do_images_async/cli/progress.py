"""What stderr shows while a listing is read, if it is a terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from do_images_async import Limiter
from do_images_async.cli.text import counted

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Progress", "show_progress"]

_INTERVAL = 0.1


@attrs.define
class Progress:
    """How far the reading of a listing is.

    Attributes:
        pages: pages read.
        images: images read.
        total: how many images the server said there are, in the last page that said so.
    """

    pages: int = 0
    images: int = 0
    total: int | None = None

    def advance(self, images: int, total: int | None) -> None:
        """Count one more page."""
        self.pages += 1
        self.images += images
        self.total = self.total if total is None else total

    def describe(self, wait: float) -> str:
        """The numbers in words, with the seconds of a wait for quota."""
        images = f"{self.images:,}/{self.total:,} images" if self.total else counted(self.images, "image")
        pause = f", {wait:.0f} s until the quota allows more" if wait else ""
        return f"{images}, {counted(self.pages, 'page')}{pause}"


@asynccontextmanager
async def show_progress(limiter: Limiter) -> AsyncGenerator[Progress, None]:
    """Show what is counted in the yielded object until the block is left.

    Args:
        limiter: whose waits are shown as well.
    """
    progress = Progress()
    if not sys.stderr.isatty():
        yield progress
        return
    from rich.console import Console  # rich takes its time to import
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (SpinnerColumn(), BarColumn(bar_width=16), TextColumn("{task.description}", markup=False))
    # rich would paint from a thread of its own, where the limiter must not be read.
    with Bar(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
        painter = asyncio.create_task(_paint(bar, bar.add_task("", total=None), progress, limiter))
        try:
            yield progress
        finally:
            painter.cancel()
            await asyncio.gather(painter, return_exceptions=True)


async def _paint(bar: Bar, task: TaskID, progress: Progress, limiter: Limiter) -> None:
    while True:
        wait = limiter.next_permit_in() if limiter.stats().waiting else 0.0
        bar.update(task, completed=progress.images, total=progress.total, description=progress.describe(wait))
        bar.refresh()
        await asyncio.sleep(_INTERVAL)
