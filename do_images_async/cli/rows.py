"""The output of rows as a table, JSON, JSON lines or CSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click

from do_images_async.cli.columns import Column, as_record, choose
from do_images_async.cli.csv_text import csv_text
from do_images_async.cli.options import split
from do_images_async.cli.output import Target, destination, is_file

__all__ = ["Rows"]

Item = TypeVar("Item", bound=attrs.AttrsInstance)


@attrs.frozen(kw_only=True)
class Rows:
    """The output format of rows.

    Attributes:
        form: "table", "json", "ndjson" or "csv".
        columns: names of the columns; empty for the default.
        short: names of the columns that a table has by default; empty for all that fit.
        header: whether a table or CSV has a first line.
        file: the output file; None for stdout.
    """

    form: str
    columns: Sequence[str] = ()
    short: Sequence[str] = ()
    header: bool = True
    file: Path | None = None

    @classmethod
    def of(cls, options: dict[str, Any], *, short: Sequence[str] = ()) -> Rows:
        """Return the format that `output_options` give.

        Raises:
            UsageError: an option has no effect on the format.
        """
        columns = split(options["columns"])
        if options["columns"] and not columns:
            raise click.BadParameter("it names no column; leave it away for all.", param_hint="--columns")
        if options["form"] in ("json", "ndjson"):
            for option, given in {"--columns": columns, "--no-header": options["no_header"]}.items():
                if given:
                    raise click.UsageError(
                        f"{option} is for a table or CSV: {options['form']} has no columns"
                    )
        return cls(
            form=options["form"],
            columns=columns,
            short=short,
            header=not options["no_header"],
            file=options["file"],
        )

    @property
    def streams(self) -> bool:
        """Return whether rows can be written one by one; the other formats need all of them first."""
        return self.form in ("ndjson", "csv")

    def check(self, known: Sequence[Column[Item]]) -> None:
        """Raise BadParameter if a column is unknown. Call it before sending anything."""
        choose(known, self.columns)

    def destination(self) -> AbstractContextManager[Target]:
        """Open the output; a file is replaced when the block ends."""
        return destination(self.file)

    def write(
        self, target: Target, items: Iterable[Item], known: Sequence[Column[Item]], *, header: bool = True
    ) -> None:
        """Write rows.

        Args:
            target: the output.
            items: the rows' objects.
            known: the known columns.
            header: False for rows that follow others.
        """
        text = self._text(list(items), known, header=header and self.header)
        target.write(text, styled=self.form == "table", data=self.form != "table")

    def _columns(self, known: Sequence[Column[Item]]) -> list[Column[Item]]:
        if self.columns or self.form != "table":
            return choose(known, self.columns or ["all"])
        return choose(known, self.short) or [column for column in known if column.in_table]

    def _text(self, items: list[Item], known: Sequence[Column[Item]], *, header: bool) -> str:
        if self.form == "json":
            return json.dumps([as_record(item) for item in items], indent=2) + "\n"
        if self.form == "ndjson":
            return "".join(json.dumps(as_record(item)) + "\n" for item in items)
        columns = self._columns(known)
        if self.form == "csv":
            names = [column.name for column in columns]
            return csv_text([names] * header + [[column.value(item) for column in columns] for item in items])
        cells = [[column.text(item) for column in columns] for item in items]
        from do_images_async.cli.table import table_text  # rich is slow to import

        return table_text(
            columns, cells, header=header, droppable=not self.columns, to_file=is_file(self.file)
        )
