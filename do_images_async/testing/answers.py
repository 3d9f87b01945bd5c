"""The shape of answers: JSON documents, and errors as the API words them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

__all__ = ["Problem", "failure", "success", "usual_problem"]

_USUAL = {
    400: ("bad_request", "The request could not be understood."),
    401: ("unauthorized", "Unable to authenticate you."),
    403: ("forbidden", "You are not authorized to perform this operation."),
    404: ("not_found", "The resource you requested could not be found."),
    405: ("method_not_allowed", "The method is not allowed here."),
    409: ("conflict", "The resource is in use by another operation."),
    413: ("payload_too_large", "The request is too large."),
    415: ("unsupported_media_type", "The body must be application/json."),
    422: ("unprocessable_entity", "The request can't be carried out as it is."),
    429: ("too_many_requests", "API rate limit exceeded."),
    503: ("service_unavailable", "The service is unavailable for the moment."),
}


class Problem(Exception):  # noqa: N818  (it is an answer)
    """An answer that is no success."""

    def __init__(
        self, status: int, identifier: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.identifier = identifier
        self.message = message
        self.headers = headers or {}


def usual_problem(status: int, headers: Mapping[str, str] | None = None) -> Problem:
    """What the API says with this status when there is nothing more to say."""
    identifier, message = _USUAL.get(status, ("server_error", "Unexpected server-side error"))
    return Problem(status, identifier, message, headers)


def success(status: int, document: Mapping[str, Any] | None, headers: Mapping[str, str]) -> web.Response:
    """An answer with this document, or without a body."""
    if document is None:
        return web.Response(status=status, headers=headers)
    return web.Response(
        status=status, body=json.dumps(document).encode(), headers=headers, content_type="application/json"
    )


def failure(problem: Problem, headers: Mapping[str, str]) -> web.Response:
    """The API's answer to what can't be done."""
    request_id = str(uuid.uuid4())
    document = {"id": problem.identifier, "message": problem.message, "request_id": request_id}
    return success(problem.status, document, {**headers, **problem.headers, "x-request-id": request_id})
