"""What the columns of a table are: their names, as doctl has them, and how a value is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import attrs
import click

from do_images_async import Action, Image

__all__ = ["ACTION_COLUMNS", "IMAGE_COLUMNS", "Column", "as_record", "choose"]

T = TypeVar("T")


@attrs.frozen
class Column(Generic[T]):
    """A column.

    Attributes:
        title: its heading, and its name.
        value: what an object has there.
        least: how narrow it may become, in characters; None for as wide as its widest value.
        rank: which columns go first when the terminal is too narrow: those with the highest. 0 never does.
        numeric: whether it stands to the right.
    """

    title: str
    value: Callable[[T], object]
    least: int | None = None
    rank: int = 0
    numeric: bool = False

    @property
    def key(self) -> str:
        return _key(self.title)

    def text(self, item: T) -> str:
        """The value as a table and CSV have it."""
        value = self.value(item)
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, datetime):
            return _timestamp(value)
        if isinstance(value, tuple | list):
            return ",".join(str(each) for each in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return f"{value:g}" if isinstance(value, float) else str(value)


IMAGE_COLUMNS: tuple[Column[Image], ...] = (
    Column("ID", lambda image: image.id, numeric=True),
    Column("Name", lambda image: image.name, least=16),
    Column("Type", lambda image: image.type),
    Column("Distribution", lambda image: image.distribution, least=6, rank=1),
    Column("Slug", lambda image: image.slug, least=8, rank=4),
    Column("Public", lambda image: image.public, rank=6),
    Column("Min Disk", lambda image: image.min_disk_size, rank=7, numeric=True),
    Column("Created", lambda image: image.created_at, rank=3),
    Column("Status", lambda image: image.status),
    Column("Regions", lambda image: image.regions, least=4, rank=2),
    Column("Tags", lambda image: image.tags, least=8, rank=5),
    Column("Size", lambda image: image.size_gigabytes, numeric=True),
)
"""What doctl shows of an image, and what it does not."""

ACTION_COLUMNS: tuple[Column[Action], ...] = (
    Column("ID", lambda action: action.id, numeric=True),
    Column("Status", lambda action: action.status),
    Column("Type", lambda action: action.type),
    Column("Started At", lambda action: action.started_at, rank=2),
    Column("Completed At", lambda action: action.completed_at, rank=1),
    Column("Resource ID", lambda action: action.resource_id, numeric=True),
    Column("Resource Type", lambda action: action.resource_type, rank=3),
    Column("Region", lambda action: action.region_slug or (action.region.slug if action.region else None)),
)
"""What doctl shows of an action."""


def choose(columns: Sequence[Column[T]], names: Iterable[str]) -> list[Column[T]]:
    """The columns with these names, in this order; "min-disk", "MinDisk" and "Min Disk" are one.

    Raises:
        BadParameter: there is no such column.
    """
    by_key = {column.key: column for column in columns}
    chosen: list[Column[T]] = []
    for name in names:
        column = by_key.get(_key(name))
        if column is None:
            known = ", ".join(each.title.replace(" ", "") for each in columns)
            raise click.BadParameter(f"{name!r} is no column; there are {known}.", param_hint="--columns")
        chosen.append(column)
    return chosen


def as_record(item: Image | Action) -> dict[str, Any]:
    """The object by the API's own names, ready for JSON."""
    return attrs.asdict(item, value_serializer=lambda _, __, value: _plain(value))


def _plain(value: object) -> object:
    return _timestamp(value) if isinstance(value, datetime) else value


def _timestamp(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _key(title: str) -> str:
    return title.casefold().replace(" ", "").replace("-", "").replace("_", "")
