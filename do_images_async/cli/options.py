"""The options that commands share, and what their values become."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from do_images_async import ImagesAPI
from do_images_async._arguments import check_image_key
from do_images_async._credentials import base_url_from_environment
from do_images_async.cli.progress import Watch
from do_images_async.cli.quota import shared_quota
from do_images_async.cli.tokens import TokenSource, find_token

__all__ = [
    "IMAGE_ID",
    "amount",
    "client",
    "client_options",
    "clients",
    "file_option",
    "image_key",
    "output_options",
    "split",
    "watch",
]

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

_FORMATS = ("table", "json", "ndjson", "csv")


IMAGE_ID = click.IntRange(1, 2**63 - 1)
"""The number of an image, or of an action."""


def image_key(value: str) -> int | str:
    """An image's number, or a public image's slug."""
    try:
        return check_image_key(int(value) if value.isascii() and value.isdigit() else value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def amount(value: str) -> float:
    """Return a number from 0, neither infinite nor NaN."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise click.BadParameter(f"{value!r} is not a number from 0.")
    return number


def split(values: tuple[str, ...]) -> list[str]:
    """What was given in several options, or in one with commas, or both."""
    return [part for value in values for part in value.split(",") if part]


def file_option(command: Command) -> Command:
    """Add where the output goes."""
    option = click.option(
        "--file",
        type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
        metavar="FILE",
        help="Write there instead of to stdout; a partial result never replaces a file.",
    )
    return option(command)


def client_options(command: Command) -> Command:
    """Add what names the account, and what is shown on the way."""
    options = (
        click.option("--context", metavar="NAME", help="Use the token of this context of doctl's."),
        click.option("--token-file", metavar="FILE", help="Read the token from a file; - is stdin."),
        click.option("-t", "--access-token", "token", metavar="TOKEN", help="Not safe: `ps` shows it."),
        click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def output_options(command: Command) -> Command:
    """Add what the output looks like."""
    options = (
        click.option("-o", "--output", "form", type=click.Choice(_FORMATS), default="table", help="Format."),
        file_option,
        click.option(
            "--columns",
            "--format",
            "columns",
            multiple=True,
            metavar="NAMES",
            help="Columns of the table or CSV, with commas in between.",
        ),
        click.option("--no-header", is_flag=True, help="Leave the table's or CSV's first line away."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def client(options: dict[str, Any]) -> ImagesAPI:
    """A client for the account that `client_options` name; what is wrong with them is wrong usage."""
    return clients(options)()


def clients(options: dict[str, Any]) -> Callable[[], ImagesAPI]:
    """Makes such clients, one for each event loop; the token is looked for once."""
    token = find_token(
        TokenSource(argument=options["token"], file=options["token_file"], context=options["context"])
    )
    base_url = base_url_from_environment()

    def connect() -> ImagesAPI:
        try:
            return ImagesAPI(token, base_url=base_url, limiter=shared_quota())
        except ValueError as error:
            raise click.ClickException(str(error)) from None

    return connect


def watch(options: dict[str, Any]) -> Watch:
    """How progress is shown, as the options say."""
    return Watch(quiet=options["quiet"])
