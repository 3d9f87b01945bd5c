"""The option `--account`: several accounts at once, each a name and the variable that holds its token."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from do_images_async import Image
from do_images_async._api.idset import IdSet
from do_images_async._credentials import read_variable
from do_images_async.audit.context import is_own
from do_images_async.cli.connection import Connection, check_one_token, connection_of
from do_images_async.cli.tokens import Credential

__all__ = ["Owners", "account_option", "connections_of"]

Command = TypeVar("Command", bound=Callable[..., Any])


def account_option(command: Command) -> Command:
    """Add the option `accounts`."""
    option = click.option(
        "--account",
        "accounts",
        multiple=True,
        metavar="NAME=ENVVAR",
        help="Use this account, with the token in that variable; repeat it for several at once.",
    )
    return option(command)


def connections_of(accounts: Sequence[str], options: Mapping[str, Any]) -> dict[str | None, Connection]:
    """Return each account's connection by its name; without any, the connection of `client_options`.

    Args:
        accounts: the values of `account_option`.
        options: those of `client_options`.

    Raises:
        BadParameter: an account has the wrong form, its variable is empty, or a name or a token occurs twice.
        UsageError: another option names a token, too.
    """
    if not accounts:
        return {None: connection_of(options)}
    check_one_token(options, "--account")
    pairs = [value.partition("=") for value in accounts]
    for name, sign, variable in pairs:
        if not (name and sign and variable):
            raise click.BadParameter(
                f"{name!r} is not like prod=PROD_TOKEN: a name, and the variable that holds the token.",
                param_hint="--account",
            )
        if not read_variable(variable):
            raise click.BadParameter(
                f"{name}: no variable has the name {variable!r}, or it is empty.", param_hint="--account"
            )
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise click.BadParameter("two accounts have the same name.", param_hint="--account")
    _check_tokens_differ({name: variable for name, _, variable in pairs})
    return {
        name: connection_of(options, Credential(read_variable(variable), variable))
        for name, _, variable in pairs
    }


def _check_tokens_differ(accounts: Mapping[str, str]) -> None:
    """Raise BadParameter if two accounts have the same token: their images would count twice.

    Args:
        accounts: the variable of each account's token, by the account's name.
    """
    by_digest: dict[bytes, str] = {}  # a traceback that shows local variables shows no token
    for name, variable in accounts.items():
        digest = hashlib.sha256(read_variable(variable).encode(errors="surrogateescape")).digest()
        other = by_digest.setdefault(digest, name)
        if other != name:
            raise click.BadParameter(f"{other} and {name} have the same token.", param_hint="--account")


class Owners:
    """The ids of each account's own images, while the accounts are read; a few bytes for each image.

    Only their images show whose a token or a report is.
    """

    def __init__(self) -> None:
        self._ids: dict[str | None, IdSet] = {}

    def add(self, account: str | None, images: Iterable[Image]) -> None:
        """Note the owner of these images.

        Raises:
            BadParameter: another account has one of them, too: two tokens of one account, whose images would
                count twice.
        """
        # A real image's id is above 0.
        own: set[int | str] = {image.id for image in images if is_own(image) and image.id > 0}
        for other, ids in self._ids.items():
            shared = ids.known(own)
            if shared and other != account:
                raise click.BadParameter(
                    f"{other} and {account} seem to be two tokens of one account: both have the image "
                    f"{min(shared)}. If it was transferred between them meanwhile, run the command again.",
                    param_hint="--account",
                )
        self._ids.setdefault(account, IdSet()).absorb(own)

    def has_any(self, account: str | None, ids: Iterable[int]) -> bool:
        """Return whether one of these is an image of the account's own."""
        return account in self._ids and bool(self._ids[account].known(set(ids)))
