"""The handling of a request: journal, latency, quota, authentication, answer, fault."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from inspect import isawaitable
from typing import Any, TypeAlias

import attrs
from aiohttp import web

from do_images_async.testing.answers import (
    Problem,
    Style,
    edge_page,
    failure,
    new_request_id,
    success,
    usual_problem,
)
from do_images_async.testing.arguments import is_json
from do_images_async.testing.damage import send_damaged
from do_images_async.testing.failures import Failures, is_failure
from do_images_async.testing.faults import Fault, Faults, Pages
from do_images_async.testing.journal import Entry, Journal, digest
from do_images_async.testing.pages import altered_page
from do_images_async.testing.quota import Meter
from do_images_async.testing.routes import Route
from do_images_async.testing.tokens import Tokens, demand

__all__ = ["Hook", "RequestHandler"]

_NO_FAULT = Fault()

Hook: TypeAlias = Callable[[web.Request], object]
"""A function that is called with a request; what it returns is awaited if it can be."""


@attrs.frozen(kw_only=True)
class RequestHandler:
    """The handler of every request under the API's paths.

    Args:
        tokens, meter, faults, journal, served: the emulator's.
        hooks: called with each request, and awaited, before anything else.
        failures: notes what the hooks, or this handler, raise.
        pause: returns the seconds to wait before a request is handled.
        clock: Unix time in seconds.
        style: the style of the answers.
    """

    tokens: Tokens
    meter: Meter
    faults: Faults
    journal: Journal
    served: Counter[int | None]
    hooks: Sequence[Hook]
    failures: Failures
    pause: Callable[[], float]
    clock: Callable[[], float]
    style: Style

    def endpoint(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the aiohttp handler for a route."""

        async def handle(request: web.Request) -> web.StreamResponse:
            refusal = await self._call_hooks(request)
            exchange = self._begin(request, route, await _read(request))
            if refusal is not None:
                self._record(exchange, refusal.status)
                return refusal
            await asyncio.sleep(self.pause())
            return await self._serve(exchange)

        return handle

    async def _call_hooks(self, request: web.Request) -> web.Response | None:
        """Return None, or the answer if a hook raises an exception."""
        try:
            for hook in tuple(self.hooks):
                done = hook(request)
                if isawaitable(done):
                    await done
        except web.HTTPException as error:  # a hook may answer so, with aiohttp's own exceptions
            return failure(usual_problem(error.status), {}, self.style)
        except BaseException as error:  # noqa: BLE001  (`pytest.fail` raises no Exception)
            return self._failed(request, error)
        return None

    def _failed(self, request: web.Request, error: BaseException) -> web.Response:
        """Return the answer to a request whose handling failed; raise the error if that is no mistake."""
        if not is_failure(error, request):
            raise error
        self.failures.note(error, request)
        return failure(usual_problem(500), {}, self.style)

    def _begin(self, request: web.Request, route: Route, content: bytes | None) -> _Exchange:
        token = _token(request)
        entry = Entry(
            time=self.clock(),
            method=request.method,
            path=_readable(request.path),
            query={_readable(name): _readable(value) for name, value in request.query.items()},
            body=_json_or_none(content),
            token=None if token is None else digest(token),
        )
        self.journal.append(entry)
        return _Exchange(request=request, route=route, content=content, token=token, entry=entry)

    async def _serve(self, exchange: _Exchange) -> web.StreamResponse:
        fault = self.faults.match(exchange.request)
        try:
            response = await self._response(exchange, fault)
        except BaseException as error:  # noqa: BLE001
            response, fault = self._failed(exchange.request, error), None
        if fault is None:
            self._record(exchange, response.status)
            return response
        self._record(exchange, None if fault.silent or fault.broken else response.status)
        return await send_damaged(fault, exchange.request, response, now=self.clock())

    async def _response(self, exchange: _Exchange, fault: Fault | None) -> web.Response:
        if fault is None:
            return await self._answer(exchange, _NO_FAULT)
        await asyncio.sleep(self.faults.pause(fault))
        return await self._faulty(exchange, fault)

    def _record(self, exchange: _Exchange, status: int | None) -> None:
        exchange.entry.status = status
        self.served[status] += 1

    async def _answer(self, exchange: _Exchange, fault: Fault) -> web.Response:
        headers = {"x-request-id": new_request_id()}
        try:
            if not exchange.route.authenticated and not self.tokens.accepts(exchange.token):
                await exchange.route.handler(exchange.request)
            self.meter.spend(exchange.token, headers)
            grant = self.tokens.authenticate(exchange.token)
            if exchange.content is None:
                raise usual_problem(413)
            demand(grant, exchange.scopes())
            status, document = await exchange.route.handler(exchange.request)
            if fault.pages and document is not None and not exchange.content:
                document = await exchange.altered(fault.pages, document)
        except Problem as problem:
            return failure(problem, headers, self.style)
        exchange.entry.carried_out = True
        return success(status, document, headers)

    async def _faulty(self, exchange: _Exchange, fault: Fault) -> web.Response:
        """Return the response that the fault damages or replaces; it counts against the quota either way."""
        if not fault.prevents:
            response = await self._answer(exchange, fault)
            return self._substitute(fault, response.headers) if fault.answers else response
        headers: dict[str, str] = {}
        if fault.answers:
            self.meter.count(exchange.token, headers)
        return self._substitute(fault, headers)

    def _substitute(self, fault: Fault, counted: Mapping[str, str]) -> web.Response:
        if fault.body is None and fault.from_edge:
            return edge_page(fault.status or 502)
        status = fault.status or 200
        headers = {name: value for name, value in counted.items() if name.lower().startswith("ratelimit-")}
        if fault.body is None:
            return failure(usual_problem(status), headers, self.style)
        headers |= {"x-request-id": new_request_id(), "content-type": "application/json; charset=utf-8"}
        return web.Response(status=status, body=fault.body, headers=headers)


@attrs.frozen(kw_only=True)
class _Exchange:
    """A request that is being handled."""

    request: web.Request
    route: Route
    content: bytes | None
    token: str | None
    entry: Entry

    def scopes(self) -> Iterator[str]:
        """Yield the scopes that the token needs; setting tags needs one more."""
        yield from self.route.scope.split()
        body: Any = self.entry.body
        creates = (self.route.method, self.route.path) == ("POST", "/v2/images")
        if creates and isinstance(body, Mapping) and body.get("tags"):  # pyright: ignore[reportUnknownMemberType]
            yield "tag:create"

    async def altered(self, kind: Pages, document: dict[str, Any]) -> dict[str, Any]:
        """Return the page as the fault changes it."""

        async def another(number: int) -> dict[str, Any]:
            url = self.request.rel_url.update_query(page=number)
            _, page = await self.route.handler(self.request.clone(rel_url=url))
            return page or {}

        return await altered_page(kind, int(self.request.query.get("page", "1")), document, another)


async def _read(request: web.Request) -> bytes | None:
    """Return the body, or None if it is larger than the API allows."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        return None


def _token(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" and token else None


def _readable(text: str) -> str:
    """Return text that JSON can hold: aiohttp's parser in Python keeps bytes of a URL as lone surrogates."""
    return text.encode(errors="replace").decode()


def _json_or_none(content: bytes | None) -> Any:
    try:
        body = json.loads(content or b"")
    except (ValueError, RecursionError):
        return None
    return body if is_json(body) else None
