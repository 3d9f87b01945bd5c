"""The one mapper between JSON and models: a cattrs converter that uses msgspec where it can.

msgspec reads a type in one step, unless the user registered a hook for it or for a type inside it, or the
class has its own `__init__`, converters or aliases. What msgspec rejects is read again by the functions that
cattrs generates, and any other type is read by them alone. The cattrs functions also accept what the API
sends but does not document (`20.0` for an integer, null for an empty list), and say where in the JSON the
wrong value is.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property, partial
from threading import local
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Final, TypeVar, Union, cast, get_args, get_origin, overload
from uuid import UUID

import attrs
import msgspec
from cattrs import (
    AttributeValidationNote,
    BaseValidationError,
    Converter,
    IterableValidationNote,
    StructureHandlerNotFoundError,
)
from cattrs.cols import list_structure_factory
from cattrs.fns import identity

from do_images_async._decoders import json_decoder, structurer
from do_images_async._http.bodies import ActionBody, listed_field
from do_images_async._whole import WholeListing
from do_images_async.errors import DecodeError
from do_images_async.models import Action, OpenEnum, Region

__all__ = ["BOM", "ModelConverter", "converter", "is_json"]

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]
HookT = TypeVar("HookT", bound=Hook)

BOM: Final = b"\xef\xbb\xbf"
"""The byte order mark that some servers put before UTF-8. JSON does not allow it; readers may ignore it."""

_REJECTIONS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)
"""The exceptions of msgspec for a wrong value."""

_LEAVES: Final = (
    *(str, bool, int, float, NoneType, OpenEnum),
    *(bytes, datetime, date, time, timedelta, UUID, Decimal),
)
_FIRST_INEXACT: Final = 2**53
"""From here on, a float may stand for several integers: an id could become another image's."""
_PLACE: Final = re.compile(r"(?P<reason>.*) - at `\$(?P<place>[^`]*)`", re.DOTALL)


class ModelConverter(Converter):
    """A cattrs converter that raises `DecodeError`, with the JSON path of the wrong value."""

    def dumps(self, obj: object, unstructure_as: Any = None) -> bytes:
        """Encode a model, or a container of models, as JSON."""
        return msgspec.json.encode(self.unstructure(obj, unstructure_as=unstructure_as))

    def get_loads_hook(self, cl: type[T]) -> Callable[[bytes], T]:
        """Return `loads` for one class."""
        return partial(self.loads, cl=cl)

    def loads(self, data: bytes, cl: type[T]) -> T:
        """Decode JSON bytes into `cl`."""
        hook = self.get_structure_hook(cl)
        data = data.removeprefix(BOM)
        if not data or data.isspace():
            raise DecodeError("the body is empty")
        try:
            value = (
                hook.loads(data) if isinstance(hook, _MsgspecHook) else hook(msgspec.json.decode(data), cl)
            )
        except Exception as error:  # noqa: BLE001  (a hook of the user's may raise anything)
            problem = _decode_error("body", cl, error)
        else:
            return cast("T", value)
        raise problem

    def structure(self, obj: Any, cl: type[T]) -> T:
        """Make a `cl` from values that JSON can hold."""
        hook = self.get_structure_hook(cl)
        try:
            return cast("T", hook(obj, cl))
        except Exception as error:  # noqa: BLE001
            problem = _decode_error("value", cl, error)
        raise problem

    @overload
    def register_structure_hook(self, cl: HookT) -> HookT: ...

    @overload
    def register_structure_hook(self, cl: Any, func: Hook) -> None: ...

    def register_structure_hook(self, cl: Any, func: Hook | None = None) -> Any:
        """Register a hook for a type, as cattrs does.

        Unlike in cattrs, a hook on an attrs class doesn't apply to its subclasses; so a hook for `Image` can
        structure a subclass without calling itself for ever.
        """
        if func is None:
            return super().register_structure_hook(cl)
        if not (attrs.has(cl) or _is_union(cl)):
            return super().register_structure_hook(cl, func)
        if attrs.has(cl):
            attrs.resolve_types(cl)
        self.register_structure_hook_func(lambda kind: kind == cl, func)
        return None


