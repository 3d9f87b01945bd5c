"""Models and back: a cattrs converter whose attrs classes are decoded by msgspec in one step.

The client itself decodes without it, so that a program that never asks for it does not wait for cattrs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from cattrs.preconf.msgspec import MsgspecJsonConverter, configure_converter

from do_images_async._http.decoding import MODELS, REJECTIONS, decode
from do_images_async.errors import DecodeError

__all__ = ["ModelConverter", "converter"]

T = TypeVar("T")


class ModelConverter(MsgspecJsonConverter):
    """A cattrs converter that reads this package's models straight from JSON."""

    def loads(self, data: bytes, cl: type[T], **kwargs: Any) -> T:
        """Decode JSON bytes; raises `DecodeError` with the JSON path of what does not fit."""
        return decode(data, cl) if cl in MODELS else super().loads(data, cl, **kwargs)

    def get_loads_hook(self, cl: type[T]) -> Callable[[bytes], T]:
        """The function that `loads` comes down to for one class."""
        return lambda data: self.loads(data, cl)


def _structure(value: Any, model: type[T]) -> T:
    if isinstance(value, model):
        return value
    try:
        return msgspec.convert(value, model)
    except REJECTIONS as error:
        reason = str(error)
    raise DecodeError(f"the value is no {model.__name__}: {reason}")


def _unstructure(instance: object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(instance))


def _make_converter() -> ModelConverter:
    made = ModelConverter()
    configure_converter(made)
    for model in MODELS:
        made.register_structure_hook(model, _structure)
        made.register_unstructure_hook(model, _unstructure)
    return made


converter = _make_converter()
"""`converter.structure(mapping, Image)`, `converter.unstructure(image)`, `converter.loads(data, Image)`."""
