"""One quota for each token and origin: clients in one process that spend the same token share a limiter."""

from __future__ import annotations

import os
import threading
from weakref import WeakSet

from yarl import URL

from do_images_async._credentials import Token
from do_images_async._quota.limiter import RateLimiter

__all__ = ["origin_of_quota", "shared_limiter"]


class _Entry:
    """A limiter, and the objects that use it."""

    __slots__ = ("limiter", "users")

    def __init__(self) -> None:
        self.limiter = RateLimiter()
        self.users: WeakSet[object] = WeakSet()

    @property
    def done(self) -> bool:
        """Return whether a new limiter could take its place without any difference."""
        return not self.users and self.limiter.idle


entries: dict[tuple[str, URL], _Entry] = {}
"""The limiters in use, by the digest of the token and the origin."""

_lock = threading.Lock()


def _renew_lock() -> None:
    """Make a new lock in a forked child: a thread of the parent may have held the old one."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def origin_of_quota(origin: URL) -> URL:
    """Return the one form of an origin: without its scheme's default port and a dot at the host's end."""
    host = origin.host or ""
    if host.endswith("."):
        origin = origin.with_host(host.rstrip("."))
    return origin.with_port(None) if origin.is_default_port() else origin


def shared_limiter(token: Token, origin: URL, user: object) -> RateLimiter:
    """Return the limiter that everyone in this process shares who spends this token at this origin.

    The limiter is kept as long as a user lives, and then until its tokens are back. So even a program that
    makes a client for each request stays under the quota. Only a digest of the token is kept.

    Args:
        token: whose quota it is.
        origin: the server that counts.
        user: who is going to use it; held weakly.
    """
    key = (token.digest(), origin_of_quota(origin))
    with _lock:
        for other in [each for each, entry in entries.items() if each != key and entry.done]:
            del entries[other]
        entry = entries.get(key)
        if entry is None:
            entry = entries[key] = _Entry()
        entry.users.add(user)
        return entry.limiter
