"""The emulator's own endpoints under `/_emulator`: faults, journal, tokens and state.

Their requests need no token, spend no quota, are not in the journal, and meet no faults.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import attrs
from aiohttp import web

from do_images_async.testing.admin_access import AdminAccess
from do_images_async.testing.answers import Problem, failure, success, usual_problem
from do_images_async.testing.faults import Fault, Faults
from do_images_async.testing.journal import Journal
from do_images_async.testing.tokens import Tokens
from do_images_async.testing.validation import any_json_object, invalid

__all__ = ["Admin", "fault_from_json", "fault_to_json"]

Document = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.Response]]

_LARGEST_BODY = 2**28  # bytes; a state has about 330 for each image
_MOST_DIGITS = 3  # of a status
_FILTERS = ("method", "path", "status")  # of the journal
_FAULT_FIELDS = {field.name for field in attrs.fields(Fault) if field.init}


@attrs.frozen
class _Endpoint:
    """An endpoint, its effect in words, and the parameters that its query may have."""

    method: str
    path: str
    handler: Handler
    words: str
    query: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Admin:
    """The endpoints over one emulator's parts.

    Args:
        access: decides who may use the endpoints.
        journal, faults, tokens: the emulator's.
        dump: returns the account's state as JSON data.
        load: replaces it.
    """

    PREFIX: ClassVar = "/_emulator"

    access: AdminAccess
    journal: Journal
    faults: Faults
    tokens: Tokens
    dump: Callable[[], Document]
    load: Callable[[Mapping[str, Any]], None]

    def install(self, app: web.Application) -> None:
        """Add the endpoints to the application."""
        methods: dict[str, list[str]] = {}
        for endpoint in self._endpoints():
            path = self.PREFIX + endpoint.path
            handler = self._guarded(_with_checked_query(endpoint))
            for method in ("GET", "HEAD") if endpoint.method == "GET" else (endpoint.method,):
                for each in (path,) if endpoint.path else (path, f"{path}/"):
                    app.router.add_route(method, each, handler)
                    methods.setdefault(each, []).append(method)
        for path, allowed in methods.items():
            refuse = _refusal(usual_problem(405, {"allow": ", ".join(allowed)}))
            app.router.add_route("*", path, self._guarded(refuse))
        unknown = _refusal(usual_problem(404))
        app.router.add_route("*", self.PREFIX + "{rest:(/.*)?}", self._guarded(unknown))

    def _endpoints(self) -> tuple[_Endpoint, ...]:
        filters = "?method=…&path=…&status=… returns a part"
        return (
            _Endpoint("GET", "", self._overview, "Return the counts of requests and faults, and this list."),
            _Endpoint("GET", "/faults", self._list_faults, "Return the active faults."),
            _Endpoint("POST", "/faults", self._add_fault, "Add a fault; its fields are Fault's arguments."),
            _Endpoint("DELETE", "/faults", self._clear_faults, "Remove all faults."),
            _Endpoint("GET", "/requests", self._list_requests, f"Return the journal; {filters}.", _FILTERS),
            _Endpoint("DELETE", "/requests", self._clear_requests, "Empty the journal."),
            _Endpoint("GET", "/state", self._dump_state, "Return the account as data."),
            _Endpoint("PUT", "/state", self._load_state, "Replace the account by such data."),
            _Endpoint(
                "POST", "/tokens", self._issue_token, "Accept another token: scopes, expires_in, token."
            ),
        )

    def _guarded(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            try:
                self.access.check(request)
                return await handler(request.clone(client_max_size=_LARGEST_BODY))
            except web.HTTPRequestEntityTooLarge:
                return failure(usual_problem(413), {})
            except Problem as problem:
                return failure(problem, {})

        return handle

    async def _overview(self, _: web.Request) -> web.Response:
        statuses = {str(status): count for status, count in self.journal.statuses().items()}
        endpoints = [
            {"method": each.method, "path": self.PREFIX + each.path, "description": each.words}
            for each in self._endpoints()
        ]
        overview = {
            "requests": len(self.journal),
            "statuses": statuses,
            "faults": len(self.faults),
            "endpoints": endpoints,
        }
        return success(200, overview, {})

    async def _list_faults(self, _: web.Request) -> web.Response:
        return success(200, {"faults": [fault_to_json(fault) for fault in self.faults]}, {})

    async def _add_fault(self, request: web.Request) -> web.Response:
        document = await any_json_object(request)
        with _invalid_as_422():
            fault = self.faults.add(fault_from_json(document))
        return success(201, fault_to_json(fault), {})

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self.faults.clear()
        return success(204, None, {})

    async def _list_requests(self, request: web.Request) -> web.Response:
        query = request.query
        status = query.get("status")
        if status is not None and not (status.isascii() and status.isdigit() and len(status) <= _MOST_DIGITS):
            raise invalid("status must be a number")
        with _invalid_as_422():
            chosen = self.journal.where(
                query.get("method"), query.get("path"), status=None if status is None else int(status)
            )
        return success(200, {"requests": [attrs.asdict(entry) for entry in chosen], "count": len(chosen)}, {})

    async def _clear_requests(self, _: web.Request) -> web.Response:
        self.journal.clear()
        return success(204, None, {})

    async def _dump_state(self, _: web.Request) -> web.Response:
        return success(200, self.dump(), {})

    async def _load_state(self, request: web.Request) -> web.Response:
        document = await any_json_object(request)
        with _invalid_as_422():
            self.load(document)
        return success(204, None, {})

    async def _issue_token(self, request: web.Request) -> web.Response:
        wanted = await any_json_object(request)
        unknown = wanted.keys() - {"scopes", "expires_in", "token"}
        if unknown:
            raise invalid(f"a token has no {', '.join(sorted(unknown))}; it has expires_in, scopes, token")
        with _invalid_as_422():
            token = self.tokens.issue(**wanted)
        return success(201, {"token": token}, {})


@contextmanager
def _invalid_as_422() -> Generator[None]:
    """Answer 422, with the error's message, if an argument in the block can't be used."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise invalid(str(error)) from None


