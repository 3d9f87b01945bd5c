"""The sources of the token: the environment, a file, or doctl's configuration."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import attrs
import click

from do_images_async._credentials import TOKEN_VARIABLES, read_variable
from do_images_async.cli.files import path_in_home
from do_images_async.cli.status import complain

__all__ = ["Credential", "TokenSource", "doctl_config_path", "find_token"]

_DEFAULT = "default"
_NULLS = ("", "~", "null", "Null", "NULL")
_LARGEST = 1_000_000  # bytes; a device such as /dev/zero has no end


@attrs.frozen
class Credential:
    """A token.

    Attributes:
        token: the token itself.
        origin: its source, for the message if it is refused.
    """

    token: str = attrs.field(repr=False)
    origin: str


@attrs.frozen(kw_only=True)
class TokenSource:
    """The token's source on the command line; the first given one counts.

    Attributes:
        argument: the token itself.
        file: a file that holds only the token; "-" is stdin.
        context: an authentication context of doctl's.
    """

    argument: str | None = attrs.field(default=None, repr=False)
    file: str | None = None
    context: str | None = None


def find_token(source: TokenSource) -> Credential:
    """Return the token from the command line, else the environment, else doctl's current context.

    Raises:
        ClickException: there is none, or its source can't be read.
    """
    if source.argument is not None:
        complain(
            "warning: a token among the arguments can be read by every process of this machine; "
            "better use DIGITALOCEAN_TOKEN or --token-file"
        )
        return Credential(source.argument, "--access-token")
    if source.file is not None:
        return Credential(_from_file(source.file), f"--token-file {source.file}")
    if source.context is not None:
        return _from_doctl(source.context, required=True)
    for variable in TOKEN_VARIABLES:
        if token := read_variable(variable):
            return Credential(token, variable)
    if (credential := _from_doctl(os.environ.get("DIGITALOCEAN_CONTEXT"), required=False)).token:
        return credential
    raise click.ClickException(
        f"no token: set {' or '.join(TOKEN_VARIABLES)}, give --token-file, or log in with `doctl auth init`"
        f"{credential.origin}; to see it work without an account: do-images audit --demo"
    )


def doctl_config_path() -> Path:
    """Return the path of doctl's configuration for this system and user."""
    if named := os.environ.get("DIGITALOCEAN_CONFIG"):
        return path_in_home(named)
    if sys.platform == "darwin":
        home = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        home = Path(os.environ.get("APPDATA") or Path.home())
    else:
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "doctl" / "config.yaml"


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return content


def _from_file(name: str) -> str:
    if not name:
        raise click.ClickException("--token-file is empty: name a file")
    try:
        text = sys.stdin.read(_LARGEST) if name == "-" else _read(Path(name)).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise click.ClickException(f"--token-file {name}: {reason}") from None
    text = text.removeprefix("\ufeff").strip()  # a byte order mark, as Windows puts there
    if not text:
        raise click.ClickException(f"--token-file {name}: it is empty")
    return text


def _from_doctl(context: str | None, *, required: bool) -> Credential:
    """Return the token of a context; without a token, the origin names the files that were read."""
    path = doctl_config_path()
    config = _read_config(path, required=required)
    if config is None:
        return Credential("", "")
    # doctl's own reader has keys in lower case.
    name = (context or _as_text(config.get("context")) or _DEFAULT).lower()
    named = {str(key).lower(): value for key, value in _as_mapping(config.get("auth-contexts")).items()}
    if token := _as_text(config.get("access-token") if name == _DEFAULT else named.get(name)):
        return Credential(token, f"the context {name!r} in {path}")
    if not required:
        return Credential("", f" ({path} has none for the context {name!r})")
    known = ", ".join(sorted({_DEFAULT, *named}))
    raise click.ClickException(f"--context {name}: {path} has no token for it; it has {known}")


def _read_config(path: Path, *, required: bool) -> Mapping[str, object] | None:
    import yaml  # slow to import, and only doctl's configuration needs it

    try:
        # Load every value as text, so that no date, number or merge key is interpreted wrongly.
        config: object = yaml.load(_read(path), Loader=yaml.BaseLoader)  # noqa: S506  (safer than safe)
    except FileNotFoundError:
        if not required:
            return None
        raise click.ClickException(f"--context: there is no {path}; doctl has not been set up") from None
    except OSError as error:
        raise click.ClickException(f"{path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, RecursionError, ValueError):
        # The parser's message quotes the line, which may hold a token.
        raise click.ClickException(f"{path} is not YAML that doctl would write") from None
    return _as_mapping(config)


def _as_mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _as_text(value: object) -> str:
    return value if isinstance(value, str) and value not in _NULLS else ""
