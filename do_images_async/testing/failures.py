"""The exceptions while requests are answered: of a test's own functions, and of the emulator itself."""

from __future__ import annotations

import asyncio

from aiohttp import http_exceptions, web
from aiohttp.log import server_logger

__all__ = ["INVALID", "Failures", "is_failure"]

INVALID = (http_exceptions.HttpProcessingError, web.RequestPayloadError)
"""What aiohttp raises for a request that is not valid HTTP, or whose body ends too early."""

_STOPS = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)


def is_failure(error: BaseException, request: web.BaseRequest) -> bool:
    """Return whether an exception is a mistake, rather than the end of a task or the fault of the client."""
    if isinstance(error, ConnectionError):  # the client left, or a function of the test could not connect
        return request.transport is not None and not request.transport.is_closing()
    return not isinstance(error, (*_STOPS, *INVALID))


class Failures:
    """The exceptions of one run. Each is logged; the first is raised when the emulator stops."""

    def __init__(self) -> None:
        self._first: tuple[BaseException, str] | None = None

    def note(self, error: BaseException, request: web.BaseRequest) -> None:
        """Log an exception, and keep the first."""
        what = f"while the emulator answered {request.method} {request.path!a}"
        server_logger.error("Error %s", what, exc_info=error)
        if self._first is None:
            self._first = error, what

    def raise_first(self, block: BaseException | None) -> None:
        """Raise the first exception; if the block of the emulator has raised one, add a note to that."""
        if self._first is None:
            return
        (error, what), self._first = self._first, None
        if block is None:
            error.add_note(what)
            raise error
        block.add_note(f"{what}, this was raised: {type(error).__name__}: {error}")