def fault_from_json(document: Mapping[str, Any]) -> Fault:
    """Return a fault from its arguments as JSON; `body_base64` and `raw_base64` stand for bytes.

    Raises:
        TypeError, ValueError: an argument is unknown or can't be used, or excludes another.
    """
    arguments = dict(document)
    for name in ("body", "raw"):
        encoded = arguments.pop(f"{name}_base64", None)
        if encoded is None:
            continue
        if arguments.get(name) is not None:
            raise ValueError(f"{name} and {name}_base64 exclude each other")
        arguments[name] = _decoded(f"{name}_base64", encoded)
    unknown = arguments.keys() - _FAULT_FIELDS
    if unknown:
        allowed = ", ".join(sorted({*_FAULT_FIELDS, "body_base64", "raw_base64"}))
        raise ValueError(f"a fault has no {', '.join(sorted(unknown))}; it has {allowed}")
    return Fault(**arguments)


def _decoded(name: str, encoded: object) -> bytes:
    try:
        if isinstance(encoded, str):
            return base64.b64decode(encoded, validate=True)
    except ValueError:
        pass
    raise ValueError(f"{name} must be a string in base64")


def fault_to_json(fault: Fault) -> Document:
    """Return the arguments of a fault as JSON, and how many requests it has applied to."""
    document = attrs.asdict(fault)
    for name in ("body", "raw"):
        content = document.pop(name)
        document[f"{name}_base64"] = None if content is None else base64.b64encode(content).decode()
    return document


def _with_checked_query(endpoint: _Endpoint) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        names = [name for name, _ in request.query.items()]
        wrong = [name for name in names if name not in endpoint.query or names.count(name) > 1]
        if wrong:
            takes = f"each of {', '.join(endpoint.query)} once" if endpoint.query else "no parameters"
            said = f"{wrong[0]!a}: the query of {endpoint.method} {Admin.PREFIX}{endpoint.path} takes {takes}"
            raise invalid(said)
        return await endpoint.handler(request)

    return handle


def _refusal(problem: Problem) -> Handler:
    async def refuse(_: web.Request) -> web.Response:
        raise problem

    return refuse
