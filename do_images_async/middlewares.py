"""The two things that happen to every message put on the wire: it is authorized, and it is paid for.

They are one aiohttp client middleware, given with each request: a session that the user brought is left as it
is, and what aiohttp sends of its own accord passes through here as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import attrs
from aiohttp import (
    ClientConnectionError,
    ClientError,
    ClientHandlerType,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ServerDisconnectedError,
)
from aiohttp.hdrs import AUTHORIZATION
from yarl import URL

from do_images_async.credentials import Token
from do_images_async.deadlines import Deadline
from do_images_async.events import Watch
from do_images_async.headers import parse_rate_limit, report_of
from do_images_async.models import RateLimit
from do_images_async.ratelimit import Limiter

__all__ = ["Authorization", "ConnectionBrokenError", "Quota", "UnwritableError"]


class ConnectionBrokenError(Exception):
    """Stands for aiohttp's own exceptions, on which aiohttp would send an idempotent request once more."""


class UnwritableError(Exception):
    """aiohttp refused to write the request, before any of it left."""


class Authorization:
    """Puts the token on requests to its origin, and on no others.

    The client's other headers go with it. Here they are set at once: those that are given to a session are
    copied twice, name by name.
    """

    __slots__ = ("_headers", "_origin")

    def __init__(self, token: Token, origin: URL, headers: Mapping[str, str]) -> None:
        self._headers = {**headers, AUTHORIZATION: token.authorization}
        self._origin = origin

    def put_on(self, request: ClientRequest) -> None:
        """Authorize a request; raises ValueError when it leads elsewhere."""
        if request.url.origin() != self._origin:
            raise ValueError(f"the token is for {self._origin}, not for {request.url.origin()}")
        request.headers.update(self._headers)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Authorization is not pickled: the token would lie readable in it")


@attrs.define
class Quota:
    """Pays for one attempt, and knows whether it may have been sent and what the answer says of the quota.

    The attempt's deadline starts when it has its permit: waiting for quota takes nothing from it.
    """

    authorization: Authorization
    limiter: Limiter
    max_wait: float | None
    reserve: int
    timeout: float | None
    deadline: Deadline
    watch: Watch
    may_have_been_sent: bool = False
    rate_limit: RateLimit | None = None

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        self.authorization.put_on(request)
        self.watch.asks()
        permit = await self.limiter.acquire(max_wait=self.max_wait, reserve=self.reserve)
        self.watch.permitted()
        # A deadline that is set by now is the client's end, and stays.
        if self.timeout is not None:
            self.deadline.start(self.timeout)
        if request.session.closed:
            permit.release()
            raise ClientConnectionError("the session was closed while the call waited for quota")
        try:
            response = await handler(request)
        except BaseException as error:
            # aiohttp makes the response object as it writes the request: none, and nothing was written.
            self.may_have_been_sent = request.response is not None
            if self.may_have_been_sent:
                permit.lose()
                if isinstance(error, ClientOSError | ServerDisconnectedError):
                    # What aiohttp says of a server that disconnected can be the answer's half-read head.
                    reason = str(error) if isinstance(error, ClientOSError) else "the server disconnected"
                    raise ConnectionBrokenError(reason) from None
            else:
                permit.release()
                if isinstance(error, TypeError | ValueError) and not isinstance(error, ClientError):
                    # The client's own headers are checked when it is made.
                    raise UnwritableError(f"a header of the session can't be sent: {error}") from None
            raise
        self.may_have_been_sent = True
        self.rate_limit = parse_rate_limit(response.headers)
        self.watch.answered(response.status, response.headers.get("x-request-id"), self.rate_limit)
        permit.settle(report_of(response.status, response.headers, self.rate_limit))
        return response
