"""What the emulator was asked, and what it answered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

__all__ = ["Entry", "Journal"]


@attrs.define(kw_only=True)
class Entry:
    """One request.

    Attributes:
        time: Unix time by the emulator's clock, in seconds.
        method, path: as they arrived.
        query: the query's last value for each name.
        body: the decoded JSON body; None without one.
        token: a prefix of the SHA-256 of the token; never the token itself.
        status: what was answered; None when the connection was broken instead.
        carried_out: whether the request reached the API and changed or read what it says.
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
    """The requests in order of arrival; a sequence that can be counted in.

    Args:
        limit: how many entries are kept; None keeps all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._entries: deque[Entry] = deque(maxlen=limit)

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)

    def clear(self) -> None:
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    def count(self, method: str | None = None, path: str | None = None, *, status: int | None = None) -> int:
        """How many requests had this method, this exact path and this status; None stands for any."""
        return sum(
            (method is None or entry.method == method)
            and (path is None or entry.path == path)
            and (status is None or entry.status == status)
            for entry in self._entries
        )

    def worst_window(self, seconds: float) -> int:
        """The most requests that arrived within any `seconds`."""
        window: deque[float] = deque()
        worst = 0
        for entry in self._entries:
            window.append(entry.time)
            while window[0] <= entry.time - seconds:
                window.popleft()
            worst = max(worst, len(window))
        return worst
