"""The command's limiter: all runs of a user on one machine share a token's quota."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import click

from do_images_async.cli.files import path_in_home
from do_images_async.cli.status import complain

if TYPE_CHECKING:
    from do_images_async import FileRateLimiter

__all__ = ["shared_quota", "warn_of_unshared_quota"]

_LOGGER = logging.getLogger("do_images_async.quota")
_VARIABLE = "DO_IMAGES_QUOTA_FILE"


class _FirstWarning(logging.Handler):
    """A log handler that writes the first warning as a line of the command, and no other."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._written = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._written:
            self._written = True
            complain(f"warning: {record.getMessage()}; {_VARIABLE} names another file, or is off")


def shared_quota() -> FileRateLimiter | None:
    """Return a limiter on the file in `DO_IMAGES_QUOTA_FILE` or the default file; None if it is "off".

    A command that can't use the file continues without it. The default file's folder is made, but one that
    the user names must be there: a folder with a typing error would share the quota with nobody.
    """
    value = os.environ.get(_VARIABLE, "")
    if value.strip().lower() == "off":
        return None
    from do_images_async import FileRateLimiter  # needs SQLite, which not every Python has

    if not value:
        return FileRateLimiter(on_store_failure="local")
    path = path_in_home(value)
    if not path.parent.exists():
        _LOGGER.warning("the quota is not shared with others: %s: there is no folder %s", path, path.parent)
        return None
    return FileRateLimiter(path, on_store_failure="local")


def warn_of_unshared_quota() -> None:
    """Say on stderr when the file can't be used, once until the running command ends."""
    if any(isinstance(handler, _FirstWarning) for handler in _LOGGER.handlers):
        return
    handler = _FirstWarning()
    _LOGGER.addHandler(handler)
    click.get_current_context().call_on_close(lambda: _LOGGER.removeHandler(handler))
