"""attrs classes whose instances are made by msgspec, in C.

msgspec can fill any attrs class, but sets the fields one by one and then looks for each of them, which is a
third of what a page of images costs. A struct of its own it fills at once. So a model is both: attrs knows
its fields and keeps it frozen (`attrs.fields`, `evolve`, `asdict` and cattrs work as ever), msgspec makes,
compares, hashes and shows its instances.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

import attrs
import msgspec

__all__ = ["model"]

T = TypeVar("T")

_OWN: Final = frozenset({"__annotations__", "__dict__", "__weakref__"})
"""What each class has of its own, and does not hand on."""


def frozen_struct(*, kw_only: bool) -> Callable[[type[T]], type[T]]:
    """A decorator that makes a frozen, slotted attrs class.

    Args:
        kw_only: whether fields are given by keyword only.
    """

    def make(cls: type[T]) -> type[T]:
        body = vars(cls)
        kinds = cls.__annotations__
        defaults = {name: body[name] for name in kinds if name in body}
        struct = msgspec.defstruct(
            cls.__name__,
            [(name, kind, defaults.get(name, msgspec.NODEFAULT)) for name, kind in kinds.items()],
            namespace={name: value for name, value in body.items() if name not in _OWN | kinds.keys()},
            module=cls.__module__,
            frozen=True,
            kw_only=kw_only,
        )
        fields = {
            name: attrs.field(default=defaults.get(name, attrs.NOTHING), kw_only=kw_only) for name in kinds
        }
        # Of what attrs would write, it is left only what a struct has not.
        known = attrs.frozen(
            struct, these=fields, init=False, repr=False, eq=False, slots=False, match_args=False
        )
        return cast("type[T]", known)

    return make


if TYPE_CHECKING:
    from attrs import frozen as model
else:
    model = frozen_struct
