"""A set of ids that stays small: a listing of a million images has to remember which it has had."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

__all__ = ["IdSet"]

_RECENT = 2048
_SPARSE = 4096
_WIDTH = 1 << 16


class IdSet:
    """Ids, in about a byte each where they lie close together, in a few where they do not.

    The first two thousand are in a plain set. Then they go into chunks of 65,536 possible ids: sorted offsets
    of two bytes, or from the point where that is the smaller of the two, one bit for each possible id.
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._chunks: dict[int, array[int] | bytearray] = {}
        self._spilled = 0

    def __len__(self) -> int:
        return self._spilled + len(self._recent)

    def absorb(self, ids: Iterable[int]) -> set[int]:
        """Put ids in; returns those that were in already."""
        new = set(ids)
        known = new & self._recent
        new -= known
        if self._chunks:
            spilled = {number for number in new if self._is_spilled(number)}
            known |= spilled
            new -= spilled
        self._recent |= new
        if len(self._recent) > _RECENT:
            self._spill()
        return known

    def _is_spilled(self, number: int) -> bool:
        chunk = self._chunks.get(number // _WIDTH)
        if chunk is None:
            return False
        offset = number % _WIDTH
        if isinstance(chunk, bytearray):
            return bool(chunk[offset >> 3] & 1 << (offset & 7))
        place = bisect_left(chunk, offset)
        return place < len(chunk) and chunk[place] == offset

    def _spill(self) -> None:
        groups: dict[int, list[int]] = {}
        for number in self._recent:
            groups.setdefault(number // _WIDTH, []).append(number % _WIDTH)
        for key, offsets in groups.items():
            self._chunks[key] = _joined(self._chunks.get(key), offsets)
        self._spilled += len(self._recent)
        self._recent = set()


def _joined(chunk: array[int] | bytearray | None, offsets: list[int]) -> array[int] | bytearray:
    if not isinstance(chunk, bytearray):
        merged = sorted([*(chunk or ()), *offsets])
        if len(merged) < _SPARSE:
            return array("H", merged)
        chunk, offsets = bytearray(_WIDTH // 8), merged
    for offset in offsets:
        chunk[offset >> 3] |= 1 << (offset & 7)
    return chunk