class _MsgspecHook:
    """The structure hook of a type that msgspec reads in one step.

    Args:
        kind: the type.
        make_fallback: makes the hook that reads what msgspec rejects, and says what is wrong with it.
    """

    def __init__(self, kind: Any, make_fallback: Callable[[], Hook]) -> None:
        self._kind = kind
        self._make_fallback = make_fallback

    @cached_property
    def _decoder(self) -> msgspec.json.Decoder[Any]:
        return json_decoder(self._kind)

    @cached_property
    def _structure(self) -> Callable[[object], Any]:
        return structurer(self._kind)

    @cached_property
    def _fallback(self) -> Hook:
        return self._make_fallback()

    def loads(self, data: bytes) -> Any:
        try:
            return self._decoder.decode(data)
        except _REJECTIONS as error:
            rejection = error
        try:
            value = msgspec.json.decode(data)
        except msgspec.ValidationError:  # a number too large for a float: only this decoder knows its path
            raise rejection from None
        return self._fallback(value, self._kind)

    def __call__(self, value: Any, _: Any) -> Any:
        try:
            return self._structure(value)
        except _REJECTIONS:
            pass
        return self._fallback(value, self._kind)


# --- hooks of leaves ---


def _structure_leaf(value: Any, kind: Any) -> Any:
    """Read a value strictly, but accept a float without a fraction where an integer is expected."""
    try:
        return msgspec.convert(value, kind)
    except _REJECTIONS as error:
        if not (isinstance(value, float) and value.is_integer() and abs(value) < _FIRST_INEXACT):
            raise
        rejection = error
    try:
        return msgspec.convert(int(value), kind)
    except _REJECTIONS:
        raise rejection from None


def _is_read_by_msgspec(hook: Hook) -> bool:
    return hook is _structure_leaf or isinstance(hook, _MsgspecHook)


def _mapping(value: Any) -> Mapping[str, Any] | None:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None


def _mismatch(expected: str, value: object, place: str = "") -> msgspec.ValidationError:
    """Return the error that msgspec would raise."""
    names: dict[type, str] = {NoneType: "null", dict: "object", list: "array"}
    got = names.get(type(value), type(value).__name__)
    return msgspec.ValidationError(f"Expected `{expected}`, got `{got}` - at `${place}`")


# --- hooks of what holds other types ---


class _State(local):
    kinds: frozenset[Any] = frozenset()
    """The classes whose fields are being checked: one that contains itself must not be checked for ever."""


_state = _State()


def _hook(converter: Converter, kind: Any) -> Hook:
    # While a class that contains itself is being checked, it is assumed to be readable by msgspec; hooks
    # built on that assumption are not cached.
    return converter.get_structure_hook(kind, cache_result=not _state.kinds)


def _is_annotated(kind: Any) -> bool:
    return get_origin(kind) is Annotated


def _structure_annotated(kind: Any, converter: Converter) -> Hook:
    base = get_args(kind)[0]
    hook = _hook(converter, base)
    if hook is _structure_leaf:
        return _structure_leaf
    return lambda value, _: hook(value, base)


def _is_optional(kind: Any) -> bool:
    return _is_union(kind) and len(get_args(kind)) == 2 and NoneType in get_args(kind)


def _structure_optional(kind: Any, converter: Converter) -> Hook:
    (member,) = (member for member in get_args(kind) if member is not NoneType)
    hook = _hook(converter, member)

    def structure_optional(value: Any, _: Any) -> Any:
        return None if value is None else hook(value, member)

    return _MsgspecHook(kind, lambda: structure_optional) if _is_read_by_msgspec(hook) else structure_optional


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def _is_leaf_union(kind: Any) -> bool:
    # cattrs tells attrs classes apart by their fields.
    return _is_union(kind) and not any(attrs.has(member) for member in get_args(kind))


def _structure_leaf_union(kind: Any, converter: Converter) -> Hook:
    if all(_hook(converter, member) is _structure_leaf for member in get_args(kind)):
        return _structure_leaf
    raise StructureHandlerNotFoundError(f"{kind} has a member with a hook: register one for the union", kind)


_LISTS: Final = (list, tuple, set, frozenset)


