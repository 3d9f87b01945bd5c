"""The files that options name: their types, and the check that no two options mean the same file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import click

__all__ = [
    "INPUT_FILE",
    "OUTPUT_FILE",
    "OUTPUT_FILE_OR_STDOUT",
    "check_files",
    "is_same",
    "partial_of",
    "path_in_home",
]


class _OutputFile(click.Path):
    """A file that is written. It refuses `a/`, of which `Path` would make `a`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty: name a file.", param, ctx)
        if os.path.basename(value) in ("", ".", ".."):  # noqa: PTH119  (Path drops a slash at the end)
            self.fail(f"{str(value)!r} is a directory's path: name a file.", param, ctx)
        return super().convert(value, param, ctx)


INPUT_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
"""A file that is read."""

OUTPUT_FILE: Final = _OutputFile(dir_okay=False, path_type=Path)
"""A file that is written."""

OUTPUT_FILE_OR_STDOUT: Final = _OutputFile(dir_okay=False, allow_dash=True, path_type=Path)
"""A file that is written, or - for stdout."""

_READ_THEN_REPLACED: Final = frozenset(
    {
        frozenset({"--baseline", "--file"}),  # an audit that is compared with the last one each time
        frozenset({"--load", "--dump"}),  # an emulator that goes on with its state
    }
)
"""The options that may name one file on purpose: it is read whole before anything is done."""


@attrs.frozen
class _Named:
    """A file that an option names."""

    option: str
    path: Path
    is_written: bool
    has_partial: bool

    def is_same_as(self, other: Path) -> bool:
        return is_same(self.path, other)


def path_in_home(text: str) -> Path:
    """Return the path in a variable, which may begin with ~: no shell expands that in a file of settings."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  (Path's own raises where there is no such home)


def partial_of(path: Path) -> Path:
    """Return the file for a partial result beside the file of the result."""
    return path.with_name(f"{path.name}.partial")


def check_files(ctx: click.Context) -> None:
    """Raise UsageError if a command would write a file that another of its options names as well."""
    named = list(_named(ctx))
    for place, one in enumerate(named):
        for other in named[place + 1 :]:
            if frozenset({one.option, other.option}) in _READ_THEN_REPLACED or one.option == other.option:
                continue
            if (one.is_written or other.is_written) and one.is_same_as(other.path):
                raise click.UsageError(
                    f"{one.option} and {other.option} name the same file: {other.path}", ctx
                )
            _check_partial(ctx, one, other)
            _check_partial(ctx, other, one)


def _check_partial(ctx: click.Context, result: _Named, other: _Named) -> None:
    if result.has_partial and other.is_same_as(partial_of(_followed(result.path))):
        raise click.UsageError(
            f"{other.option}: {other.path} is where {result.option} keeps a partial result", ctx
        )


def _named(ctx: click.Context) -> Iterator[_Named]:
    for param in ctx.command.params:
        if isinstance(param.type, click.Path) or param.name == "token_file":
            option = max(param.opts, key=len)
            for path in _paths(ctx.params.get(param.name or "")):
                yield _Named(option, path, isinstance(param.type, _OutputFile), option == "--file")


def _paths(value: Path | str | tuple[Path, ...] | None) -> list[Path]:
    """Return the files that an option's value names; - is a standard stream."""
    if isinstance(value, tuple):
        return list(value)
    return [] if value is None or str(value) in ("", "-") else [Path(value)]


def is_same(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one file, through links as well, or would if it existed.

    Devices, such as /dev/null, are not compared: nothing in them can be lost.
    """
    try:
        is_one = os.path.samestat(one.stat(), other.stat())
    except OSError:  # one of them does not exist
        return _followed(one) == _followed(other)
    return is_one and one.is_file()


def _followed(path: Path) -> Path:
    return Path(os.path.realpath(path))
