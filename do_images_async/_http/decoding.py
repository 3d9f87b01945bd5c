"""JSON to models in one step, by msgspec.

msgspec is strict where cattrs' defaults are not: `null` is no string, `"false"` is no bool, `"1"` is no int.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, cast

import attrs
import msgspec

from do_images_async import models
from do_images_async.errors import DecodeError

__all__ = ["BOM", "MODELS", "REJECTIONS", "decode", "is_json"]

T = TypeVar("T")

BOM = b"\xef\xbb\xbf"
"""What some servers put in front of UTF-8; JSON does not allow it, and readers may ignore it."""

REJECTIONS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)
"""What msgspec raises on what does not fit."""

MODELS = frozenset(value for value in vars(models).values() if isinstance(value, type) and attrs.has(value))


class _Decoder(Protocol):
    def decode(self, buf: bytes, /) -> Any: ...


class _Envelope(msgspec.Struct):
    action: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _ActionDecoder:
    """Reads one action with `action` around it, as the examples have it, or without, as the schema does."""

    def __init__(self) -> None:
        self._envelope = msgspec.json.Decoder(_Envelope)
        self._wrapped = msgspec.json.Decoder(models.ActionBody)
        self._bare = msgspec.json.Decoder(models.Action)

    def decode(self, buf: bytes, /) -> models.ActionBody:
        if self._envelope.decode(buf).action is msgspec.UNSET:
            return models.ActionBody(action=self._bare.decode(buf))
        return self._wrapped.decode(buf)


_decoders: dict[type, _Decoder] = {}


def _make_decoder(model: type) -> _Decoder:
    if model is models.ActionBody:
        return _ActionDecoder()
    return cast("_Decoder", msgspec.json.Decoder(model))


def decode(body: bytes, model: type[T]) -> T:
    """Decode a JSON body into `model`; raises `DecodeError` with the JSON path of what does not fit."""
    decoder = _decoders.get(model)
    if decoder is None:
        decoder = _decoders[model] = _make_decoder(model)
    try:
        return cast("T", decoder.decode(body.removeprefix(BOM)))
    except REJECTIONS as error:
        reason = str(error)
    raise DecodeError(f"the body is no {model.__name__}: {reason}")


def is_json(body: bytes) -> bool:
    """Whether a body is JSON at all, whatever it says."""
    try:
        msgspec.json.decode(body.removeprefix(BOM))
    except REJECTIONS:
        return False
    return True
