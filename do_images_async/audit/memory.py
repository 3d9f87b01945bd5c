"""The keys that earlier images of an audit had, in memory that does not grow."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Final

__all__ = ["Memory"]

_WAYS: Final = 16


class Memory:
    """The first image of each key, for a fixed number of keys; others are forgotten.

    A hash table of 16 bytes for each key: its 64-bit hash, and the image's id. A full bucket loses one of its
    sixteen keys, so that a repetition may be missed; none is reported wrongly.

    Args:
        keys: how many are remembered at most; a power of two. The default takes 4 MiB, once it is used.
    """

    def __init__(self, keys: int = 1 << 18) -> None:
        self._keys = keys
        self._hashes = array("Q")
        self._ids = array("q")

    def first(self, kind: str, key: str, image_id: int) -> int:
        """Return the id of the first image with this key: this image, unless an earlier one is remembered.

        Args:
            kind: the kind of the key, so that two rules do not share keys.
            key: the value that images may share.
            image_id: the image that has it.
        """
        if not self._hashes:
            self._hashes, self._ids = (array(code, bytes(8 * self._keys)) for code in "Qq")
        text = f"{kind}\0{key}".encode(errors="surrogatepass")
        digest = int.from_bytes(blake2b(text, digest_size=8).digest()) or 1
        start = digest % (self._keys // _WAYS) * _WAYS
        bucket = self._hashes[start : start + _WAYS]
        for place, known in enumerate(bucket, start):
            if known == digest:
                return self._ids[place]
            if not known:
                break
        else:
            place = start + (digest >> 32) % _WAYS
        self._hashes[place] = digest
        self._ids[place] = image_id
        return image_id
