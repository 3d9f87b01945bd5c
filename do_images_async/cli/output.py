"""The output of a command: stdout, or a file that is either complete or unchanged."""

from __future__ import annotations

import io
import os
import stat
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TextIO, cast

import attrs

from do_images_async.cli.files import partial_of
from do_images_async.cli.live import clear_displays
from do_images_async.cli.signals import stopping_is_held
from do_images_async.cli.status import Exit, Stopped
from do_images_async.cli.streams import abandon, is_writable, wait_until_writable
from do_images_async.cli.text import printable_lines

_WRITABLE: Final = 512
"""The bytes that a pipe takes at once if it takes any (POSIX's least PIPE_BUF)."""

__all__ = ["Stdout", "Target", "destination", "is_file", "stdout", "told_if_lost", "write", "write_file"]


class Target(Protocol):
    """An output of text, whose `write` returns when all of the text is written."""

    def write(self, text: str, *, styled: bool = False, data: bool = False) -> None: ...


class Stdout:
    """The only writer to stdout in the command.

    It keeps the stream that was stdout when the command began. Code that replaces `sys.stdout` later, such as
    a live display, does not affect its output.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str, *, styled: bool = False, data: bool = False) -> None:
        """Write all of the text before returning.

        Args:
            text: the text.
            styled: whether the command itself added escape sequences. Otherwise a terminal gets none.
            data: whether a program reads the text, so that it is UTF-8 in any locale.

        Raises:
            Stopped: it can't be written, as on a full disk, or the reader has left, as `head` does.
        """
        clear_displays()
        if not styled and self.stream.isatty():
            text = printable_lines(text)
        try:
            _write_text(self.stream, text, data=data)
        except BrokenPipeError:
            abandon(self.stream)
            raise Stopped(Exit.BROKEN_PIPE) from None
        except OSError as error:
            abandon(self.stream)
            raise _unwritten("the output", error) from None


def _write_text(stream: TextIO, text: str, *, data: bool) -> None:
    stream.flush()
    binary: io.RawIOBase | None = getattr(stream, "buffer", None)
    if binary is None:  # a test's stdout may have no bytes
        stream.write(text)
        return
    encoding = "utf-8" if data else stream.encoding
    _write_all(getattr(binary, "raw", binary), text.encode(encoding, errors="backslashreplace"))


def _write_all(raw: io.RawIOBase, content: bytes) -> None:
    """Write all of it: a file that becomes full, or a pipe, may take a part, which Python does not tell.

    With `PYTHONUNBUFFERED` nothing else would write the rest, or find out why it can't be written.
    """
    left = memoryview(content)
    held = stopping_is_held()
    while left:
        if held:
            wait_until_writable(raw)
        written = raw.write(left[:_WRITABLE] if held else left)
        if written is None:  # a pipe that does not block, and is full
            is_writable(raw.fileno(), None)
        else:
            left = left[written:]


_stdout: ContextVar[Stdout | None] = ContextVar("_stdout", default=None)


@contextmanager
def stdout() -> Generator[Stdout]:
    """Keep the current stdout for `write` until the block ends.

    A character that its encoding lacks is written as an escape.
    """
    if reconfigure := getattr(sys.stdout, "reconfigure", None):  # a test's stdout may have none
        reconfigure(errors="backslashreplace")
    output = Stdout(sys.stdout)
    token = _stdout.set(output)
    try:
        yield output
    finally:
        _stdout.reset(token)


def write(text: str) -> None:
    """Write to stdout, as `Stdout.write` does."""
    (_stdout.get() or Stdout(sys.stdout)).write(text)


@attrs.frozen
class _File:
    """A file that is being written."""

    path: Path
    file: BinaryIO

    def write(self, text: str, *, styled: bool = False, data: bool = False) -> None:
        with _failures(self.path):
            _write_all(cast("io.RawIOBase", self.file), text.encode(errors="backslashreplace"))


@contextmanager
def destination(path: Path | None) -> Generator[Target]:
    """Open a file for a result, or stdout, until the block is left.

    The file is replaced atomically when the block ends, so a reader sees the old one or the new one. A
    block that raises leaves the old one unchanged; a partial result is kept beside it, in FILE.partial,
    until a result is complete.

    Args:
        path: the file; None or "-" for stdout. A device, which can't be replaced, is written to.

    Raises:
        Stopped: it can't be written.
    """
    if path is None or not is_file(path):
        yield _stdout.get() or Stdout(sys.stdout)
        return
    target = _followed(path)
    if target is None:
        with _failures(path):
            device = path.open("wb", buffering=0)
        with device:
            yield _File(path, device)
        return
    with _replaced(path, target) as file:
        yield file
    partial = partial_of(target)
    if partial.is_file() and not partial.is_symlink():
        with suppress(OSError):  # the result is written all the same
            partial.unlink()


@contextmanager
def _replaced(path: Path, target: Path) -> Generator[Target]:
    """Open a draft that replaces the target when the block ends."""
    with _failures(path):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".do-images-")
    draft = Path(name)
    try:
        # Without a buffer: the end of the block must have nothing left to write, which could fail there.
        with os.fdopen(handle, "wb", buffering=0) as file:
            yield from _drafted(path, target, draft, file)
        with _failures(path):
            draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def told_if_lost(changes: Sequence[str]) -> Generator[None]:
    """Tell on stderr what a command has changed, if its output can't be written or is interrupted.

    Args:
        changes: the changes so far, in words; the block adds to them.

    Raises:
        Stopped: as the block raised it, with the changes in its message if the output was lost.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not changes:
            raise
        raise Stopped(Exit.INTERRUPTED, "; ".join(["interrupted", *changes])) from None
    except Stopped as lost:
        if lost.status not in (Exit.IO_ERROR, Exit.BROKEN_PIPE):
            raise
        message = str(lost)
        untold = [change for change in changes if change not in message]
        told = "; ".join(part for part in (message, *untold) if part)
        raise Stopped(lost.status, told, partial=lost.partial) from None


