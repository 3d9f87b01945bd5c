"""Shell completion of columns, regions and time zones, and `completion`, which prints the shell's script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zoneinfo import available_timezones

import click
from click.shell_completion import ShellComplete

from do_images_async.cli.checked import CheckedCommand
from do_images_async.cli.columns import ACTION_COLUMNS, IMAGE_COLUMNS
from do_images_async.cli.output import write
from do_images_async.cli.shells import SHELLS, VARIABLE
from do_images_async.cli.status import Exit

__all__ = [
    "REGIONS",
    "complete_columns",
    "complete_regions",
    "complete_sort",
    "complete_time_zones",
    "completion_command",
]

REGIONS = (
    *("ams2", "ams3", "atl1", "blr1", "fra1", "lon1", "nyc1", "nyc2", "nyc3", "ric1"),
    *("sfo1", "sfo2", "sfo3", "sgp1", "syd1", "tor1"),
)
"""Slugs of regions, for completion only: any other is taken as well."""

_ABOUT_ACTIONS = frozenset({"actions", "convert", "transfer"})


def complete_columns(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the last of several names of columns."""
    known = ACTION_COLUMNS if ctx.command.name in _ABOUT_ACTIONS else IMAGE_COLUMNS
    return _last(incomplete, _names(column.title for column in known))


def complete_sort(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a column, with or without a minus."""
    minus = "-" if incomplete.startswith("-") else ""
    names = _names(column.title for column in IMAGE_COLUMNS)
    return [f"{minus}{each}" for each in _last(incomplete.removeprefix("-"), names)]


def complete_regions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the last of several slugs of regions."""
    return _last(incomplete, REGIONS)


def complete_time_zones(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a time zone."""
    begun = incomplete.casefold()
    return sorted(zone for zone in available_timezones() if zone.casefold().startswith(begun))


def _names(titles: Iterable[str]) -> tuple[str, ...]:
    return tuple(title.replace(" ", "") for title in titles)


def _last(incomplete: str, known: Sequence[str]) -> list[str]:
    before, comma, begun = incomplete.rpartition(",")
    return [f"{before}{comma}{each}" for each in known if each.casefold().startswith(begun.casefold())]


@click.command("completion", cls=CheckedCommand)
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion_command(ctx: click.Context, *, shell: str) -> int:
    """Print the completion script of a shell.

    It completes commands, options and their values: columns, regions, formats, time zones and files.

    Costs no request.

    \b
    Examples:
      do-images completion bash > ~/.local/share/bash-completion/completions/do-images
      do-images completion zsh > "${fpath[1]}/_do-images"
      do-images completion fish > ~/.config/fish/completions/do-images.fish
    """
    # Not click's `source`: the one for bash starts a bash to ask for its version.
    write(ShellComplete.source(SHELLS[shell](ctx.find_root().command, {}, "do-images", VARIABLE)))
    return Exit.OK
