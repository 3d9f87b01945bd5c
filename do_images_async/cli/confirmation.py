"""The confirmation before a deletion."""

from __future__ import annotations

import sys

import click

__all__ = ["check_somebody_is_there", "confirm"]


def check_somebody_is_there() -> None:
    """Raise UsageError if stdin is not a terminal, so that nobody can answer."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask: stdin is no terminal; --yes deletes without asking")


def confirm(question: str) -> None:
    """Ask on stderr. Call it outside of the event loop, so that Ctrl-C ends it.

    Raises:
        UsageError: there is nobody to ask.
        Abort: the answer is no.
    """
    check_somebody_is_there()
    click.confirm(question, abort=True, err=True)
