"""One quota for each token and origin: clients in one process that spend the same token share a limiter."""

from __future__ import annotations

import os
import threading
from weakref import WeakSet

from yarl import URL

from do_images_async._credentials import Token
from do_images_async._quota.limiter import RateLimiter

__all__ = ["shared_limiter"]


class _Entry:
    """A limiter, and who uses it."""

    __slots__ = ("limiter", "users")

    def __init__(self) -> None:
        self.limiter = RateLimiter()
        self.users: WeakSet[object] = WeakSet()

    @property
    def done(self) -> bool:
        """Whether nobody would notice if a new limiter took its place."""
        return not self.users and self.limiter.idle


entries: dict[tuple[str, URL], _Entry] = {}
"""The limiters in use, by the digest of the token and the origin."""

_lock = threading.Lock()


def _renew_lock() -> None:
    """Another thread of the parent may have held it, and does not exist in the child."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def shared_limiter(token: Token, origin: URL, user: object) -> RateLimiter:
    """The limiter of everyone in this process who spends this token at this origin.

    It is kept as long as a user lives, and then until its tokens are back: a client for each request, closed
    and forgotten, stays under the quota as well. The token itself is not kept, only its digest.

    Args:
        token: whose quota it is.
        origin: the server that counts.
        user: who is going to use it; held weakly.
    """
    key = (token.digest(), origin)
    with _lock:
        for other in [each for each, entry in entries.items() if each != key and entry.done]:
            del entries[other]
        entry = entries.get(key)
        if entry is None:
            entry = entries[key] = _Entry()
        entry.users.add(user)
        return entry.limiter
