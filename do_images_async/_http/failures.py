"""What became of an attempt that brought no answer: aiohttp's exceptions, in words and as failures.

aiohttp's own can hold the request's headers, and with them the token: none of them leaves this package.
"""

from __future__ import annotations

from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from do_images_async._http.retry import Failure

__all__ = [
    "WIRE_ERRORS",
    "BodyTooLargeError",
    "ConnectionBrokenError",
    "UnwritableError",
    "failure_of",
    "in_words",
]


class ConnectionBrokenError(Exception):
    """Stands for aiohttp's own exceptions, on which aiohttp would send an idempotent request once more."""


class UnwritableError(Exception):
    """aiohttp refused to write the request, before any of it left."""


class BodyTooLargeError(Exception):
    """A response's body is larger than any that the API page describes."""


WIRE_ERRORS: Final = (
    aiohttp.ClientError,
    OSError,
    HttpProcessingError,
    ConnectionBrokenError,
    UnwritableError,
    BodyTooLargeError,
)
"""All that the network, the server and aiohttp's reading of it can raise."""

_HOPELESS: Final = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
_PHRASES: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    (aiohttp.ClientConnectorCertificateError, "the server's certificate is not trusted"),
    (aiohttp.ClientConnectorDNSError, "the host's name was not found"),
    (aiohttp.ClientConnectorError, "no connection"),
    (ConnectionBrokenError, "the connection broke"),
    (aiohttp.ClientPayloadError, "the answer broke off, or can't be unpacked"),
    ((HttpProcessingError, aiohttp.ClientResponseError), "the answer is not HTTP"),
)


def failure_of(error: Exception, *, sent: bool) -> Failure:
    """What a wire error means for the request, which may have been sent or surely was not."""
    if isinstance(error, _HOPELESS):
        return Failure.FINAL
    if isinstance(error, BodyTooLargeError):
        return Failure.DOUBTFUL
    return Failure.BROKEN if sent else Failure.NEVER_SENT


def in_words(error: Exception) -> str:
    """What went wrong, for somebody who does not know aiohttp's exceptions."""
    name = type(error).__qualname__
    for kind, phrase in _PHRASES:
        if isinstance(error, kind):
            name = phrase
            break
    detail: object = getattr(error, "message", "") or error  # without the status and URL of aiohttp's own
    return " ".join(f"{name}: {detail}".split())
