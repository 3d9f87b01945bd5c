"""The HTTP server: aiohttp's, with the API's own answer to a request that is not valid HTTP."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from aiohttp import web

from do_images_async.testing.answers import failure, usual_problem
from do_images_async.testing.failures import INVALID, Failures, is_failure

__all__ = ["accepted", "make_runner"]

_STEPS = 10
"""The event loop's turns in which a connection is made; one with TLS may take for ever."""


async def make_runner(app: web.Application, failures: Failures) -> web.ServerRunner:
    """Return a runner of the application, ready for its first site.

    Args:
        app: the application.
        failures: notes the exceptions that no handler has caught.
    """
    own = web.AppRunner(app)
    await own.setup()
    parts = cast("web.Server", own.server)  # None only before the setup
    server = _Server(parts.request_handler, request_factory=parts.request_factory)
    server.failures = failures
    # 0 means no limit to aiohttp: a client that stalls would keep the emulator from stopping.
    runner = web.ServerRunner(server, shutdown_timeout=0.01)
    await runner.setup()
    return runner


async def accepted() -> None:
    """Wait until asyncio has made the connections that it has accepted; call it before a server is closed.

    For a moment they are nowhere else: they would be made later, and nobody would close them, or asyncio
    would log an AssertionError.
    """
    for _ in range(_STEPS):
        names = (getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
        if not any(name.endswith("._accept_connection2") for name in names):
            return
        await asyncio.sleep(0)


class _Server(web.Server):
    failures: Failures

    def __call__(self) -> web.RequestHandler:
        no_log = cast("logging.Logger", None)
        connection = _Connection(self, loop=asyncio.get_running_loop(), access_log=no_log)
        connection.failures = self.failures
        return connection


class _Connection(web.RequestHandler):
    """A connection that shows nothing of an invalid request: it may hold a token."""

    __slots__ = ("failures",)
    failures: Failures

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if not isinstance(exc, INVALID):
            return self._handle_failure(request, status, exc, message)
        # aiohttp would log a traceback and answer with its message; both quote the request.
        kind = type(exc).__name__
        self.logger.warning("Refused a request from %s that is not valid HTTP: %s", request.remote, kind)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer to an invalid request has begun")
        response = failure(usual_problem(400), {})
        response.force_close()
        return response

    def _handle_failure(
        self, request: web.BaseRequest, status: int, exc: BaseException | None, message: str | None
    ) -> web.StreamResponse:
        if exc is None or not is_failure(exc, request) or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        self.failures.note(exc, request)
        response = failure(usual_problem(500), {})
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):  # aiohttp's own answer, such as to an unknown Expect
            resp = failure(usual_problem(resp.status), {})
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        # The body of an invalid request, and a client that went away, end here as well; so does an
        # answer that is ready at the very moment at which aiohttp, while it stops, gives up waiting for it.
        if not isinstance(kw.get("exc_info"), (*INVALID, ConnectionError, asyncio.InvalidStateError)):
            super().log_exception(*args, **kw)
