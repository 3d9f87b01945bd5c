"""The journal: every request that the emulator received, and the status of its response."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, overload

import attrs

__all__ = ["Entry", "Journal", "check_request", "digest", "matches"]


def digest(token: str) -> str:
    """Return the first sixteen hex digits of the token's SHA-256, which the journal shows instead of it."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()[:16]


def matches(pattern: str | None, path: str) -> bool:
    """Return whether a path matches a pattern; None matches any path. A trailing slash is ignored.

    `*` matches anything and `[0-9]` one of these characters; `[[]` is a bracket.
    """
    if pattern is None or fnmatchcase(path, pattern):
        return True
    return fnmatchcase(path.removesuffix("/"), pattern.removesuffix("/"))


def check_request(method: object, path: object) -> None:
    """Raise for a method or path that no request can have, so that nothing would ever match."""
    if not isinstance(method, str | None):
        raise TypeError("method must be a string")
    if not isinstance(path, str | None):
        raise TypeError("path must be a string")
    if method is not None and not (method.isascii() and method.isalpha() and method.isupper()):
        raise ValueError(f"method must be in capitals, such as GET, not {method!r}")
    if path is not None and (not path.startswith(("/", "*")) or "?" in path):
        raise ValueError(f"path must begin with / or *, and has no query, not {path!r}")


def _check_question(status: object, token: object, since: object, when: object) -> None:
    """Raise for an argument of `Journal.where` that matches nothing by mistake; None matches any."""
    if status is not None:
        if isinstance(status, bool) or not isinstance(status, int):
            raise TypeError(f"status must be a whole number from 100 to 599, not {status!r}")
        if not 100 <= status <= 599:
            raise ValueError(f"status must be a whole number from 100 to 599, not {status!r}")
    if token is not None and not isinstance(token, str):
        raise TypeError("token must be a string")
    if since is not None:
        _check_number("since", since, "Unix time in seconds")
    if when is not None and not callable(when):
        raise TypeError("when must be a function that is called with an entry")


def _check_number(name: str, value: object, words: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be {words}, not {value!r}")
    if math.isnan(value):
        raise ValueError(f"{name} must be {words}, not {value!r}")


@attrs.define(kw_only=True)
class Entry:
    """One request.

    Attributes:
        time: Unix time by the emulator's clock, in seconds.
        method, path: as they arrived.
        query: the query's last value for each name.
        body: the decoded JSON body; None without one.
        token: the token's digest; never the token itself.
        status: the status of the answer; None before it, and if the connection was broken instead.
        carried_out: whether the request was executed.
    """

    time: float
    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    token: str | None
    status: int | None = None
    carried_out: bool = False


class Journal:
    """The requests in order of arrival: a sequence that can be filtered and counted.

    Args:
        limit: how many entries are kept; None keeps all.
        entries: the first entries.
    """

    def __init__(self, limit: int | None = None, entries: Iterable[Entry] = ()) -> None:
        self._entries: deque[Entry] = deque(entries, maxlen=limit)

    def append(self, entry: Entry) -> None:
        """Append an entry."""
        self._entries.append(entry)

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        # A copy: the emulator may be appending on another thread.
        return iter(tuple(self._entries))

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> Journal: ...

    def __getitem__(self, index: int | slice) -> Entry | Journal:
        return Journal(entries=list(self)[index]) if isinstance(index, slice) else self._entries[index]

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} of {status}" for status, number in self.statuses().most_common())
        return f"<Journal of {len(self)} requests: {counts}>" if counts else "<Journal of 0 requests>"

    def where(
        self,
        method: str | None = None,
        path: str | None = None,
        *,
        status: int | None = None,
        token: str | None = None,
        since: float | None = None,
        when: Callable[[Entry], bool] | None = None,
    ) -> Journal:
        """Return a journal of the requests that match all arguments; None matches any.

        Args:
            method: the method.
            path: the path, a pattern as that of a `Fault`.
            status: the status of the answer.
            token: the token itself.
            since: Unix time in seconds; earlier requests are left out.
            when: any other condition, called with each entry.

        Raises:
            TypeError, ValueError: no request can match this argument, such as the status "429".
        """
        check_request(method, path)
        _check_question(status, token, since, when)
        owner = None if token is None else digest(token)
        return Journal(
            entries=(
                entry
                for entry in self
                if (method is None or entry.method == method)
                and matches(path, entry.path)
                and (status is None or entry.status == status)
                and (owner is None or entry.token == owner)
                and (since is None or entry.time >= since)
                and (when is None or when(entry))
            )
        )

    def count(
        self,
        method: str | None = None,
        path: str | None = None,
        *,
        status: int | None = None,
        token: str | None = None,
    ) -> int:
        """Return the number of requests that match; the arguments and exceptions are those of `where`."""
        return len(self.where(method, path, status=status, token=token))

    def statuses(self) -> Counter[int | None]:
        """Return the number of requests for each status; None counts those without a response."""
        return Counter(entry.status for entry in self)

    def worst_window(self, seconds: float) -> int:
        """Return the largest number of requests that arrived within any `seconds`.

        Raises:
            TypeError, ValueError: `seconds` is no number above 0.
        """
        _check_number("seconds", seconds, "a number above 0")
        if seconds <= 0:
            raise ValueError(f"seconds must be a number above 0, not {seconds!r}")
        window: deque[float] = deque()
        worst = 0
        for entry in self:
            window.append(entry.time)
            while window[0] <= entry.time - seconds:
                window.popleft()
            worst = max(worst, len(window))
        return worst
