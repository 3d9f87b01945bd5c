"""Bytes to models and back: a cattrs converter whose attrs classes are decoded by msgspec in one step.

msgspec is strict where cattrs' defaults are not: `null` is no string, `"false"` is no bool, `"1"` is no int.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import attrs
import msgspec
from cattrs.preconf.msgspec import MsgspecJsonConverter, configure_converter

from do_images_async import models
from do_images_async.errors import DecodeError

__all__ = ["converter", "decode", "is_json"]

T = TypeVar("T")

BOM = b"\xef\xbb\xbf"
"""What some servers put in front of UTF-8; JSON does not allow it, and readers may ignore it."""

_REJECTIONS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)


class ModelConverter(MsgspecJsonConverter):
    """A cattrs converter that reads this package's models straight from JSON."""

    def loads(self, data: bytes, cl: type[T], **kwargs: Any) -> T:
        """Decode JSON bytes; raises `DecodeError` with the JSON path of what does not fit."""
        return decode(data, cl) if cl in MODELS else super().loads(data, cl, **kwargs)

    def get_loads_hook(self, cl: type[T]) -> Callable[[bytes], T]:
        """The function that `loads` comes down to for one class."""
        return lambda data: self.loads(data, cl)


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
            return models.ActionBody(self._bare.decode(buf))
        return self._wrapped.decode(buf)


_decoders: dict[type, _Decoder] = {models.ActionBody: _ActionDecoder()}


def decode(body: bytes, model: type[T]) -> T:
    """Decode a JSON body into `model`; raises `DecodeError` with the JSON path of what does not fit."""
    decoder = _decoders.get(model)
    if decoder is None:
        decoder = _decoders[model] = msgspec.json.Decoder(model)
    try:
        return cast("T", decoder.decode(body.removeprefix(BOM)))
    except _REJECTIONS as error:
        reason = str(error)
    raise DecodeError(f"the body is no {model.__name__}: {reason}")


def is_json(body: bytes) -> bool:
    """Whether a body is JSON at all, whatever it says."""
    try:
        msgspec.json.decode(body.removeprefix(BOM))
    except _REJECTIONS:
        return False
    return True


def _structure(value: Any, model: type[T]) -> T:
    if isinstance(value, model):
        return value
    try:
        return msgspec.convert(value, model)
    except _REJECTIONS as error:
        reason = str(error)
    raise DecodeError(f"the value is no {model.__name__}: {reason}")


def _unstructure(instance: object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(instance))


def _make_converter() -> ModelConverter:
    made = ModelConverter()
    configure_converter(made)
    made.register_structure_hook_func(MODELS.__contains__, _structure)
    made.register_unstructure_hook_func(MODELS.__contains__, _unstructure)
    return made


converter = _make_converter()
"""`converter.structure(mapping, Image)`, `converter.unstructure(image)`, `converter.loads(data, Image)`."""
