"""What happens to each request: noted, delayed, counted, let in or refused, answered, and perhaps spoilt."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from aiohttp import web

from do_images_async.testing.answers import Problem, failure, success, usual_problem
from do_images_async.testing.faults import Fault, Faults, Pages
from do_images_async.testing.journal import Entry, Journal, digest
from do_images_async.testing.pages import disturb
from do_images_async.testing.quota import Meter
from do_images_async.testing.routes import Route
from do_images_async.testing.spoil import spoil
from do_images_async.testing.tokens import Tokens, demand

__all__ = ["Desk"]

_NO_FAULT = Fault()


@attrs.frozen(kw_only=True)
class Desk:
    """Where every request to the API comes in.

    Args:
        tokens, meter, faults, journal, served: the emulator's.
        hooks: called with each request before anything else.
        pause: gives the seconds to wait before a request is looked at.
        clock: Unix time in seconds.
    """

    tokens: Tokens
    meter: Meter
    faults: Faults
    journal: Journal
    served: Counter[int | None]
    hooks: Sequence[Callable[[web.Request], None]]
    pause: Callable[[], float]
    clock: Callable[[], float]

    def endpoint(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The handler for a route."""

        async def handle(request: web.Request) -> web.StreamResponse:
            for hook in self.hooks:
                hook(request)
            visit = self._enter(request, route, await _read(request))
            await asyncio.sleep(self.pause())
            return await self._serve(visit)

        return handle

    def _enter(self, request: web.Request, route: Route, content: bytes | None) -> _Visit:
        token = _token(request)
        entry = Entry(
            time=self.clock(),
            method=request.method,
            path=request.path,
            query=dict(request.query.items()),
            body=_json_or_none(content),
            token=None if token is None else digest(token),
        )
        self.journal.append(entry)
        return _Visit(request=request, route=route, content=content, token=token, entry=entry)

    async def _serve(self, visit: _Visit) -> web.StreamResponse:
        fault = self.faults.strike(visit.request)
        if fault is None:
            response = await self._answer(visit, _NO_FAULT)
            self._note(visit, response.status)
            return response
        await asyncio.sleep(self.faults.pause(fault))
        response = await self._faulty(visit, fault)
        self._note(visit, None if fault.silent or fault.broken else response.status)
        return await spoil(fault, visit.request, response)

    def _note(self, visit: _Visit, status: int | None) -> None:
        visit.entry.status = status
        self.served[status] += 1

    async def _answer(self, visit: _Visit, fault: Fault) -> web.Response:
        headers: dict[str, str] = {}
        try:
            self.meter.spend(visit.token, headers)
            grant = self.tokens.authenticate(visit.token)
            if visit.content is None:
                raise usual_problem(413)
            demand(grant, visit.scopes())
            status, document = await visit.route.handler(visit.request)
            if fault.pages and document is not None and not visit.content:
                document = await visit.disturbed(fault.pages, document)
        except Problem as problem:
            return failure(problem, headers)
        visit.entry.carried_out = True
        return success(status, document, headers)

    async def _faulty(self, visit: _Visit, fault: Fault) -> web.Response:
        """The answer that the fault spoils, or its own; which counts, as any that the API gives."""
        if not fault.prevents:
            response = await self._answer(visit, fault)
            return _invented(fault, response.headers) if fault.answers else response
        headers: dict[str, str] = {}
        if fault.answers:
            self.meter.count(visit.token, headers)
        return _invented(fault, headers)


@attrs.frozen(kw_only=True)
class _Visit:
    """One request, and what is known of it."""

    request: web.Request
    route: Route
    content: bytes | None
    token: str | None
    entry: Entry

    def scopes(self) -> Iterator[str]:
        """What the token must be good for; tags need a scope of their own."""
        yield from self.route.scope.split()
        body: Any = self.entry.body
        creates = (self.route.method, self.route.path) == ("POST", "/v2/images")
        if creates and isinstance(body, Mapping) and body.get("tags"):  # pyright: ignore[reportUnknownMemberType]
            yield "tag:create"

    async def disturbed(self, kind: Pages, document: dict[str, Any]) -> dict[str, Any]:
        """The page as the fault has it."""

        async def another(number: int) -> dict[str, Any]:
            url = self.request.rel_url.update_query(page=number)
            _, page = await self.route.handler(self.request.clone(rel_url=url))
            return page or {}

        return await disturb(kind, int(self.request.query.get("page", "1")), document, another)


def _invented(fault: Fault, counted: Mapping[str, str]) -> web.Response:
    headers = {name: value for name, value in counted.items() if name.lower().startswith("ratelimit-")}
    status = fault.status or 200
    if fault.body is None:
        return failure(usual_problem(status), headers)
    return web.Response(status=status, body=fault.body, headers=headers, content_type="application/json")


async def _read(request: web.Request) -> bytes | None:
    """The body; None when it is larger than any that the API takes."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        return None


def _token(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" and token else None


def _json_or_none(content: bytes | None) -> Any:
    try:
        return json.loads(content or b"")
    except (ValueError, RecursionError):
        return None
