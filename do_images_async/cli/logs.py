"""The log on stderr, with a line for each attempt, wait and retry."""

from __future__ import annotations

import logging
import os
import time

import click

from do_images_async.cli.status import complain

__all__ = ["is_logging", "start_log"]

_LOGGER = logging.getLogger("do_images_async")
_LEVELS = ("debug", "info", "warning", "error")


class _Lines(logging.Handler):
    """A log handler that writes each record as a line of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        complain(f"{clock} {record.getMessage()}")


def start_log(*, verbose: bool) -> None:
    """Log to stderr at the level of `--verbose` or `DO_IMAGES_LOG`; without either, log nothing.

    Raises:
        UsageError: `DO_IMAGES_LOG` is no level.
    """
    level = _level(verbose=verbose)
    if level is None:
        return
    _LOGGER.setLevel(level)
    if not any(isinstance(handler, _Lines) for handler in _LOGGER.handlers):
        _LOGGER.addHandler(_Lines())


def is_logging(*, verbose: bool) -> bool:
    """Return whether a log is written; progress would then disturb it."""
    return _level(verbose=verbose) is not None


def _level(*, verbose: bool) -> str | None:
    if verbose:
        return "DEBUG"
    named = os.environ.get("DO_IMAGES_LOG", "").strip().lower()
    if named and named not in _LEVELS:
        raise click.UsageError(f"DO_IMAGES_LOG must be one of {', '.join(_LEVELS)}")
    return named.upper() or None
