"""What happens to every message put on the wire: it is authorized, it is paid for, and it is accounted for.

All that is one aiohttp client middleware, given with each request: a session that the user brought is left as
it is, and what aiohttp sends of its own accord passes through here as well.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Generic, NoReturn, TypeVar

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

from do_images_async._credentials import Token
from do_images_async._http.deadlines import Deadline
from do_images_async._http.failures import ConnectionBrokenError, UnwritableError
from do_images_async._http.headers import parse_rate_limit, report_of
from do_images_async._http.request import Call, Options
from do_images_async._quota.protocols import Limiter
from do_images_async.errors import APIError, DOImagesError
from do_images_async.events import (
    AttemptEnded,
    EventHook,
    PermitGranted,
    log,
    logger,
    outcome_of,
    route_of,
    tell,
)
from do_images_async.models import RateLimit

__all__ = ["Attempt", "Authorization"]

T = TypeVar("T")


class Authorization:
    """Puts the token on requests to its origin, and on no others.

    The client's other headers go with it. Here they are set at once: those that are given to a session are
    copied twice, name by name.
    """

    __slots__ = ("_authority", "_headers", "_scheme")

    def __init__(self, token: Token, origin: URL, headers: Mapping[str, str]) -> None:
        self._headers = {**headers, AUTHORIZATION: token.authorization}
        self._scheme = origin.scheme
        self._authority = origin.raw_authority

    def put_on(self, request: ClientRequest) -> None:
        """Authorize a request; raises ValueError when it leads elsewhere."""
        url = request.url
        # What an origin consists of, without making one for each request; with user information it differs.
        if url.scheme != self._scheme or url.raw_authority != self._authority:
            raise ValueError(f"the token is for {self._scheme}://{self._authority}, not for {url.origin()}")
        request.headers.update(self._headers)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Authorization is not pickled: the token would lie readable in it")


@attrs.define(eq=False, repr=False)
class Attempt(Generic[T]):
    """One attempt at a call: authorizes and pays for it, and remembers what became of it.

    The attempt's deadline starts when it has its permit: waiting for quota takes nothing from it. Of what it
    remembers, nothing is described before somebody wants to know.

    Attributes:
        number: its number within the call, from 1.
        may_have_been_sent: whether the server may know of it.
        rate_limit: what the answer says of the quota.
    """

    authorization: Authorization
    limiter: Limiter
    hook: EventHook | None
    call: Call[T]
    url: URL
    options: Options
    number: int
    deadline: Deadline
    may_have_been_sent: bool = attrs.field(init=False, default=False)
    rate_limit: RateLimit | None = attrs.field(init=False, default=None)
    _response: ClientResponse | None = attrs.field(init=False, default=None)
    _asked_at: float | None = attrs.field(init=False, default=None)
    _permitted_at: float | None = attrs.field(init=False, default=None)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        self.authorization.put_on(request)
        options = self.options
        # aiohttp may send a message twice: the first one counts for what is told.
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        permit = await self.limiter.acquire(max_wait=options.max_wait, reserve=options.reserve)
        if self._permitted_at is None:
            self._permitted()
        # A deadline that is set by now is the client's end, and stays.
        if options.timeout is not None:
            self.deadline.start(options.timeout)
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
                    raise UnwritableError(error) from None
            raise
        self.may_have_been_sent = True
        self._response = response
        self.rate_limit = parse_rate_limit(response.headers)
        permit.settle(report_of(response.status, response.headers, self.rate_limit))
        return response

    def ended(self, error: BaseException | None = None, *, retry_in: float | None = None) -> None:
        """Tell the log and the hook how the attempt ended, when they listen."""
        level = logging.DEBUG if retry_in is None else logging.WARNING
        logged = logger.isEnabledFor(level)
        if self.hook is None and not logged:
            return
        event = self._describe(error, retry_in)
        if logged:
            log(level, self.url, event)
        if self.hook is not None:
            tell(self.hook, event)

    def _permitted(self) -> None:
        self._permitted_at = now = time.monotonic()
        if self.hook is not None:
            event = PermitGranted(
                method=self.call.method,
                route=route_of(self.call.path),
                attempt=self.number,
                quota_wait=self._waited(now),
            )
            tell(self.hook, event)

    def _describe(self, error: BaseException | None, retry_in: float | None) -> AttemptEnded:
        now = time.monotonic()
        permitted_at = now if self._permitted_at is None else self._permitted_at
        response = self._response
        status = None if response is None else response.status
        request_id = error.request_id if isinstance(error, APIError) else None
        if not request_id and response is not None:
            request_id = response.headers.get("x-request-id")
        return AttemptEnded(
            method=self.call.method,
            route=route_of(self.call.path),
            attempt=self.number,
            quota_wait=self._waited(permitted_at),
            duration=now - permitted_at,
            permitted=self._permitted_at is not None,
            outcome=outcome_of(status, error),
            status=status,
            error=error if isinstance(error, DOImagesError) else None,
            retry_in=retry_in,
            request_id=request_id,
            rate_limit=self.rate_limit,
            available=self.limiter.stats().available,
        )

    def _waited(self, until: float) -> float:
        return 0.0 if self._asked_at is None else until - self._asked_at
