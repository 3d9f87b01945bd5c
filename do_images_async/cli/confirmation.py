"""The question before something is deleted."""

from __future__ import annotations

import sys

import click

__all__ = ["check_somebody_is_there", "confirm"]


def check_somebody_is_there() -> None:
    """Raise UsageError where there is nobody to ask."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask: stdin is no terminal; --yes deletes without asking")


def confirm(question: str) -> None:
    """Ask on stderr; call it outside of the event loop, where Ctrl-C ends it.

    Raises:
        UsageError: there is nobody to ask.
        Abort: the answer is no.
    """
    check_somebody_is_there()
    click.confirm(question, abort=True, err=True)
