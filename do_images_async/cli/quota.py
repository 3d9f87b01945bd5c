"""The limiter of the command: all of a user's runs on one machine share a token's quota."""

from __future__ import annotations

import os

from do_images_async import FileRateLimiter

__all__ = ["shared_quota"]

_VARIABLE = "DO_IMAGES_QUOTA_FILE"


def shared_quota() -> FileRateLimiter | None:
    """Return a limiter over the file that `DO_IMAGES_QUOTA_FILE` names, or the default; None if it is "off".

    A command that can't use the file goes on without it: it is a help, not a condition.
    """
    path = os.environ.get(_VARIABLE)
    return None if path == "off" else FileRateLimiter(path or None, on_store_failure="local")
