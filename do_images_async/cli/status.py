"""What the process ends with, and the line on stderr that says why."""

from __future__ import annotations

from enum import IntEnum

import click

from do_images_async.cli.text import printable

__all__ = ["Exit", "Stopped", "complain"]


class Exit(IntEnum):
    """The exit statuses."""

    OK = 0
    FINDINGS = 1
    USAGE = 2
    API_ERROR = 3
    INCOMPLETE = 4
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class Stopped(Exception):  # noqa: N818  (not always an error)
    """A command ends early; `status` is what the process ends with, the message what stderr shows."""

    def __init__(self, status: Exit, message: str) -> None:
        self.status = status
        super().__init__(message)


def complain(message: str) -> None:
    """Write one line to stderr; what a server sent in it is made harmless."""
    click.echo(f"do-images: {printable(message)}", err=True)
