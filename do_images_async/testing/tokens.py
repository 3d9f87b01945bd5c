"""The tokens that are accepted, their scopes, and when they expire."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

import attrs

from do_images_async.testing.answers import Problem, usual_problem

__all__ = ["Grant", "Tokens", "demand"]

_TOKEN = re.compile(r"[!-~]+", re.ASCII)
_SCOPE = re.compile(r"[a-z_]+:(read|create|update|delete)")


@attrs.frozen
class Grant:
    """The rights of a token.

    Attributes:
        scopes: the scopes that it has; None stands for all.
        expires: Unix time in seconds from which it is refused; None for never.
    """

    scopes: frozenset[str] | None = None
    expires: float | None = None


class Tokens:
    """The accepted tokens.

    Args:
        clock: Unix time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._grants: dict[str, Grant] = {}

    def __len__(self) -> int:
        return len(self._grants)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._grants))

    def __contains__(self, token: object) -> bool:
        return token in self._grants

    def __repr__(self) -> str:
        return f"<Tokens: {len(self)}>"

    def issue(
        self,
        *,
        scopes: Iterable[str] | None = None,
        expires_in: float | None = None,
        token: str | None = None,
    ) -> str:
        """Accept a token from now on; return it.

        Args:
            scopes: the scopes that it has, such as "image:read" and "tag:create"; None stands for all.
            expires_in: seconds until it is refused; 0 is an expired token, None one that never expires.
            token: the token, by default a new one.
        """
        chosen = None if scopes is None else frozenset(_checked(scopes))
        if token is not None and not (isinstance(token, str) and _TOKEN.fullmatch(token)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError("token must be printable ASCII without spaces")
        if expires_in is not None and not _is_duration(expires_in):
            raise ValueError("expires_in must be a number of seconds from 0 to 1e9")
        if token is None:
            token = f"dop_v1_{secrets.token_hex(32)}"
        expires = None if expires_in is None else self._clock() + expires_in
        self._grants[token] = Grant(chosen, expires)
        return token

    def revoke(self, token: str) -> None:
        """Refuse the token from now on."""
        self._grants.pop(token, None)

    def accepts(self, token: str | None) -> bool:
        """Return whether the token is known and has not expired."""
        grant = None if token is None else self._grants.get(token)
        return grant is not None and (grant.expires is None or grant.expires > self._clock())

    def authenticate(self, token: str | None) -> Grant:
        """Return the rights of the token.

        Raises:
            Problem: the token is missing, unknown or expired; the API's answer is the same for all three.
        """
        if token is None or not self.accepts(token):
            raise usual_problem(401)
        return self._grants[token]


def _checked(scopes: object) -> Iterator[str]:
    if isinstance(scopes, str | bytes | Mapping) or not isinstance(scopes, Iterable):
        raise TypeError("scopes must be several strings such as image:read and tag:create")
    for scope in cast("Iterable[object]", scopes):
        if not isinstance(scope, str):
            raise TypeError("scopes must be several strings such as image:read and tag:create")
        if not _SCOPE.fullmatch(scope):
            raise ValueError(f"scopes must be like image:read or tag:create, not {scope!r}")
        yield scope


def _is_duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= 1e9


def demand(grant: Grant, scopes: Iterable[str]) -> None:
    """Raise unless the grant covers these scopes."""
    for scope in scopes:
        if grant.scopes is not None and scope not in grant.scopes:
            raise Problem(403, "forbidden", f"The token lacks the scope {scope}.")
