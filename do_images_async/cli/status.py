"""The exit statuses, and the line on stderr that explains them."""

from __future__ import annotations

import sys
from contextlib import suppress
from enum import IntEnum

import click

from do_images_async.cli.live import clear_displays
from do_images_async.cli.signals import stopping_is_held
from do_images_async.cli.streams import wait_until_writable
from do_images_async.cli.text import masked, printable

__all__ = ["Exit", "Stopped", "complain", "message_with_notes"]


class Exit(IntEnum):
    """The exit statuses."""

    OK = 0
    FINDINGS = 1  # `audit` found something at or above the chosen severity
    USAGE = 2
    API_ERROR = 3
    INCOMPLETE = 4  # the listing couldn't be read whole
    REFUSED = 5  # the tool declined: over `--max-delete`, images changed or gone, the journal in use
    # 64 and up follow sysexits.
    INTERNAL_ERROR = 70
    IO_ERROR = 74
    # 128 + signal.
    INTERRUPTED = 130  # by a signal, of which the process then dies, or by a question answered no
    BROKEN_PIPE = 141


class Stopped(Exception):  # noqa: N818  (not an error if, e.g., the reader of a pipe left, or on Ctrl-C)
    """The early end of a command.

    Attributes:
        status: the exit status.
        partial: whether its output is only a part of the result.
    """

    def __init__(self, status: Exit, message: str = "", *, partial: bool = False) -> None:
        self.status = status
        self.partial = partial
        super().__init__(message)


def complain(message: str) -> None:
    """Write one line to stderr if possible, with tokens masked and control characters made visible."""
    clear_displays()
    if stopping_is_held():
        wait_until_writable(sys.stderr)
    with suppress(OSError):
        click.echo(f"do-images: {printable(masked(message))}", err=True)


def message_with_notes(error: BaseException) -> str:
    """Return an error's message with its notes, such as where the token came from."""
    notes: list[str] = getattr(error, "__notes__", [])
    return "; ".join([str(error), *notes])
