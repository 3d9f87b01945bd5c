"""Poll until a state is final or time is up; errors that may pass do not end the wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import attrs

from do_images_async._arguments import check_seconds
from do_images_async._http.last_error import LastError, keep_last_error
from do_images_async._loop import running_loop
from do_images_async.errors import (
    APIError,
    DecodeError,
    DOImagesError,
    NotFoundError,
    QuotaStoreError,
    QuotaWaitError,
    RateLimitError,
    ServerError,
    TokenError,
    TransportError,
    WrongResourceError,
)

__all__ = ["Polled", "check_wait", "poll"]

T = TypeVar("T")

logger = logging.getLogger("do_images_async")

_GROWTH: Final = 1.5
_LONGEST: Final = 60.0

CREATION_LAG: Final = 10.0
"""Seconds in which what was just created may still be answered with 404."""


@attrs.frozen
class Polled(Generic[T]):
    """The end of a wait.

    Attributes:
        final: the final state; None when time was up.
        last: the last state that was read; None when there was none.
        error: the error of the last poll that failed; None when no poll failed.
    """

    final: T | None
    last: T | None
    error: DOImagesError | None

    def timeout_message(self, goal: str, timeout: float, status: str | None) -> str:
        """Return the message of the `WaitTimeoutError`; `status` is that of the last state, if it has one."""
        state = "its status is not known" if status is None else f"it is {status}"
        if self.last is None:
            state = "no answer came"
        failed = "" if self.error is None else f"; the last error was: {self.error}"
        return f"{goal} after {timeout:g} s: {state}{failed}"


def check_wait(timeout: object, poll_interval: object) -> None:
    """Check the two times of a wait."""
    check_seconds(timeout, "timeout")
    check_seconds(poll_interval, "poll_interval")


async def poll(
    read: Callable[[], Awaitable[T]],
    is_final: Callable[[T], bool],
    *,
    timeout: float,
    poll_interval: float,
    last: T | None = None,
) -> Polled[T]:
    """Read a state until it is final; the time between two polls grows by half each, up to a minute.

    A poll that fails with what may pass is logged and followed by the next one: 408, 429 (the client's
    `max_wait` included), 5xx, a broken connection, a timeout, an answer that is no JSON or about something
    else, and, after a poll that was answered, a token function that fails. So is a 404 in the first seconds:
    the API may not yet know everywhere what was just created. Every other error ends the wait, such as
    a certificate that is not trusted.

    Args:
        read: reads the state, with one request.
        is_final: whether a state is the last one; may raise.
        timeout: seconds at most, requests included.
        poll_interval: seconds between the first two polls.
        last: the state before the first poll, if it is known.

    Raises:
        TypeError, ValueError: `timeout` or `poll_interval` can't be used.
        ClientStateError: there is no event loop of asyncio.
        DOImagesError: a poll failed with an error that does not pass.
    """
    check_wait(timeout, poll_interval)
    running_loop()
    interval = poll_interval
    missing_until = time.monotonic() + CREATION_LAG
    answered = False
    error: DOImagesError | None = None
    scope = asyncio.timeout(timeout)
    kept = LastError()
    try:
        async with scope:
            while True:
                try:
                    with keep_last_error() as kept:
                        last = await read()
                except DOImagesError as failure:
                    new = time.monotonic() < missing_until and isinstance(failure, NotFoundError)
                    if not (new or _passes(failure, answered=answered)):
                        raise
                    error, kept = failure, LastError()
                    logger.warning("a poll failed, next in %.2f s: %s", interval, failure)
                else:
                    answered, kept = True, LastError()
                    if is_final(last):
                        return Polled(last, last, error)
                await asyncio.sleep(interval)
                interval = max(interval, min(interval * _GROWTH, _LONGEST))
    except TimeoutError:
        if not scope.expired():
            raise
        # Time may be up within a poll whose attempts failed.
        error = kept.error or error
    return Polled(None, last, error)


def _passes(error: DOImagesError, *, answered: bool) -> bool:
    """Return whether the next poll may succeed."""
    match error:
        case APIError(status=408) | RateLimitError() | ServerError() | TransportError(transient=True):
            return True
        case QuotaWaitError() | WrongResourceError() | DecodeError(transient=True):
            return True
        case QuotaStoreError(refused=refused):
            return not refused
        case TokenError():
            return answered
        case _:
            return False
