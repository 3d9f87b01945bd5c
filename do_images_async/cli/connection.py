"""The connection to an account: its token, proxy, timeout and retries."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final, cast
from urllib.request import getproxies, proxy_bypass

import aiohttp
import attrs
import click
from yarl import URL

from do_images_async import ImagesAPI, RetryPolicy
from do_images_async._credentials import base_url_from_environment
from do_images_async.cli.checked import typed_name
from do_images_async.cli.in_flight import note_event
from do_images_async.cli.logs import is_logging, start_log
from do_images_async.cli.quota import shared_quota, warn_of_unshared_quota
from do_images_async.cli.tokens import Credential, TokenSource, find_token
from do_images_async.errors import AuthenticationError

__all__ = ["Connection", "check_one_token", "connection_of"]


_SHORTEST: Final = 9
"""The shortest token that is looked for among the arguments; a shorter one may be there by chance."""


@attrs.frozen(kw_only=True)
class Connection:
    """The way to reach an account; `open` makes a client for it, one for each event loop.

    Attributes:
        credential: the token, and where it came from.
        proxy: the proxy for all requests; None for none.
        timeout: seconds for each attempt.
        retries: the most retries of a request.
    """

    credential: Credential
    proxy: str | None = attrs.field(default=None, repr=False)
    timeout: float = 30.0
    retries: int = 3

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[ImagesAPI]:
        """Open a client until the block ends.

        Raises:
            ClickException: the token or `DIGITALOCEAN_API_URL` can't be used.
        """
        limiter = shared_quota()
        async with self._session() as session, limiter or nullcontext():
            try:
                api = ImagesAPI(
                    self.credential.token,
                    session=session,
                    base_url=base_url_from_environment(),
                    limiter=limiter,
                    retry=RetryPolicy(attempts=self.retries + 1),
                    timeout=self.timeout,
                    on_event=note_event,
                )
            except ValueError as error:
                raise click.ClickException(_blamed(str(error), self.credential.origin)) from None
            async with api:
                try:
                    yield api
                except AuthenticationError as error:
                    self.explain(error)
                    raise

    def explain(self, error: BaseException) -> None:
        """Add the token's origin as a note to an error about a refused token."""
        note = f"the token came from {self.credential.origin}"
        if isinstance(error, AuthenticationError) and note not in getattr(error, "__notes__", ()):
            error.add_note(note)

    def _session(self) -> aiohttp.ClientSession | nullcontext[None]:
        """Open a session for the proxy; without one, the client makes its own."""
        if self.proxy is None:
            return nullcontext()
        # Never `trust_env`: it reads .netrc as well.
        return aiohttp.ClientSession(
            proxy=self.proxy,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
        )


def connection_of(options: Mapping[str, Any], credential: Credential | None = None) -> Connection:
    """Return the connection that `client_options` describe, and start the requested log and warnings.

    Args:
        options: the values of `client_options`.
        credential: the token; None finds it by the options.
    """
    check_one_token(options)
    start_log(verbose=options["verbose"])
    if not options["quiet"] and not is_logging(verbose=options["verbose"]):  # a log has the warning as well
        warn_of_unshared_quota()
    if credential is None:
        source = TokenSource(
            argument=options["token"], file=options["token_file"], context=options["context"]
        )
        credential = find_token(source)
    _check_not_given(credential.token)
    return Connection(
        credential=credential,
        proxy=_proxy(options["proxy"]),
        timeout=options["timeout"],
        retries=options["retries"],
    )


def _blamed(message: str, origin: str) -> str:
    """Return what is wrong with the client's arguments, by where they came from."""
    if not message.startswith("base_url "):
        return f"{origin}: {message}"
    message = message.replace(" (allow_insecure_http=True allows it)", "")  # no option does
    return message.replace("base_url", "DIGITALOCEAN_API_URL", 1)


def _check_not_given(token: str) -> None:
    """Raise UsageError if another argument of the command is the token: it would be sent, and shown."""
    if len(token) < _SHORTEST:
        return
    context = click.get_current_context()
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        values = cast("tuple[object, ...]", value if isinstance(value, tuple) else (value,))
        words = [word for each in values if isinstance(each, str) for word in each.split(",")]
        if parameter.name != "token" and token in words:
            raise click.UsageError(f"{typed_name(parameter)} must not be an API token")


def check_one_token(options: Mapping[str, Any], *others: str) -> None:
    """Raise UsageError if two options name a token, where all but one would have no effect.

    Args:
        options: the values of `client_options`.
        others: further options that name the account and were given.
    """
    names = {"token": "--access-token", "token_file": "--token-file", "context": "--context"}
    given = [*others, *(name for key, name in names.items() if options[key] is not None)]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} exclude each other")


def _proxy(given: str | None) -> str | None:
    """Return the given proxy, else that of `HTTPS_PROXY` unless `NO_PROXY` has the host."""
    if given is not None:
        return _checked(given, "--proxy") if given else None
    try:
        base_url = URL(base_url_from_environment())
    except ValueError:
        return None  # the client's own error is better
    proxy = getproxies().get("https") if base_url.scheme == "https" else None
    if not proxy or proxy_bypass(base_url.host or ""):
        return None
    named = [name for name in ("https_proxy", "HTTPS_PROXY") if os.environ.get(name) == proxy]
    name = named[0] if named else "the system's proxy"  # of macOS or Windows
    return _checked(proxy if "://" in proxy else f"http://{proxy}", name)


def _checked(proxy: str, name: str) -> str:
    try:
        url = URL(proxy)
        usable = url.scheme in ("http", "https") and bool(url.host) and bool(url.port)
    except ValueError:
        usable = False
    if not usable:  # it may hold a password
        raise click.UsageError(
            f"{name} must be the address of an HTTP proxy, such as http://proxy.example.com:3128;"
            " others, such as SOCKS, don't work"
        )
    return proxy
