"""The columns of a table: their names, which are doctl's, and the text of their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import attrs
import click

from do_images_async import Action, Image
from do_images_async.cli.text import timestamp

__all__ = ["ACTION_COLUMNS", "IMAGE_COLUMNS", "Column", "as_record", "choose"]

T = TypeVar("T")


@attrs.frozen
class Column(Generic[T]):
    """A column.

    Attributes:
        title: its heading, which is doctl's name for it.
        name: its name in JSON and CSV.
        value: returns an object's value.
        min_width: its smallest width, in characters; None for the width of its widest value.
        rank: the highest rank is dropped first if the terminal is too narrow; 0 is never dropped.
        numeric: whether it is aligned to the right.
        in_table: whether a table has it without --columns.
    """

    title: str
    name: str
    value: Callable[[T], object]
    min_width: int | None = None
    rank: int = 0
    numeric: bool = False
    in_table: bool = True

    def text(self, item: T) -> str:
        """Return the value as the text of a table's cell."""
        value = self.value(item)
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, datetime):
            return timestamp(value)
        if isinstance(value, tuple | list):
            return ",".join(str(each) for each in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return f"{value:.12g}" if isinstance(value, float) else str(value)


IMAGE_COLUMNS: tuple[Column[Image], ...] = (
    Column("ID", "id", lambda image: image.id, numeric=True),
    Column("Name", "name", lambda image: image.name, min_width=16),
    Column("Type", "type", lambda image: image.type, rank=1),
    Column("Distribution", "distribution", lambda image: image.distribution, min_width=6, rank=4),
    Column("Slug", "slug", lambda image: image.slug, min_width=8, rank=7),
    Column("Public", "public", lambda image: image.public, rank=9),
    Column("Min Disk", "min_disk_size", lambda image: image.min_disk_size, rank=10, numeric=True),
    Column("Created", "created_at", lambda image: image.created_at, rank=6),
    Column("Status", "status", lambda image: image.status, rank=2),
    Column("Regions", "regions", lambda image: image.regions, min_width=4, rank=5),
    Column("Tags", "tags", lambda image: image.tags, min_width=8, rank=8),
    Column("Size", "size_gigabytes", lambda image: image.size_gigabytes, rank=3, numeric=True),
    Column("Description", "description", lambda image: image.description, min_width=16, in_table=False),
    Column("Error Message", "error_message", lambda image: image.error_message, min_width=16, in_table=False),
)
"""The columns of an image: doctl's, then others."""

ACTION_COLUMNS: tuple[Column[Action], ...] = (
    Column("ID", "id", lambda action: action.id, numeric=True),
    Column("Status", "status", lambda action: action.status, min_width=9),
    Column("Type", "type", lambda action: action.type, rank=2),
    Column("Started At", "started_at", lambda action: action.started_at, rank=5),
    Column("Completed At", "completed_at", lambda action: action.completed_at, rank=4),
    Column("Resource ID", "resource_id", lambda action: action.resource_id, numeric=True, rank=3),
    Column("Resource Type", "resource_type", lambda action: action.resource_type, rank=6),
    Column(
        "Region",
        "region_slug",
        lambda action: action.region_slug or (action.region.slug if action.region else None),
        rank=1,
    ),
)
"""The columns of an action, which are doctl's."""


def choose(columns: Sequence[Column[T]], names: Iterable[str], option: str = "--columns") -> list[Column[T]]:
    """Return the columns with these names, in this order; "min-disk", "MinDisk" and "Min Disk" are one.

    A column may also be given by its name in JSON.

    Args:
        columns: the known columns.
        names: the requested names; "all" is every column.
        option: the name of the option, for errors.

    Raises:
        BadParameter: a column is unknown.
    """
    by_key = {_key(name): column for column in columns for name in (column.title, column.name)}
    chosen: list[Column[T]] = []
    for name in names:
        if name.casefold() == "all":
            chosen.extend(columns)
            continue
        column = by_key.get(_key(name))
        if column is None:
            known = ", ".join(each.title.replace(" ", "") for each in columns)
            raise click.BadParameter(f"{name!r} is no column; there are {known}.", param_hint=option)
        chosen.append(column)
    return chosen


def as_record(item: attrs.AttrsInstance) -> dict[str, Any]:
    """Return the object with the API's names, ready for JSON."""
    return attrs.asdict(item, value_serializer=lambda _, __, value: _plain(value))


def _plain(value: object) -> object:
    return timestamp(value) if isinstance(value, datetime) else value


def _key(title: str) -> str:
    return title.casefold().replace(" ", "").replace("-", "").replace("_", "")
