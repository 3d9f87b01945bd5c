"""The options that commands share, and the conversion of their values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from do_images_async._arguments import check_image_key
from do_images_async.cli.completion import complete_columns
from do_images_async.cli.files import OUTPUT_FILE_OR_STDOUT
from do_images_async.cli.logs import is_logging
from do_images_async.cli.progress import Watch

__all__ = [
    "AMOUNT",
    "AMOUNT_ABOVE_ZERO",
    "FRACTION",
    "IMAGE_ID",
    "USD",
    "check_wait_options",
    "client_options",
    "file_option",
    "image_id",
    "image_key",
    "options_given",
    "output_options",
    "region_slugs",
    "split",
    "split_given",
    "wait_options",
    "watch",
]

Command = TypeVar("Command", bound=Callable[..., Any])

_FORMATS = ("table", "json", "ndjson", "csv")


class _Id(click.IntRange):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number: int = super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is no id; that is a number, as `do-images list` shows it.", param, ctx)
        return number


IMAGE_ID = _Id(1, 2**63 - 1)
"""The number of an image, or of an action."""


def image_id(value: str) -> int:
    """Return the number of an image."""
    if value.isascii() and value.isdigit() and 1 <= len(value) < 20 and 1 <= int(value) < 2**63:
        return int(value)
    raise click.BadParameter(f"{value!r} is no id of an image; that is a number.", param_hint="ID")


def image_key(value: str) -> int | str:
    """Return an image's number, or a public image's slug."""
    try:
        return check_image_key(int(value) if value.isascii() and value.isdigit() else value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class _Number(click.FloatRange):
    """A finite number in a range: click's own accepts NaN, which passes every comparison with a limit."""

    def __init__(self, allowed: str, *, maximum: float | None = None, above_zero: bool = False) -> None:
        super().__init__(0, maximum, min_open=above_zero)
        self._allowed = allowed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number: float = super().convert(value, param, ctx)
        except click.BadParameter:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a {self._allowed}.", param, ctx)
        return number


AMOUNT = _Number("finite number from 0")
AMOUNT_ABOVE_ZERO = _Number("finite number above 0", above_zero=True)
FRACTION = _Number("number from 0 to 1", maximum=1)
USD = _Number("number of USD from 0 to 1,000,000", maximum=1_000_000)


def split(values: tuple[str, ...]) -> list[str]:
    """Return the values of an option that was repeated, given with commas, or both."""
    return [part for value in values for part in value.split(",") if part]


def split_given(values: tuple[str, ...], option: str, noun: str) -> list[str]:
    """Return what `split` does.

    Raises:
        UsageError: the option was given, and names nothing.
    """
    parts = split(values)
    if values and not parts:
        raise click.UsageError(f"{option} names no {noun}")
    return parts


def region_slugs(values: tuple[str, ...], option: str) -> list[str]:
    """Return the regions that an option names, each once.

    Raises:
        UsageError: it names none, or something that can be no slug.
    """
    slugs = list(dict.fromkeys(split_given(values, option, "region")))
    for slug in slugs:
        if not re.fullmatch(r"[a-z0-9-]+", slug):
            raise click.UsageError(f"{option}: {slug!r} is no slug of a region, such as nyc3")
    return slugs


def file_option(command: Command) -> Command:
    """Add the option for the output file."""
    option = click.option(
        "--file",
        type=OUTPUT_FILE_OR_STDOUT,
        metavar="FILE",
        help="Write there instead of to stdout; a partial result never replaces a file.",
    )
    return option(command)


def wait_options(
    *, timeout: float = 3600.0, longest: str = "The longest wait."
) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of a wait.

    Args:
        timeout: the default of --wait-timeout, in seconds.
        longest: the help of --wait-timeout.
    """

    def add(command: Command) -> Command:
        poll = click.option(
            "--poll-interval",
            default=5.0,
            type=AMOUNT_ABOVE_ZERO,
            metavar="SECONDS",
            help="Time between the first two polls.",
        )
        wait = click.option(
            "--wait-timeout", default=timeout, type=AMOUNT_ABOVE_ZERO, metavar="SECONDS", help=longest
        )
        return wait(poll(command))

    return add


def check_wait_options(*, wait: bool) -> None:
    """Raise UsageError if an option of `wait_options` was given without --wait."""
    if not wait and (given := options_given(("wait_timeout", "poll_interval"))):
        raise click.UsageError(f"{given[0]} is for --wait")


def options_given(names: Collection[str]) -> list[str]:
    """Return those of the command's options that were given, as they are written, and not by default.

    Args:
        names: the options' names as parameters.
    """
    context = click.get_current_context()
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]


def client_options(command: Command) -> Command:
    """Add the options of the account, the connection, and the progress."""
    options = (
        click.option("--context", metavar="NAME", help="Use the token of this context of doctl's."),
        click.option("--token-file", metavar="FILE", help="Read the token from a file; - is stdin."),
        click.option("-t", "--access-token", "token", metavar="TOKEN", help="Not safe: `ps` shows it."),
        click.option(
            "--proxy",
            metavar="URL",
            help="Connect through this proxy; otherwise HTTPS_PROXY and NO_PROXY count. '' is none.",
        ),
        click.option(
            "--timeout", default=30.0, type=AMOUNT_ABOVE_ZERO, metavar="SECONDS", help="For each attempt."
        ),
        click.option(
            "--retries",
            default=3,
            type=click.IntRange(0, 20),
            help="Retries of a request at most. Those after a 429 of the API do not "
            "count, for an hour; but 0 retries nothing.",
        ),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            help="Log attempts and waits to stderr, as DO_IMAGES_LOG=debug does.",
        ),
        click.option(
            "-q", "--quiet", is_flag=True, help="No progress and no warning about the quota on stderr."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def output_options(command: Command) -> Command:
    """Add the options of the output's format."""
    options = (
        click.option("-o", "--output", "form", type=click.Choice(_FORMATS), default="table", help="Format."),
        file_option,
        click.option(
            "--columns",
            "--format",
            "columns",
            multiple=True,
            metavar="NAMES",
            shell_complete=complete_columns,
            help="Columns of the table or CSV, with commas in between; all for every column.",
        ),
        click.option("--no-header", is_flag=True, help="Leave the table's or CSV's first line away."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def watch(options: dict[str, Any]) -> Watch:
    """Return the rules for showing progress that the options give."""
    return Watch(quiet=options["quiet"], lines=is_logging(verbose=options["verbose"]))
