"""Where the token comes from: the environment, a file, or doctl's own configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import attrs
import click

from do_images_async._credentials import TOKEN_VARIABLES, token_from_environment

__all__ = ["TokenSource", "doctl_config_path", "find_token"]

_DEFAULT = "default"


@attrs.frozen(kw_only=True)
class TokenSource:
    """What the command line says of the token; the first that is given counts.

    Attributes:
        argument: the token itself.
        file: a file that holds nothing else; "-" is stdin.
        context: an authentication context of doctl's.
    """

    argument: str | None = attrs.field(default=None, repr=False)
    file: str | None = None
    context: str | None = None


def find_token(source: TokenSource) -> str:
    """The token: as the command line says, else from the environment, else of doctl's current context.

    Raises:
        ClickException: there is none, or what should hold it can't be read.
    """
    if source.argument is not None:
        click.echo(
            "do-images: warning: a token among the arguments can be read by every process of this machine; "
            "better use DIGITALOCEAN_TOKEN or --token-file",
            err=True,
        )
        return source.argument
    if source.file is not None:
        return _from_file(source.file)
    if source.context is not None:
        return _from_doctl(source.context, required=True)
    if token := token_from_environment():
        return token
    if token := _from_doctl(os.environ.get("DIGITALOCEAN_CONTEXT"), required=False):
        return token
    raise click.ClickException(
        f"no token: set {' or '.join(TOKEN_VARIABLES)}, give --token-file, or log in with `doctl auth init`; "
        "to see it work without an account: do-images audit --demo"
    )


def doctl_config_path() -> Path:
    """Where doctl keeps its configuration, on this system and for this user."""
    if named := os.environ.get("DIGITALOCEAN_CONFIG"):
        return Path(named)
    if sys.platform == "darwin":
        home = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        home = Path(os.environ.get("APPDATA") or Path.home())
    else:
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "doctl" / "config.yaml"


def _from_file(name: str) -> str:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise click.ClickException(f"--token-file {name}: {reason}") from None
    if not text.strip():
        raise click.ClickException(f"--token-file {name}: it is empty")
    return text.strip()


def _from_doctl(context: str | None, *, required: bool) -> str:
    path = doctl_config_path()
    config = _read_config(path, required=required)
    # doctl's own reader has keys in lower case.
    name = str(context or config.get("context") or _DEFAULT).lower()
    contexts: Any = config.get("auth-contexts")
    named = {str(key).lower(): value for key, value in _as_mapping(contexts).items()}
    token = config.get("access-token") if name == _DEFAULT else named.get(name)
    if isinstance(token, str) and token:
        return token
    if not required:
        return ""
    known = ", ".join(sorted({_DEFAULT, *named}))
    raise click.ClickException(f"--context {name}: {path} has no token for it; it has {known}")


def _read_config(path: Path, *, required: bool) -> Mapping[str, Any]:
    import yaml  # only who uses doctl's configuration waits for it

    try:
        config: Any = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        if not required:
            return {}
        raise click.ClickException(f"--context: there is no {path}; doctl has not been set up") from None
    except OSError as error:
        raise click.ClickException(f"{path} can't be read: {error.strerror}") from None
    except yaml.YAMLError:
        # The parser's message quotes the line, which may be that of a token.
        raise click.ClickException(f"{path} is not YAML") from None
    return _as_mapping(config)


def _as_mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
