"""One attempt at a call: the aiohttp client middleware that authorizes each message and takes its permit.

It is passed with each request, so a session of the user's is not changed. Messages that aiohttp sends by
itself, such as its own retry on a dropped connection, go through it as well. The middlewares of the user's
session are around it: they run before the token is on the request, and each message that they send takes a
permit and can lead to no other origin.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec
from aiohttp import (
    ClientConnectionError,
    ClientError,
    ClientHandlerType,
    ClientMiddlewareType,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ServerDisconnectedError,
)
from yarl import URL

from do_images_async._http.authorization import Access, Credentials
from do_images_async._http.deadlines import Deadline
from do_images_async._http.failures import (
    WIRE_ERRORS,
    ConnectionBrokenError,
    UnforeseenError,
    UnwritableError,
)
from do_images_async._http.idle import ConnectionCheck
from do_images_async._http.logs import call_hook, log_attempt, logger, outcome_of, route_of
from do_images_async._http.messages import QuotaMiddleware, give_back, is_interruption, settle
from do_images_async._http.request import Call, Options
from do_images_async._quota.protocols import Permit
from do_images_async.errors import APIError, DOImagesError
from do_images_async.events import AttemptEnded, EventHook, PermitGranted
from do_images_async.models import RateLimit

__all__ = ["Attempt", "hides_middlewares"]

T = TypeVar("T")


class Attempt(msgspec.Struct, Generic[T], eq=False, kw_only=True):
    """One attempt at a call: authorizes it, takes its permit and records its outcome.

    The attempt's deadline starts when it has its permit, so that waiting for quota does not count.

    Attributes:
        number: its number within the call, from 1.
        access: the token that it goes out with, and before it has a permit, the one that was newest then.
        may_have_been_sent: whether the server may know of it, or of an earlier message of the attempt.
        response: the response; its body may be unread.
        rate_limit: the quota as the response reports it.
    """

    credentials: Credentials
    connections: ConnectionCheck
    hook: EventHook | None
    call: Call[T]
    url: URL
    options: Options
    number: int
    deadline: Deadline
    access: Access
    may_have_been_sent: bool = False
    response: ClientResponse | None = None
    rate_limit: RateLimit | None = None
    _asked_at: float | None = None
    _permitted_at: float | None = None

    __repr__ = object.__repr__

    def within(self, session: ClientSession) -> tuple[ClientMiddlewareType, ...]:
        """Return the middlewares of a request: the session's own, and this one as the innermost."""
        # aiohttp replaces a session's middlewares by the request's, and has no public way to read them.
        own: Sequence[ClientMiddlewareType] = getattr(session, "_middlewares", ())
        return (*(each for each in own if not isinstance(each, QuotaMiddleware)), self)

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        # aiohttp, or a middleware, may send a message twice: events report the first one.
        self.response = None
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        permit = await self._acquire()
        try:
            self._prepare(request)
        except BaseException:
            permit.release()
            raise
        try:
            self.response = response = await self.connections.send(request, handler)
        except BaseException as error:
            sent = give_back(permit, request, error)
            self.may_have_been_sent = self.may_have_been_sent or sent
            if is_interruption(error):
                traceback.clear_frames(error.__traceback__)  # those of the writer hold the token
            _raise_ours(error, sent=sent)
            raise
        self.may_have_been_sent = True
        self.rate_limit = settle(permit, response)
        return response

    def _prepare(self, request: ClientRequest) -> None:
        if self._permitted_at is None:
            self._permitted()
        # If the client was closed meanwhile the deadline has already expired; it does not start again.
        if self.options.timeout is not None:
            self.deadline.start(self.options.timeout)
        if request.session.closed:
            raise ClientConnectionError("the session was closed while the call waited for quota")
        self.access.put_on(request)

    def sent_and_cancelled(self, error: BaseException) -> bool:
        """Return whether the attempt was cancelled after it had its permit."""
        return isinstance(error, asyncio.CancelledError) and self._permitted_at is not None

    async def _acquire(self) -> Permit:
        """Wait for a permit of the newest token; another call may renew it meanwhile."""
        options = self.options
        while True:
            self.access = access = self.credentials.access
            permit = await access.limiter.acquire(max_wait=options.max_wait, reserve=options.reserve)
            if access is self.credentials.access:
                return permit
            permit.release()

    def ended(self, error: BaseException | None = None, *, retry_in: float | None = None) -> None:
        """Report how the attempt ended; the event is built only if the hook or the logger wants it."""
        level = logging.DEBUG if retry_in is None else logging.WARNING
        logged = logger.isEnabledFor(level)
        if self.hook is None and not logged:
            return
        event = self._describe(error, retry_in)
        if logged:
            log_attempt(level, self.url, event)
        if self.hook is not None:
            call_hook(self.hook, event)

    @property
    def _route(self) -> str:
        return self.call.route or route_of(self.call.path)

    def _permitted(self) -> None:
        now = time.monotonic()
        if self.hook is not None:
            event = PermitGranted(
                method=self.call.method,
                route=self._route,
                attempt=self.number,
                quota_wait=self._waited(now),
            )
            call_hook(self.hook, event)
        self._permitted_at = now  # a hook may still cancel the attempt: nothing is sent then

    def _describe(self, error: BaseException | None, retry_in: float | None) -> AttemptEnded:
        now = time.monotonic()
        permitted_at = now if self._permitted_at is None else self._permitted_at
        response = self.response
        status = None if response is None else response.status
        request_id = error.request_id if isinstance(error, APIError) else None
        if not request_id and response is not None:
            request_id = response.headers.get("x-request-id")
            request_id = request_id and self.credentials.redact(request_id)
        return AttemptEnded(
            method=self.call.method,
            route=self._route,
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
            available=self.credentials.limiter.stats().available,
        )

    def _waited(self, until: float) -> float:
        return 0.0 if self._asked_at is None else until - self._asked_at


def hides_middlewares(session: ClientSession) -> bool:
    """Return whether this aiohttp keeps a session's middlewares where `within` can't see them."""
    return not hasattr(session, "_middlewares")


def _raise_ours(error: BaseException, *, sent: bool) -> None:
    """Raise an exception of our own instead of one on which aiohttp would retry by itself."""
    if sent and isinstance(error, ClientOSError | ServerDisconnectedError):
        # The message of ServerDisconnectedError can hold a part of the response.
        reason = str(error) if isinstance(error, ClientOSError) else "the server disconnected"
        raise ConnectionBrokenError(reason) from None
    if not sent and isinstance(error, TypeError | ValueError) and not isinstance(error, ClientError):
        raise UnwritableError(error) from None
    if isinstance(error, Exception) and not isinstance(error, WIRE_ERRORS):
        # Such as the RuntimeError of a machine that can't start the thread which looks up a name.
        raise UnforeseenError(f"{type(error).__name__}: {error}") from None
