"""The command's limiter: all runs of a user on one machine share a token's quota."""

from __future__ import annotations

import os

from do_images_async import FileRateLimiter

__all__ = ["shared_quota"]

_VARIABLE = "DO_IMAGES_QUOTA_FILE"


def shared_quota() -> FileRateLimiter | None:
    """Return a limiter on the file in `DO_IMAGES_QUOTA_FILE` or the default file; None if it is "off".

    A command that can't use the file continues without it.
    """
    path = os.environ.get(_VARIABLE)
    return None if path == "off" else FileRateLimiter(path or None, on_store_failure="local")
