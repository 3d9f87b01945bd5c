"""The quota in a file, on a clock that a test moves, and with boots that it makes."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.sqlite import BootClock, SQLiteStore
from do_images_async._quota.store import Exchange, Reply

__all__ = ["VirtualFile"]


class _Clock(BootClock):
    def __init__(self, microseconds: Callable[[], int]) -> None:
        self._microseconds = microseconds
        self._booted = 0
        self._boots = 0

    def reboot(self) -> None:
        """Restart the clock at zero, with a new boot id."""
        self._booted = self._microseconds()
        self._boots += 1

    def now(self) -> int:
        return (self._microseconds() - self._booted) * 1000

    def boot(self) -> str:
        return f"boot {self._boots}"

    def is_now(self, boot: str) -> bool:
        return boot == self.boot()


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


class VirtualFile:
    """A quota file, and the processes that use it.

    Args:
        buckets: the limits.
        microseconds: the time.
    """

    def __init__(self, buckets: Sequence[TokenBucket], microseconds: Callable[[], int]) -> None:
        folder = tempfile.TemporaryDirectory()
        self._path = Path(folder.name) / "quota.db"
        self._buckets = buckets
        self._clock = _Clock(microseconds)
        self._numbers = itertools.count()
        self._processes: dict[str, SQLiteStore] = {}
        weakref.finalize(self, folder.cleanup)

    def exchange(self, ask: Exchange) -> Reply:
        """Carry out an exchange in the process of its worker."""
        store = self._processes.get(ask.worker)
        if store is None:
            store = SQLiteStore(self._path, "a token", self._buckets, 20.0, clock=self._clock)
            self._processes[ask.worker] = store
        return store.exchange_now(ask)

    def back_up(self) -> None:
        """Copy the file."""
        _copy(self._path, self._path.with_suffix(".backup"))

    def restore(self, *, replace: bool) -> None:
        """Put the copy in the file's place, or write it over the file; the processes go on."""
        backup = self._path.with_suffix(".backup")
        if not replace:
            _copy(backup, self._path)
            return
        _copy(backup, self._path.with_suffix(".new"))
        for file in self._path.parent.glob("quota.db-*"):
            file.unlink()
        self._path.with_suffix(".new").replace(self._path)

    def reboot(self) -> None:
        """End all processes, and start the clock anew."""
        for store in self._processes.values():
            store.close()
        self._processes.clear()
        self._clock.reboot()

    def close(self) -> None:
        """End all processes."""
        for store in self._processes.values():
            store.close()
