"""A compact set of ids, for what a listing of a million has already yielded."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import cast

__all__ = ["IdSet"]

_RECENT = 2048
_SPARSE = 4096
_BITS = 16
_WIDTH = 1 << _BITS
_MASK = _WIDTH - 1


class IdSet:
    """A set of ids, which takes about a byte for each dense integer, and a few where they are hundreds apart.

    The first two thousand are in a plain set. Then they go into chunks of 65,536 possible ids: sorted offsets
    of two bytes, or from the point where that is the smaller of the two, one bit for each possible id. An
    integer that is alone in its chunk takes some 170 bytes. Ids that are strings stay in the plain set. All
    ids of a set are of one kind.
    """

    def __init__(self) -> None:
        self._recent: set[int | str] = set()
        self._chunks: dict[int, array[int] | bytearray] = {}
        self._spilled = 0

    def __len__(self) -> int:
        return self._spilled + len(self._recent)

    def absorb(self, ids: Iterable[int | str]) -> set[int | str]:
        """Add ids, and return those that were in the set already."""
        new = set(ids)
        known = self.known(new)
        self._recent |= new - known
        if len(self._recent) > _RECENT and isinstance(next(iter(self._recent)), int):
            self._spill()
        return known

    def known(self, ids: set[int | str]) -> set[int | str]:
        """Return those of the ids that are in the set."""
        known = ids & self._recent
        return known | self._spilled_of(cast("set[int]", ids - known)) if self._chunks else known

    def _spilled_of(self, ids: set[int]) -> set[int]:
        """Return the ids that are in chunks; in one loop, since it runs for every id of a listing."""
        spilled: set[int] = set()
        chunk_of = self._chunks.get
        for number in ids:
            chunk = chunk_of(number >> _BITS)
            if chunk is None:
                continue
            offset = number & _MASK
            if isinstance(chunk, bytearray):
                if chunk[offset >> 3] >> (offset & 7) & 1:
                    spilled.add(number)
            elif offset <= chunk[-1] and chunk[bisect_left(chunk, offset)] == offset:
                spilled.add(number)
        return spilled

    def _spill(self) -> None:
        recent = sorted(cast("set[int]", self._recent))
        begin = 0
        while begin < len(recent):
            key = recent[begin] >> _BITS
            end = bisect_left(recent, (key + 1) << _BITS, begin)
            offsets = [number & _MASK for number in recent[begin:end]]
            self._chunks[key] = _joined(self._chunks.get(key), offsets)
            begin = end
        self._spilled += len(recent)
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
