"""msgspec's decoders, which are made by one thread at a time.

msgspec gives a class its description before that is complete. A thread that decodes the class meanwhile
crashes the process, and so does one that makes a decoder of it and then decodes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

__all__ = ["json_decoder", "msgpack_decoder", "structurer"]

T = TypeVar("T")

_lock = threading.RLock()

if hasattr(os, "register_at_fork"):  # or a child could inherit a class whose description stays incomplete
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def json_decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Return a decoder from JSON."""
    with _lock:
        return msgspec.json.Decoder(kind)


def msgpack_decoder(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    """Return a decoder from MessagePack."""
    with _lock:
        return msgspec.msgpack.Decoder(kind)


def structurer(kind: type[T]) -> Callable[[object], T]:
    """Return a function that makes this type from values that JSON can hold."""
    json_decoder(kind)  # `convert` describes the class itself, without the lock, where nobody has
    return partial(msgspec.convert, type=kind)
