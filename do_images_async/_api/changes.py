"""Check the keys and the changes that the bulk calls are given."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from typing import Final, TypeGuard, TypeVar, cast

from do_images_async._arguments import check_unread, shown

__all__ = ["Change", "Changes", "check_changes", "check_fields", "check_ids"]

Key = TypeVar("Key", bound=int | str)
Change = tuple[int, Mapping[str, str]]
Changes = Mapping[int, Mapping[str, str]] | Iterable[Change] | AsyncIterable[Change]

_UPDATABLE: Final = frozenset({"name", "description", "distribution"})


def check_ids(ids: Iterable[Key] | AsyncIterable[Key]) -> Iterable[Key] | AsyncIterable[Key]:
    """Return the ids if they can be iterated over and are not one string."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable | AsyncIterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"ids must be an iterable of ids, not {shown(ids)}")
    check_unread(ids, "ids")
    return ids


def check_changes(changes: Changes) -> Iterable[Change] | AsyncIterable[Change]:
    """Return the changes as pairs of an id and its fields; each pair is checked when it is drawn."""
    if isinstance(changes, Mapping):
        # The checker can't exclude a mapping that is one of pairs, too.
        return cast("Mapping[int, Mapping[str, str]]", changes).items()
    if isinstance(changes, str | bytes) or not isinstance(changes, Iterable | AsyncIterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"changes must be a mapping, or an iterable of pairs, not {shown(changes)}")
    check_unread(changes, "changes")
    if isinstance(changes, AsyncIterable):
        return _each_checked(changes)
    return map(_check_pair, changes)


def check_fields(fields: Mapping[str, str]) -> Mapping[str, str]:
    """Return the fields of one change if `update` has them."""
    if not isinstance(fields, Mapping) or not _UPDATABLE.issuperset(fields):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"changes may be of name, description and distribution, not {shown(fields)}")
    return fields


async def _each_checked(pairs: AsyncIterable[Change]) -> AsyncGenerator[Change, None]:
    async for pair in pairs:
        yield _check_pair(pair)


def _check_pair(pair: object) -> Change:
    if not _is_pair(pair):
        raise TypeError(f"each of changes must be a pair of an id and its changes, not {shown(pair)}")
    return pair


def _is_pair(value: object) -> TypeGuard[Change]:
    return isinstance(value, tuple) and len(cast("tuple[object, ...]", value)) == 2
