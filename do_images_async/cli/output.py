"""Rows on stdout, as a table, JSON, JSON lines or CSV; and files that are whole or not there."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click
from click.exceptions import Exit as Exited

from do_images_async import Action, Image
from do_images_async.cli.columns import Column, as_record, choose
from do_images_async.cli.options import split
from do_images_async.cli.status import Exit

__all__ = ["Rows", "csv_text", "write", "write_file"]

Item = TypeVar("Item", Image, Action)

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@attrs.frozen(kw_only=True)
class Rows:
    """How rows are written.

    Attributes:
        form: "table", "json", "ndjson" or "csv".
        columns: names of the columns; empty for all.
        header: whether a table or CSV has a first line.
    """

    form: str
    columns: Sequence[str] = ()
    header: bool = True

    @classmethod
    def of(cls, options: dict[str, Any]) -> Rows:
        """As `output_options` say."""
        return cls(form=options["form"], columns=split(options["columns"]), header=not options["no_header"])

    @property
    def streams(self) -> bool:
        """Whether rows may be written as they come: the others need to see all of them."""
        return self.form in ("ndjson", "csv")

    def check(self, known: Sequence[Column[Item]]) -> None:
        """Raise BadParameter unless the columns are known, before anything is sent."""
        choose(known, self.columns)

    def write(self, items: Iterable[Item], known: Sequence[Column[Item]], *, header: bool = True) -> None:
        """Write all rows.

        Args:
            items: what to write.
            known: the columns there are.
            header: False for rows that follow others.
        """
        write(self._text(list(items), known, header=header and self.header))

    def _text(self, items: list[Item], known: Sequence[Column[Item]], *, header: bool) -> str:
        if self.form == "json":
            return json.dumps([as_record(item) for item in items], indent=2) + "\n"
        if self.form == "ndjson":
            return "".join(json.dumps(as_record(item)) + "\n" for item in items)
        columns = choose(known, self.columns) or list(known)
        cells = [[column.text(item) for column in columns] for item in items]
        if self.form == "csv":
            return csv_text([[column.title.lower().replace(" ", "_") for column in columns]] * header + cells)
        from do_images_async.cli.table import table_text  # rich takes its time to import

        return table_text(columns, cells, header=header, droppable=not self.columns)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV; a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    target = io.StringIO()
    csv.writer(target, lineterminator="\n").writerows(map(_harmless, rows))
    return target.getvalue()


def _harmless(row: Iterable[object]) -> Iterator[object]:
    for value in row:
        yield f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write(text: str) -> None:
    """Write to stdout; a reader that has left ends the process quietly.

    Raises:
        ClickException: it can't be written, as on a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has left, as `head` does; the interpreter must not fail to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Exited(Exit.BROKEN_PIPE) from None
    except OSError as error:
        raise click.ClickException(f"the output could not be written: {error.strerror}") from None


def write_file(path: Path, text: str) -> None:
    """Replace the file by one with this text, at once: whoever reads it finds the old one or the new one.

    Raises:
        ClickException: it can't be written; the old file is as it was.
    """
    try:
        if path.exists() and not path.is_file():  # such as /dev/stdout, which can't be replaced
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return
        _replace(path.resolve(), text.encode(errors="backslashreplace"))
    except OSError as error:
        raise click.ClickException(f"{path} could not be written: {error.strerror}") from None


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(_mode(path))
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _mode(path: Path) -> int:
    """That of the file that is replaced, or what a new one would get."""
    with suppress(FileNotFoundError):
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
