"""The confirmation before a deletion."""

from __future__ import annotations

import sys

import click

from do_images_async.cli.signals import wait_for_line

__all__ = ["check_somebody_is_there", "confirm"]

_ANSWERS = {"y": True, "yes": True, "n": False, "no": False, "": False}


def check_somebody_is_there() -> None:
    """Raise UsageError if stdin is not a terminal, so that nobody can answer."""
    if not sys.stdin.isatty():
        raise click.UsageError("there is nobody to ask: stdin is no terminal; --yes deletes without asking")


def confirm(question: str) -> None:
    """Ask on stderr. Call it outside of the event loop, so that signals end it.

    `click.confirm` would ask the same, but miss a signal that comes just before it begins to read.

    Raises:
        UsageError: there is nobody to ask.
        Abort: the answer is no, or there was a signal instead.
    """
    check_somebody_is_there()
    try:
        is_sure = _answer(question)
    except KeyboardInterrupt:
        is_sure = None
    if is_sure is None:
        click.echo(err=True)  # the end of the question's line
    if not is_sure:
        raise click.Abort


def _answer(question: str) -> bool | None:
    """Return the answer; None at the end of the input, as by Ctrl-D."""
    while True:
        click.echo(f"{question} [y/N]: ", nl=False, err=True)
        wait_for_line(sys.stdin)
        line = sys.stdin.readline()
        if not line:
            return None
        answer = _ANSWERS.get(line.strip().lower())
        if answer is not None:
            return answer
        click.echo("Error: invalid input", err=True)
