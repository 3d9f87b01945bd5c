"""The server: connections in, answers out; tokens, quota, faults and the journal around the endpoints."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import secrets
import ssl
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from do_images_async.testing.action_routes import ActionRoutes, TransferRoutes
from do_images_async.testing.actions import ActionStore, TransferStore
from do_images_async.testing.catalogue import private_images, public_images
from do_images_async.testing.faults import Fault, Faults, spoil
from do_images_async.testing.journal import Entry, Journal
from do_images_async.testing.quota import DOCUMENTED, Quota, QuotaLog
from do_images_async.testing.routes import Problem, Route, Routes, not_found
from do_images_async.testing.state import ImageStore

__all__ = ["ImagesEmulator"]

_KNOWN_PATH = re.compile(
    r"/v2/images(/[^/]+(/actions(/[^/]+)?|/account_transfer(/accept|/cancel|/decline)?)?)?"
)


class ImagesEmulator:
    """The Images API on a local socket, with a catalogue, quotas, faults and a journal.

    Use it as an async context manager; it runs in the event loop that enters it.

    Args:
        images: how many private images the account has, beside the provider's public ones.
        seed: what the account and the faults' probabilities are drawn from.
        quotas: the limits for each token; None for no limit.
        import_seconds: how long an import takes.
        action_seconds: how long an image action takes.
        latency: seconds before each request is looked at.
        jitter: seconds that are drawn at random and added to `latency`, at most.
        token: the token that is accepted, by default a new one; more can be put into `tokens`.
        host, port: where it listens; port 0 takes a free one.
        tls: the server's TLS context; without one it speaks plain HTTP.
        clock: Unix time in seconds, by which quotas and imports run.
        journal_limit: how many requests the journal keeps; None keeps all.

    Attributes:
        token: the token that is accepted.
        tokens: every accepted token, with its scopes; None stands for all scopes.
        images: the account's images and the public ones.
        actions: the account's image actions; `actions.fails` makes them fail.
        transfers: its transfers to other accounts.
        requests: the journal.
        faults: what goes wrong.
        on_request: called with each request before it is answered; a test changes the state there.
    """

    def __init__(
        self,
        *,
        images: int = 20,
        seed: int = 7,
        quotas: Sequence[Quota] | None = DOCUMENTED,
        import_seconds: float = 0.2,
        action_seconds: float = 0.2,
        latency: float = 0.0,
        jitter: float = 0.0,
        token: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
        journal_limit: int | None = None,
    ) -> None:
        now = clock()
        self.token = token or f"dop_v1_{secrets.token_hex(32)}"
        self.tokens: dict[str, frozenset[str] | None] = {self.token: None}
        self.images = ImageStore(
            [*public_images(now), *private_images(images, seed, now)],
            clock=clock,
            import_seconds=import_seconds,
        )
        self.actions = ActionStore(self.images, clock=clock, seconds=action_seconds)
        self.transfers = TransferStore(self.images)
        self.requests = Journal(journal_limit)
        self.faults = Faults(seed)
        self.on_request: list[Callable[[web.Request], None]] = []
        self.latency = latency
        self.jitter = jitter
        self._dice = random.Random(seed)
        self._quotas = quotas
        self._logs: dict[str, QuotaLog] = {}
        self._clock = clock
        self._address = (host, port)
        self._tls = tls
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        if self._runner is None:
            raise RuntimeError("the emulator is not running: use it as an async context manager")
        host, port = self._runner.addresses[0][:2]
        return f"{'https' if self._tls else 'http'}://{host}:{port}"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**20)
        for route in self._routes():
            app.router.add_route(route.method, route.path, self._endpoint(route))
        app.router.add_route("*", "/{anything:.*}", self._endpoint(None))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._address, ssl_context=self._tls).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _routes(self) -> tuple[Route, ...]:
        return (
            *Routes(self.images, lambda: self.url).all,
            *ActionRoutes(self.images, self.actions, lambda: self.url).all,
            *TransferRoutes(self.images, self.transfers).all,
        )

    def _endpoint(self, route: Route | None) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._handle(request, route)

        return handle

    async def _handle(self, request: web.Request, route: Route | None) -> web.StreamResponse:
        for hook in self.on_request:
            hook(request)
        entry = await self._enter(request)
        if self.latency or self.jitter:
            await asyncio.sleep(self.latency + self.jitter * self._dice.random())
        fault = self.faults.strike(request)
        if fault is not None and fault.delay:
            await asyncio.sleep(fault.delay)
        if fault is None or not fault.prevents:
            response = await self._answer(request, route, entry)
        else:
            response = web.Response()
        if fault is None:
            entry.status = response.status
            return response
        if fault.answers:
            response = _invented(fault, response)
        entry.status = None if fault.broken else response.status
        return await spoil(fault, request, response)

    async def _enter(self, request: web.Request) -> Entry:
        token = _token(request)
        entry = Entry(
            time=self._clock(),
            method=request.method,
            path=request.path,
            query=dict(request.query),
            body=_json_or_none(await request.read()),
            token=None if token is None else hashlib.sha256(token.encode()).hexdigest()[:16],
        )
        self.requests.append(entry)
        return entry

    async def _answer(self, request: web.Request, route: Route | None, entry: Entry) -> web.Response:
        headers: dict[str, str] = {}
        try:
            self._admit(request, route, headers)
            if route is None:
                raise _unknown(request)
            status, body = await route.handler(request)
        except Problem as problem:
            return _error(problem.status, problem.identifier, problem.message, headers)
        entry.carried_out = True
        content = None if body is None else json.dumps(body).encode()
        return web.Response(
            status=status, body=content, headers=headers, content_type="application/json" if content else None
        )

    def _admit(self, request: web.Request, route: Route | None, headers: dict[str, str]) -> None:
        """Raise unless the token is good for the request and has quota left."""
        token = _token(request)
        if token is None or token not in self.tokens:
            raise Problem(401, "unauthorized", "Unable to authenticate you.")
        self._spend(token, headers)
        scopes = self.tokens[token]
        missing = {*route.scope.split()} - scopes if route is not None and scopes is not None else set[str]()
        if missing:
            raise Problem(403, "forbidden", f"The token lacks the scope {' '.join(sorted(missing))}.")

    def _spend(self, token: str, headers: dict[str, str]) -> None:
        if self._quotas is None:
            return
        log = self._logs.setdefault(token, QuotaLog(self._quotas))
        verdict = log.record(self._clock())
        headers["ratelimit-limit"] = str(verdict.limit)
        headers["ratelimit-remaining"] = str(verdict.remaining)
        headers["ratelimit-reset"] = str(verdict.reset)
        if verdict.accepted:
            return
        if verdict.retry_after is not None:
            headers["retry-after"] = str(verdict.retry_after)
        raise Problem(429, "too_many_requests", "API rate limit exceeded.")


def _unknown(request: web.Request) -> Problem:
    if _KNOWN_PATH.fullmatch(request.path):
        return Problem(405, "method_not_allowed", "The method is not allowed here.")
    return not_found()


def _invented(fault: Fault, response: web.Response) -> web.Response:
    headers = {
        name: value for name, value in response.headers.items() if name.lower().startswith("ratelimit")
    }
    if fault.body is None:
        return _error(fault.status or 500, "server_error", "Unexpected server-side error", headers)
    return web.Response(
        status=fault.status or 200, body=fault.body, headers=headers, content_type="application/json"
    )


def _error(status: int, identifier: str, message: str, headers: Mapping[str, str]) -> web.Response:
    request_id = str(uuid.uuid4())
    body = {"id": identifier, "message": message, "request_id": request_id}
    return web.json_response(body, status=status, headers={**headers, "x-request-id": request_id})


def _token(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme == "Bearer" and token else None


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