def _is_list(kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return get_args(kind)[1:] == (Ellipsis,)
    return get_origin(kind) in _LISTS


def _structure_list(kind: Any, converter: Converter) -> Hook:
    """Read an array; null means an empty one."""
    item = get_args(kind)[0]
    make = cast("Callable[[list[Any]], Any]", get_origin(kind))

    def make_fallback() -> Hook:
        items = list_structure_factory(cast("type", GenericAlias(list, (item,))), converter)

        def structure_list(value: Any, _: Any) -> Any:
            if not isinstance(value, NoneType | list | tuple | set | frozenset):
                raise _mismatch("array", value)
            return make(items(value or (), kind))

        return structure_list

    return (
        _MsgspecHook(kind, make_fallback) if _is_read_by_msgspec(_hook(converter, item)) else make_fallback()
    )


def _structure_class(kind: Any, converter: Converter, prepare: Callable[[Any], Any] = identity) -> Hook:
    """Read an attrs class; `prepare` may correct or refuse a value that msgspec rejected."""

    def make_fallback() -> Hook:
        generated = converter.gen_structure_attrs_fromdict(kind)
        made = get_origin(kind) or kind

        def structure_class(value: Any, _: Any) -> Any:
            if isinstance(value, made):
                return value
            fields = _mapping(prepare(value))
            if fields is None:
                raise _mismatch("object", value)
            return generated(fields, kind)

        return structure_class

    return (
        _MsgspecHook(kind, make_fallback) if _is_class_read_by_msgspec(kind, converter) else make_fallback()
    )


def _is_class_read_by_msgspec(kind: Any, converter: Converter) -> bool:
    """Return whether msgspec and cattrs, which calls `__init__`, make equal objects of this class."""
    if get_origin(kind) is not None or converter.forbid_extra_keys or converter.type_overrides:
        return False
    _check_decorated(kind)
    attrs.resolve_types(kind)
    return (
        _has_plain_init(kind)
        and all(_is_plain(field) for field in attrs.fields(kind))
        and _are_fields_read_by_msgspec(kind, converter)
    )


def _are_fields_read_by_msgspec(kind: Any, converter: Converter) -> bool:
    around = _state.kinds
    if kind in around:
        return True
    _state.kinds = around | {kind}
    try:
        return all(_is_read_by_msgspec(_hook(converter, field.type)) for field in attrs.fields(kind))
    finally:
        _state.kinds = around


def _is_plain(field: attrs.Attribute[Any]) -> bool:
    own_converter: object = getattr(field, "converter", None)
    return (
        field.init
        and own_converter is None
        and field.alias == field.name
        and not field.name.startswith("_")
        and not getattr(field.default, "takes_self", False)
    )


def _has_plain_init(kind: type) -> bool:
    owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
    generated = "__attrs_attrs__" in vars(owner) and "__attrs_init__" not in vars(owner)
    return generated and not hasattr(kind, "__attrs_pre_init__")


def _check_decorated(kind: type) -> None:
    """Refuse a subclass whose fields attrs does not know: they would be lost silently."""
    if "__attrs_attrs__" in vars(kind):
        return
    known = {field.name for field in attrs.fields(kind)}
    lost = [name for name in inspect.get_annotations(kind) if name not in known]
    if lost:
        raise TypeError(
            f"{kind.__name__} declares {', '.join(lost)} and is no attrs class: "
            "decorate it with @attrs.frozen(kw_only=True)"
        )


# --- hooks of single classes ---


def _is_listing(kind: Any) -> bool:
    return listed_field(kind) is not None


def _structure_listing(kind: Any, converter: Converter) -> Hook:
    """Read a listing.

    `null` items count as an empty list only if the total is 0; otherwise they are an error.
    """
    items = cast("str", listed_field(kind))

    def check(value: Any) -> Any:
        body = _mapping(value)
        if body is not None and body.get(items, ()) is None and not _is_empty(body.get("meta")):
            raise _mismatch("array", None, f".{items}")
        return value

    return _structure_class(kind, converter, check)


def _is_empty(meta: Any) -> bool:
    total: object = (_mapping(meta) or {}).get("total")
    return not isinstance(total, bool) and total == 0


def _is_action_body(kind: Any) -> bool:
    return kind is ActionBody


def _structure_action_body(kind: Any, converter: Converter) -> Hook:
    """Read an action with `action` around it, as in the API page's examples, or without, as in its schema."""
    wrapped = _structure_class(kind, converter)
    bare = _hook(converter, Action)

    def structure_action_body(value: Any, _: Any) -> ActionBody:
        fields = _mapping(value)
        if fields is not None and "action" not in fields:
            return ActionBody(action=bare(value, Action))
        return cast("ActionBody", wrapped(value, kind))

    return structure_action_body


def _is_region(kind: Any) -> bool:
    return kind is Region


def _structure_region(kind: Any, converter: Converter) -> Hook:
    """Read an action's region, which is its slug alone in old answers."""
    return _structure_class(
        kind, converter, lambda value: {"slug": value} if isinstance(value, str) else value
    )


# --- errors ---


def _decode_error(what: str, kind: Any, error: Exception) -> DecodeError:
    """Return the `DecodeError` for an exception of cattrs, of msgspec or of a hook of the user's.

    Args:
        what: what was read, "body" or "value".
        kind: the type that it was to become.
        error: what was raised.
    """
    first, reason, place = _first_problem(error)
    at = f" - at `${place}`" if place else ""
    problem = DecodeError(f"the {what} is no {getattr(kind, '__name__', kind)}: {reason}{at}")
    if not isinstance(first, (*_REJECTIONS, DecodeError, KeyError)):
        problem.__cause__ = first
    return problem


def _first_problem(error: Exception) -> tuple[Exception, str, str]:
    """Return the first single error, its message, and the JSON path to it without the `$`."""
    place = ""
    while isinstance(error, BaseValidationError):
        error = error.exceptions[0]
        for note in getattr(error, "__notes__", ()):
            if isinstance(note, IterableValidationNote):
                place += f"[{note.index}]"
            elif isinstance(note, AttributeValidationNote):
                if isinstance(error, KeyError) and error.args == (note.name,):
                    return error, f"Object missing required field `{note.name}`", place
                place += f".{note.name}"
    if not isinstance(error, (*_REJECTIONS, DecodeError)):
        return error, f"{type(error).__name__}: {error}", place
    found = _PLACE.fullmatch(str(error))
    return (error, found["reason"], place + found["place"]) if found else (error, str(error), place)


def is_json(body: bytes) -> bool:
    """Return whether a body is valid JSON."""
    body = body.removeprefix(BOM)
    try:
        msgspec.json.decode(body)
    except msgspec.ValidationError:  # no damage, if all that is wrong is a number too large for a float
        return _is_json_with_large_numbers(body)
    except _REJECTIONS:
        return False
    return True


def _is_json_with_large_numbers(body: bytes) -> bool:
    try:
        json.loads(body, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


# --- hooks back to JSON ---


def _unstructure_error(error: BaseException) -> str:
    """Return the error of an `Outcome` as text."""
    return f"{type(error).__name__}: {error}"


def _is_whole(kind: Any) -> bool:
    return kind is WholeListing


def _unstructure_whole(_: Any, converter: Converter) -> Callable[[WholeListing], list[Any]]:
    return lambda whole: [converter.unstructure(image) for image in whole]


# --- the converter ---


def _make_converter() -> ModelConverter:
    made = ModelConverter()
    for leaf in _LEAVES:
        made.register_structure_hook(leaf, _structure_leaf)
    # If several factories fit a type, cattrs uses the one registered last.
    for fits, factory in (
        (attrs.has, _structure_class),
        (_is_listing, _structure_listing),
        (_is_action_body, _structure_action_body),
        (_is_region, _structure_region),
        (_is_annotated, _structure_annotated),
        (_is_list, _structure_list),
        (_is_leaf_union, _structure_leaf_union),
        (_is_optional, _structure_optional),
    ):
        made.register_structure_hook_factory(fits, factory)
    for leaf in (bytes, datetime, date, time, timedelta, UUID, Decimal):
        made.register_unstructure_hook(leaf, msgspec.to_builtins)
    made.register_unstructure_hook(OpenEnum, msgspec.to_builtins)  # a user's hook may have made a str of it
    made.register_unstructure_hook(BaseException, _unstructure_error)
    made.register_unstructure_hook_factory(_is_whole, _unstructure_whole)
    return made


converter: Final = _make_converter()
"""Models from JSON and back; the client uses it for every response.

`converter.structure(mapping, Image)`, `converter.unstructure(image)` and `converter.loads(data, Image)`. A
wrong type is an error, but a float without a fraction, below 2**53, is an integer, and null an empty list.
Register hooks on a `converter.copy()`, and give that to `ImagesAPI(converter=…)`.
"""
