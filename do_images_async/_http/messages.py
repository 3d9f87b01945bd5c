"""Permits for every message on the wire, settled by its response; for any aiohttp session."""

from __future__ import annotations

import asyncio

import attrs
from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse

from do_images_async._arguments import check_seconds
from do_images_async._http.headers import parse_rate_limit, report_of
from do_images_async._quota.protocols import Limiter, Permit, check_limiter
from do_images_async.models import RateLimit

__all__ = ["QuotaMiddleware", "give_back", "is_interruption", "quota_middleware", "settle"]


@attrs.frozen(eq=False)
class QuotaMiddleware:
    """The middleware of `quota_middleware`; a client on its session leaves it out and acquires by itself."""

    limiter: Limiter
    max_wait: float | None
    reserve: int

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        permit = await self.limiter.acquire(max_wait=self.max_wait, reserve=self.reserve)
        if request.session.closed:
            # aiohttp looks only before its middlewares, which may have waited since.
            permit.release()
            raise RuntimeError("Session is closed")
        try:
            response = await handler(request)
        except BaseException as error:
            give_back(permit, request, error)
            raise
        settle(permit, response)
        return response


def quota_middleware(
    limiter: Limiter, *, max_wait: float | None = None, reserve: int = 0
) -> ClientMiddlewareType:
    """Return an aiohttp client middleware that takes a permit for every message of a session.

    The token's quota also counts requests for Droplets and volumes: give the same limiter to their
    sessions. A redirect takes a permit of its own, and so does aiohttp's own retry on a dropped
    connection. The middleware retries nothing: after a 429 the limiter makes all later messages wait.

    aiohttp's `ClientTimeout.total` includes the time that a message waits for the quota. Leave it None, and
    limit `sock_connect` and `sock_read`.

    An `ImagesAPI` on the same session takes its own permits, and this middleware does not run for its calls.

    Args:
        limiter: grants the permits; it may be an `ImagesAPI`'s as well.
        max_wait: the longest wait for the quota, in seconds; None waits as long as it takes.
        reserve: tokens to leave in every bucket for others.

    Raises:
        TypeError, ValueError: an argument can't be used. A request raises `QuotaWaitError` when its wait
            would be longer than `max_wait`, and RuntimeError, as aiohttp does, when its session was closed
            while it waited.
    """
    check_limiter(limiter)
    if max_wait is not None:
        check_seconds(max_wait, "max_wait", zero=True)
    limiter.check_reserve(reserve)

    return QuotaMiddleware(limiter, max_wait, reserve)


def settle(permit: Permit, response: ClientResponse) -> RateLimit | None:
    """Report a message's response to its permit; return the quota that the response reports."""
    rate_limit = parse_rate_limit(response.headers)
    permit.settle(report_of(response.status, response.headers, rate_limit))
    return rate_limit


def give_back(permit: Permit, request: ClientRequest, error: BaseException) -> bool:
    """Return the permit of a message without a response; return whether the server may know of it."""
    # aiohttp makes the response object as it writes the request.
    sent = request.response is not None or is_interruption(error)
    if sent:
        permit.lose()
    else:
        permit.release()
    return sent


def is_interruption(error: BaseException) -> bool:
    """Return whether a signal handler may have raised it, between any two steps of aiohttp."""
    return not isinstance(error, Exception | asyncio.CancelledError | GeneratorExit)
