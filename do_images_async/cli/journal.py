"""The journal of deletions: a line before and after each, synced to the disk before the command continues."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import attrs

from do_images_async.cli.status import Exit, Stopped
from do_images_async.cli.text import timestamp

__all__ = ["DELETED", "DELETING", "Journal", "open_journal"]

DELETING: Final = "deleting"
"""The event of the line that is written before a deletion; all others follow one."""

DELETED: Final = "deleted"

_BEGINNING: Final = b'{"time": "'

Key = tuple[str | None, int]


@attrs.define
class Journal:
    """The record of what was done to each image, as lines of JSON in a file, or nowhere.

    Attributes:
        path: the file; None writes nothing.
        plan: the digest of the plan; lines of other plans are ignored.
        last: the last event of each image in earlier runs of the plan, by account and id.
    """

    path: Path | None
    plan: str
    last: dict[Key, str] = attrs.field(factory=dict[Key, str])
    _descriptor: int = attrs.field(default=-1, alias="descriptor")

    def write(self, event: str, account: str | None, image_id: int, name: str, **more: str) -> None:
        """Write a line, and wait until it is on the disk.

        Raises:
            Stopped: it can't be written.
        """
        if self.path is None:
            return
        line = {
            "time": timestamp(datetime.now(UTC)),
            "plan": self.plan,
            "event": event,
            "account": account,
            "id": image_id,
            "name": name,
            **more,
        }
        try:
            self._append((json.dumps(line) + "\n").encode())
            os.fsync(self._descriptor)
        except OSError as error:
            raise _unusable(self.path, f"could not be written: {error.strerror}") from None

    def _append(self, line: bytes) -> None:
        """Append a line as a whole, or nothing of it: the next line must not follow half of one."""
        size = os.fstat(self._descriptor).st_size
        left = line
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            with suppress(OSError):  # the next run removes it
                os.ftruncate(self._descriptor, size)
            raise


@contextmanager
def open_journal(path: Path | None, plan: str) -> Generator[Journal]:
    """Open an existing or a new journal until the block ends.

    Raises:
        Stopped: it can't be read or written, is no journal, or is being written by another run.
    """
    if path is None:
        yield Journal(None, plan)
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise _unusable(path, f"could not be opened: {error.strerror}") from None
    try:
        yield _opened(path, plan, descriptor)
    finally:
        os.close(descriptor)


def _opened(path: Path, plan: str, descriptor: int) -> Journal:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise Stopped(Exit.USAGE, f"--journal: {path} is no regular file")
    _lock(path, descriptor)
    try:
        data = path.read_bytes()
        *whole, rest = data.split(b"\n")
        lines = list(_lines([*whole, rest]))
        if data and not lines and (whole or not _is_begun(rest)):
            raise Stopped(Exit.USAGE, f"--journal: {path} is no journal of `prune`")
        _end_last_line(descriptor, rest)
        _sync_folder(path)
    except OSError as error:
        raise _unusable(path, f"could not be used: {error.strerror}") from None
    return Journal(path, plan, _last_events(lines, plan), descriptor)


def _is_begun(data: bytes) -> bool:
    """Return whether the data may be a part of a journal's first line."""
    try:
        json.loads(data)
    except ValueError:
        return data.startswith(_BEGINNING) or _BEGINNING.startswith(data)
    return False  # somebody else's JSON


def _end_last_line(descriptor: int, rest: bytes) -> None:
    """End the last line of a run that was killed if it is complete, or else remove it.

    Args:
        descriptor: the journal.
        rest: what follows its last line feed.
    """
    if any(_lines([rest])):
        os.write(descriptor, b"\n")
    elif rest:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - len(rest))


def _lock(path: Path, descriptor: int) -> None:
    """Lock the journal for this run, if the system has file locks."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Stopped(Exit.REFUSED, f"--journal: another run is writing {path}") from None
    except OSError:
        return  # a file system without locks


def _sync_folder(path: Path) -> None:
    """Sync the folder, so that a new file survives a crash of the machine."""
    with suppress(OSError):  # some systems don't open folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _lines(data: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the lines that are complete."""
    for line in data:
        with suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict) and {"plan", "event", "account", "id"} <= set(
                cast("dict[str, Any]", record)
            ):
                yield cast("dict[str, Any]", record)


def _last_events(lines: Iterable[dict[str, Any]], plan: str) -> dict[Key, str]:
    return {(line["account"], line["id"]): line["event"] for line in lines if line["plan"] == plan}


def _unusable(path: Path, why: str) -> Stopped:
    return Stopped(Exit.IO_ERROR, f"--journal: {path} {why}")
