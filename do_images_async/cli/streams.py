"""The standard streams of the process: opened at its start, and flushed before its end."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TextIO

from do_images_async.cli.signals import wait_held

if TYPE_CHECKING:
    import io

__all__ = ["abandon", "flush_streams", "is_writable", "open_streams", "wait_until_writable"]


def open_streams() -> None:
    """Open the standard streams that the process was started without, as by `>&-`.

    Otherwise the next file or socket would become descriptor 1, and receive what is written to stdout.
    Reading then fails, for nothing to read is not the same as an empty input. Writing to stdout fails, too,
    and output to stderr is dropped.
    """
    for descriptor, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free descriptor
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def flush_streams() -> None:
    """Flush stdout and stderr, so that the interpreter's own flush can't change the status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            abandon(stream)


def wait_until_writable(stream: io.IOBase | TextIO) -> None:
    """Wait until a stream takes data; signals that are held end the wait, for its reader may never read.

    Raises:
        KeyboardInterrupt: there was a signal, and it takes none.
    """
    with suppress(OSError, ValueError):  # no descriptor; on Windows, no socket
        descriptor = stream.fileno()
        if not is_writable(descriptor, 0):
            wait_held(partial(is_writable, descriptor))


def is_writable(descriptor: int, seconds: float | None) -> bool:
    """Wait so many seconds, or for ever, until it takes data; return whether it does."""
    return bool(select.select([], [descriptor], [], seconds)[1])


def abandon(stream: TextIO) -> None:
    """Discard the data that a stream could not write and still buffers."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