def _drafted(path: Path, target: Path, draft: Path, file: BinaryIO) -> Generator[Target]:
    try:
        yield _File(path, file)
    except Stopped as stopped:
        if not stopped.partial or not file.tell():
            raise
        partial = partial_of(target)
        kept = f", and {path} is as it was" if target.exists() else ""
        try:
            _finish(file, draft, 0o666 & ~_mask())
            draft.replace(partial)
        except OSError as error:
            raise Stopped(Exit.IO_ERROR, f"{_unwritten(str(partial), error)}; {stopped}") from None
        raise Stopped(
            stopped.status, f"{stopped}; what was read is in {partial}{kept}", partial=True
        ) from None
    with _failures(path):
        _finish(file, draft, _mode(target))


def is_file(path: Path | None) -> bool:
    """Return whether `destination` of this path is a file, and not stdout."""
    return path is not None and str(path) != "-"


def write_file(path: Path, text: str) -> None:
    """Replace the file with this text atomically, or write to a device.

    Raises:
        Stopped: it can't be written.
    """
    target = _followed(path)
    if target is None:
        with destination(path) as device:
            device.write(text)
        return
    with _replaced(path, target) as file:
        file.write(text)


def _followed(path: Path) -> Path | None:
    """Return the file that the path leads to, even if it does not exist yet; None if it can't be replaced."""
    with _failures(path):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG
    return Path(os.path.realpath(path)) if stat.S_ISREG(mode) else None


def _finish(file: BinaryIO, draft: Path, mode: int) -> None:
    os.fsync(file.fileno())
    draft.chmod(mode)


def _mode(path: Path) -> int:
    """Return the permissions of the existing file, or those of a new one."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    return 0o666 & ~_mask()


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _failures(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritten(str(path), error) from None


def _unwritten(what: str, error: OSError) -> Stopped:
    return Stopped(Exit.IO_ERROR, f"{what} could not be written: {error.strerror or error}")
