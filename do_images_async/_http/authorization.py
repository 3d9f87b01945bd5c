"""The client's current token: read once, renewed after a 401, put on requests to one origin."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from aiohttp import ClientRequest
from aiohttp.hdrs import AUTHORIZATION
from yarl import URL

from do_images_async._credentials import Token, TokenProvider, read_token
from do_images_async._quota.limiter import RateLimiter
from do_images_async._quota.protocols import Limiter, LimiterOfTokens
from do_images_async._quota.sharing import origin_of_quota, shared_limiter
from do_images_async.errors import TokenError

__all__ = ["Access", "Credentials"]

_EARLIER_TOKENS: Final = 8
"""The number of replaced tokens that are still redacted."""


class Access:
    """One token with the request headers and the limiter that depend on it.

    If no `limiter` is given, the one shared by all clients of this process for this token and origin is used.
    The client's other headers are set here too, because aiohttp copies a session's headers twice for each
    request.

    Attributes:
        token: the token.
        limiter: grants the permits of requests with this token.
    """

    __slots__ = ("__weakref__", "_authority", "_headers", "_scheme", "limiter", "token")

    def __init__(
        self, token: Token, *, origin: URL, headers: Mapping[str, str], limiter: Limiter | None
    ) -> None:
        self.token = token
        if limiter is None:
            self.limiter: Limiter = shared_limiter(token, origin, self)
        elif isinstance(limiter, LimiterOfTokens):
            self.limiter = limiter.for_token(token.digest(), str(origin_of_quota(origin)))
        else:
            self.limiter = limiter
        self._headers = {**headers, AUTHORIZATION: token.authorization}
        self._scheme = origin.scheme
        self._authority = origin.raw_authority

    def put_on(self, request: ClientRequest) -> None:
        """Authorize a request; raises ValueError when it leads to another origin."""
        url = request.url
        # Comparing the parts of an origin is faster than making one for each request. A URL with
        # `user:password@` has another authority, so it is refused.
        if url.scheme != self._scheme or url.raw_authority != self._authority:
            raise ValueError(f"the token is for {self._scheme}://{self._authority}, not for {url.origin()}")
        request.headers.update(self._headers)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Access can't be pickled: a pickle would hold the token in plain text")


class Credentials:
    """The token that requests use now, and its limiter.

    The token is fixed, or the user's function provides it. The function is called before the first request,
    and after a 401. If several requests need it at the same time, it is called once.

    Args:
        source: the token, or the function.
        grant: makes an `Access` for a token.
        limiter: the limiter that the user chose for all tokens; None for the shared ones.
    """

    def __init__(
        self, source: Token | TokenProvider, grant: Callable[[Token], Access], limiter: Limiter | None
    ) -> None:
        self._grant = grant
        self._given = limiter
        self._provider = None if isinstance(source, Token) else source
        self._access = grant(source) if isinstance(source, Token) else None
        self._renewal: asyncio.Task[Token | str] | None = None
        self._earlier: deque[Token] = deque(maxlen=_EARLIER_TOKENS)

    @property
    def known(self) -> bool:
        """Return whether there is a token; if not, `renew` gets one."""
        return self._access is not None

    @property
    def access(self) -> Access:
        """Return the access of the newest token.

        Raises:
            TokenError: the function was not called yet.
        """
        if self._access is None:
            raise TokenError("it was not asked for yet")
        return self._access

    @property
    def limiter(self) -> Limiter:
        """Return the limiter of the newest token; until there is a token, a placeholder."""
        if self._access is not None:
            return self._access.limiter
        if self._given is None:
            self._given = RateLimiter()
        return self._given

    async def renew(self, rejected: Access | None, timeout: float | None) -> bool:
        """Get a token unless the rejected one has been replaced; return whether there is another one now.

        Args:
            rejected: the access that the server did not accept; None for the first token.
            timeout: seconds to wait for the function; None for no limit.

        Raises:
            TokenError: the function raised, was too slow, or returned no token.
        """
        if self._provider is None:
            return False
        if self._access is rejected:
            answer = await self._ask(self._provider, timeout)
            if isinstance(answer, str):
                raise TokenError(answer)
            # All waiters get the same answer; only the first stores it.
            if self._access is rejected and (rejected is None or answer.digest() != rejected.token.digest()):
                if rejected is not None:
                    self._earlier.append(rejected.token)
                self._access = self._grant(answer)
        return self._access is not rejected

    def redact(self, text: str) -> str:
        """Return the text without the token, the latest that it has replaced, and parts of them."""
        for token in self._tokens():
            text = token.redact(text)
        return text

    def redact_json(self, data: bytes) -> bytes:
        """Return JSON without the token and the latest that it has replaced."""
        for token in self._tokens():
            data = token.redact_json(data)
        return data

    def _tokens(self) -> list[Token]:
        return [*self._earlier, *([] if self._access is None else [self._access.token])]

    def cancel(self) -> None:
        """Cancel the function; calls that wait for it raise `TokenError`."""
        if self._renewal is not None:
            self._renewal.cancel()

    async def _ask(self, provider: TokenProvider, timeout: float | None) -> Token | str:
        if self._renewal is None:
            self._renewal = asyncio.create_task(_provided(provider, timeout))
            self._renewal.add_done_callback(self._forget)
        renewal = self._renewal
        # Cancelling one waiter doesn't cancel the function.
        done, _ = await asyncio.wait([renewal], timeout=timeout)
        if not done:
            return _too_slow(timeout)
        return "the function was cancelled" if renewal.cancelled() else renewal.result()

    def _forget(self, renewal: asyncio.Task[Token | str]) -> None:
        if self._renewal is renewal:
            self._renewal = None


async def _provided(provider: TokenProvider, timeout: float | None) -> Token | str:
    """Return the function's token, or a text that says why there is none.

    The exception that the function raised is dropped: it can hold the token.
    """
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            answer = provider()
            token = read_token(await answer if inspect.isawaitable(answer) else answer)
            del answer
    except Exception as error:  # noqa: BLE001  (whatever the user's function raises)
        if limit.expired():
            return _too_slow(timeout)
        reason = error.strerror if isinstance(error, OSError) else None
        return f"the function raised {type(error).__name__}" + (f": {reason}" if reason else "")
    return token if isinstance(token, Token) else f"the function's result can't be used: {token}"


def _too_slow(timeout: float | None) -> str:
    return f"the function did not return within {timeout} s"
