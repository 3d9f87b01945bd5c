"""Poll until a state is final or time is up; failures that pass do not end the wait."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import attrs

from do_images_async._arguments import check_seconds
from do_images_async.errors import (
    APIError,
    DOImagesError,
    NotFoundError,
    RateLimitError,
    ServerError,
    TransportError,
)

__all__ = ["Polled", "check_wait", "poll"]

T = TypeVar("T")

logger = logging.getLogger("do_images_async")

_GROWTH: Final = 1.5
_LONGEST: Final = 60.0
_REQUEST_TIMEOUT: Final = 408

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
        """Return the message of the `WaitTimeoutError`; `status` is that of the last state."""
        state = "no answer came" if status is None else f"it is {status}"
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

    A poll that fails with 408, 429, 5xx, a broken connection or a timeout is logged and followed by the next
    one. So is a 404 in the first seconds, as long as nothing was read: the API may not yet know what was just
    created. Every other error ends the wait.

    Args:
        read: reads the state, with one request.
        is_final: whether a state is the last one; may raise.
        timeout: seconds at most, requests included.
        poll_interval: seconds between the first two polls.
        last: the state before the first poll, if it is known.

    Raises:
        TypeError, ValueError: `timeout` or `poll_interval` can't be used.
        DOImagesError: a poll failed with an error that does not pass.
    """
    check_wait(timeout, poll_interval)
    interval = poll_interval
    missing_until = time.monotonic() + CREATION_LAG
    answered = False
    error: DOImagesError | None = None
    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            while True:
                try:
                    last = await read()
                except DOImagesError as failure:
                    new = not answered and time.monotonic() < missing_until
                    if not (_passes(failure) or (new and isinstance(failure, NotFoundError))):
                        raise
                    error = failure
                    logger.warning("a poll failed, next in %.2f s: %s", interval, failure)
                else:
                    answered = True
                    if is_final(last):
                        return Polled(last, last, error)
                await asyncio.sleep(interval)
                interval = max(interval, min(interval * _GROWTH, _LONGEST))
    except TimeoutError:
        if not scope.expired():
            raise
    return Polled(None, last, error)


def _passes(error: DOImagesError) -> bool:
    """Return whether the next poll may succeed."""
    if isinstance(error, APIError) and error.status == _REQUEST_TIMEOUT:
        return True
    return isinstance(error, RateLimitError | ServerError | TransportError)
