"""The responses: JSON documents, the API's errors, and the HTML pages of the servers in front of it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, Literal
from uuid import uuid4

from aiohttp import web

__all__ = ["Problem", "Style", "edge_page", "failure", "new_request_id", "success", "usual_problem"]

Style = Literal["documented", "observed"]
"""The style of the answers: exactly as documented, or with the variations of recorded answers."""

_JSON = "application/json; charset=utf-8"

_USUAL = {
    400: ("bad_request", "The request could not be understood."),
    401: ("unauthorized", "Unable to authenticate you."),
    403: ("forbidden", "You are not authorized to perform this operation."),
    404: ("not_found", "The resource you were accessing could not be found."),
    405: ("method_not_allowed", "The method is not allowed for this path."),
    408: ("request_timeout", "The request took too long to arrive."),
    409: ("conflict", "The resource is in use by another operation."),
    413: ("payload_too_large", "The request is too large."),
    415: ("unsupported_media_type", "The body must be application/json."),
    417: ("expectation_failed", "The Expect header must be 100-continue."),
    422: ("unprocessable_entity", "The request can't be carried out as it is."),
    429: ("too_many_requests", "API rate limit exceeded."),
    503: ("service_unavailable", "The service is unavailable for the moment."),
}
_OF_THE_EDGE = {
    401: ("Unauthorized", "Unable to authenticate you"),
    403: ("Forbidden", "You are not authorized to perform this operation"),
}
"""Messages of the edge servers, which answer before a request reaches the API."""

_EDGE_REASONS = {
    520: "Web server is returning an unknown error",
    521: "Web server is down",
    522: "Connection timed out",
    523: "Origin is unreachable",
    524: "A timeout occurred",
    525: "SSL handshake failed",
    526: "Invalid SSL certificate",
    527: "Railgun error",
    529: "Site is overloaded",
    530: "Origin DNS error",
}


class Problem(Exception):  # noqa: N818  (it becomes a response)
    """A response that is not a success."""

    def __init__(
        self, status: int, identifier: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.identifier = identifier
        self.message = message
        self.headers: Mapping[str, str] = headers or {}


def usual_problem(status: int, headers: Mapping[str, str] | None = None) -> Problem:
    """Return the API's usual error for a status."""
    identifier, message = _USUAL.get(status, ("server_error", "Unexpected server-side error"))
    return Problem(status, identifier, message, headers)


def new_request_id() -> str:
    """Return an id for `x-request-id`."""
    return str(uuid4())


def success(status: int, document: Mapping[str, Any] | None, headers: Mapping[str, str]) -> web.Response:
    """Return a response with this document, or without a body."""
    if document is None:
        return web.Response(status=status, headers=headers)
    body = json.dumps(document).encode()
    cache = {"cache-control": "max-age=0, private, must-revalidate", "etag": f'W/"{zlib.crc32(body):08x}"'}
    return web.Response(status=status, body=body, headers={**headers, **cache, "content-type": _JSON})


def failure(problem: Problem, headers: Mapping[str, str], style: Style = "documented") -> web.Response:
    """Return the API's response to a request that fails.

    Args:
        problem: the error.
        headers: headers of the response, beside those of the problem.
        style: "observed" words 401 and 403 as the edge servers do: without `request_id`, and a 401 without
            quota headers.
    """
    sent = {"x-request-id": new_request_id(), **headers, **problem.headers}
    message = problem.message.encode(errors="backslashreplace").decode()  # it may name what was sent
    document = {"id": problem.identifier, "message": message, "request_id": sent["x-request-id"]}
    if style == "observed" and problem.status in _OF_THE_EDGE:
        identifier, message = _OF_THE_EDGE[problem.status]
        document = {"id": identifier, "message": message}
        sent["x-response-from"] = "Edge-Gateway"
        if problem.status == 401:
            sent = {name: value for name, value in sent.items() if not name.startswith("ratelimit-")}
    sent |= {"cache-control": "no-cache", "content-type": _JSON}
    return web.Response(status=problem.status, body=json.dumps(document).encode(), headers=sent)


def edge_page(status: int) -> web.Response:
    """Return the HTML error page of an edge server: no JSON, no quota headers, no request id."""
    reason = _EDGE_REASONS.get(status, "Error")
    ray = uuid4().hex[:16]
    page = (
        f"<!DOCTYPE html>\n<html><head><title>api.digitalocean.com | {status}: {reason}</title></head>\n"
        f"<body><h1>Error {status}</h1><p>{reason}</p><p>Ray ID: {ray}</p></body></html>\n"
    )
    headers = {
        "content-type": "text/html; charset=UTF-8",
        "cache-control": "private, no-store",
        "server": "cloudflare",
        "cf-ray": f"{ray}-EWR",
    }
    return web.Response(status=status, body=page.encode(), headers=headers)
