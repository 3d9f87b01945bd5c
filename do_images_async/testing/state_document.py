"""The check of a loaded state, field by field, before it replaces the emulator's own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, cast, get_args

import attrs

from do_images_async.testing.arguments import is_json, is_text
from do_images_async.testing.catalogue import REGIONS, Record

__all__ = ["State", "TransferState", "check_image", "parse_state"]

TransferState = Literal["pending", "accepted", "cancelled", "declined"]

_STATES = get_args(TransferState)
_KEPT = ("name", "type", "distribution", "public", "regions", "created_at")
_LARGEST = 2**53 - 1  # JSON readers of other languages lose digits above it
_LONGEST = 1e9  # seconds; more than any import or action takes, and still a date
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)


@attrs.frozen(kw_only=True)
class State:
    """A state whose fields have the right types and agree with each other.

    Attributes:
        images, imports, actions, transfers: records of each kind.
        incomplete: ids of images that lack fields on purpose; missing fields of other images are filled in.
    """

    images: Sequence[Record]
    imports: Sequence[Record]
    actions: Sequence[Record]
    transfers: Sequence[Record]
    incomplete: frozenset[int]


@attrs.frozen
class _Field:
    """The values that a field may have, as a predicate and in words."""

    accepts: Callable[[Any], bool]
    words: str
    required: bool = False


def _whole(least: int) -> _Field:
    def accepts(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _LARGEST

    return _Field(accepts, f"a whole number from {least} to {_LARGEST:,}")


def _number(words: str, least: float, most: float) -> _Field:
    def accepts(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return math.isfinite(value) and least <= value <= most

    return _Field(accepts, f"{words} from {least:,.0f} to {most:,.0f}")


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))  # pyright: ignore[reportUnknownArgumentType]


def _date(value: Any) -> bool:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _optional(field: _Field) -> _Field:
    accepts = field.accepts
    return _Field(lambda value: value is None or accepts(value), f"{field.words} or null")


_TEXT = _Field(is_text, "a string without lone surrogates")
_TEXTS = _Field(_texts, "an array of strings without lone surrogates")
_ID = _whole(1)
_FLAG = _Field(lambda value: isinstance(value, bool), "true or false")
_WHEN = _Field(_date, "a date such as 2025-01-31T12:00:00Z")
_REGION = _Field(lambda value: isinstance(value, str) and value in REGIONS, "a region's slug")
_SECONDS = _number("a number of seconds", -_LONGEST, _LONGEST)
_OBJECT = _Field(lambda value: is_json(value) and isinstance(value, dict), "an object of JSON data")

_IMAGE = {
    "id": _ID,
    "name": _TEXT,
    "type": _TEXT,
    "distribution": _TEXT,
    "slug": _optional(_TEXT),
    "public": _FLAG,
    "regions": _TEXTS,
    "created_at": _WHEN,
    "min_disk_size": _optional(_whole(0)),
    "size_gigabytes": _optional(_number("a number", 0, 1e12)),
    "description": _TEXT,
    "tags": _optional(_TEXTS),
    "status": _TEXT,
    "error_message": _TEXT,
}
_IMPORT = {
    "image_id": attrs.evolve(_ID, required=True),
    "elapsed": attrs.evolve(_SECONDS, required=True),
    "region": attrs.evolve(_REGION, required=True),
    "works": attrs.evolve(_FLAG, required=True),
}
_ACTION = {
    "id": attrs.evolve(_ID, required=True),
    "status": attrs.evolve(_TEXT, required=True),
    "type": attrs.evolve(_TEXT, required=True),
    "started_at": attrs.evolve(_WHEN, required=True),
    "completed_at": _optional(_WHEN),
    "resource_id": attrs.evolve(_ID, required=True),
    "resource_type": _TEXT,
    "region": _OBJECT,
    "region_slug": attrs.evolve(_optional(_REGION), required=True),
    "ends_in": _SECONDS,
}
_TRANSFER = {
    "id": attrs.evolve(_whole(0), required=True),
    "image_id": attrs.evolve(_ID, required=True),
    "email": _optional(_TEXT),
    "team": _optional(_TEXT),
    "state": _Field(lambda value: value in _STATES, f"one of {', '.join(_STATES)}"),
}
_PARTS = {"images": _IMAGE, "imports": _IMPORT, "actions": _ACTION, "transfers": _TRANSFER}


def parse_state(document: object) -> State:
    """Return the state that a document describes.

    Raises:
        ValueError: a field has a wrong type or an unknown name, or the parts contradict each other.
    """
    if not isinstance(document, Mapping):
        raise ValueError("a state must be an object")  # noqa: TRY004  (it is data from outside)
    parts: Mapping[Any, Any] = document  # pyright: ignore[reportUnknownVariableType]
    _refuse_unknown(parts, (*_PARTS, "incomplete"), "a state")
    if "images" not in parts:
        raise ValueError("a state needs images")
    records = {name: _records(name, parts.get(name, ())) for name in _PARTS}
    incomplete: Any = parts.get("incomplete", ())
    if not isinstance(incomplete, list | tuple) or not all(map(_ID.accepts, cast("list[Any]", incomplete))):
        raise ValueError(f"incomplete must be an array of ids, each {_ID.words}")
    state = State(**records, incomplete=frozenset(cast("list[int]", incomplete)))
    _check_fit(state)
    return state


def check_image(image: Record) -> None:
    """Raise ValueError, which names the field, for an image that no state can have."""
    for name, value in image.items():
        if not _IMAGE[name].accepts(value):
            raise ValueError(f"{name} must be {_IMAGE[name].words}")


def _records(part: str, items: Any) -> list[Record]:
    if not isinstance(items, list | tuple):
        raise ValueError(f"{part} must be an array")  # noqa: TRY004
    return [_record(f"{part}[{at}]", item, _PARTS[part]) for at, item in enumerate(cast("list[Any]", items))]


def _record(where: str, item: Any, fields: Mapping[str, _Field]) -> Record:
    if not isinstance(item, Mapping):
        raise ValueError(f"{where} must be an object")  # noqa: TRY004
    record: Record = dict(item)  # pyright: ignore[reportUnknownArgumentType]
    _refuse_unknown(record, fields, where)
    for name, field in fields.items():
        if name not in record:
            if field.required:
                raise ValueError(f"{where} needs {name}")
        elif not field.accepts(record[name]):
            raise ValueError(f"{where}.{name} must be {field.words}")
    return record


def _refuse_unknown(given: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    unknown = sorted(map(str, given.keys() - set(known)))
    if unknown:
        raise ValueError(f"{where} has no {', '.join(unknown)}; it has {', '.join(known)}")


def _check_fit(state: State) -> None:
    ids = [image["id"] for image in state.images if "id" in image]
    _refuse_repeated("the ids of images", ids)
    _refuse_repeated("slugs", [image["slug"] for image in state.images if image.get("slug")])
    _refuse_repeated("the ids of imports", [job["image_id"] for job in state.imports])
    _refuse_repeated("the ids of actions", [action["id"] for action in state.actions])
    _refuse_repeated("the ids of transfers", [each["id"] for each in state.transfers if each["id"]])
    missing = ({job["image_id"] for job in state.imports} | state.incomplete) - set(ids)
    if missing:
        raise ValueError(f"there is no image {min(missing)}, which imports or incomplete name")
    for image in state.images:
        if image.get("id") in state.incomplete and not image.keys() >= set(_KEPT):
            raise ValueError(f"image {image['id']} is incomplete and still needs {', '.join(_KEPT)}")
    for at, action in enumerate(state.actions):
        if "ends_in" in action and action["status"] != "in-progress":
            raise ValueError(f"actions[{at}].ends_in is for actions in progress")
        if "ends_in" in action and action["type"] != "convert" and action["region_slug"] is None:
            raise ValueError(f"actions[{at}] is a transfer in progress and needs region_slug")


def _refuse_repeated(what: str, values: Sequence[Any]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{what} must be unique")
