"""Classify aiohttp's exceptions, and describe them for users.

They can hold the token: in the request's headers, or in a quote of the response that echoes it. None of them,
and none of their quotes, leaves this package.
"""

from __future__ import annotations

import errno
import re
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError

from do_images_async._http.retry import Failure

__all__ = [
    "WIRE_ERRORS",
    "BodyTakenError",
    "BodyTooLargeError",
    "ConnectionBrokenError",
    "UnforeseenError",
    "UnwritableError",
    "failure_of",
    "in_words",
    "unknown_encoding",
]


class ConnectionBrokenError(Exception):
    """The connection ended; aiohttp's own exceptions for it would make it resend an idempotent request."""


class UnwritableError(Exception):
    """aiohttp could not write the request; nothing of it was sent."""


class BodyTakenError(Exception):
    """A middleware of the session read a part of the response's body, or released the response."""


class UnforeseenError(Exception):
    """aiohttp raised what is no error of the network, in the midst of a message."""


class BodyTooLargeError(Exception):
    """The response's body is larger than any that the API page describes."""


WIRE_ERRORS: Final = (
    aiohttp.ClientError,
    OSError,
    HttpProcessingError,
    ConnectionBrokenError,
    UnwritableError,
    BodyTakenError,
    BodyTooLargeError,
    UnforeseenError,
)
"""Everything that the network, the server and aiohttp's parser can raise."""

_PERMANENT: Final = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)
_OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE)
"""Of aiohttp's error, which is one of name resolution where a host has a name."""
_TLS_SETTING: Final = re.compile(r" ssl:(default|True|False)(?= \[)")
"""The words of aiohttp for how certificates are checked; it says them of http, too."""
_ENCODINGS: Final = frozenset({"", "identity", "gzip", "deflate", "br", "zstd"})
"""What aiohttp decodes, or refuses before the head is read; it passes on the bytes of any other."""
_ENCODING_NAMED: Final = re.compile(r"\((br|zstd)\)")
_PHRASES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (
        aiohttp.ClientConnectorCertificateError,
        "the server's certificate is not trusted (SSL_CERT_FILE names others)",
    ),
    (aiohttp.ClientConnectorDNSError, "the host's name was not found"),
    (aiohttp.ClientProxyConnectionError, "no connection to the proxy"),
    (aiohttp.ClientConnectorError, "no connection"),
    (ConnectionBrokenError, "the connection broke"),
    (UnforeseenError, "an unforeseen error"),
    # The client's own is described where its length is known.
    (TimeoutError, "a timeout that is not the client's, such as a middleware's"),
)


def failure_of(error: Exception, *, sent: bool) -> Failure:
    """Classify an exception of a request that may have been sent, or was not."""
    if isinstance(error, _PERMANENT):
        return Failure.NOT_EXECUTED_FINAL
    if isinstance(error, aiohttp.ClientHttpProxyError):
        # The tunnel was refused: the request itself was not sent.
        final = 400 <= error.status < 500 and error.status not in (408, 429)
        return Failure.NOT_EXECUTED_FINAL if final else Failure.NOT_EXECUTED_RETRY
    if isinstance(error, BodyTakenError | BodyTooLargeError) or _refused_encoding(error) is not None:
        return Failure.MAYBE_EXECUTED_FINAL
    return Failure.MAYBE_EXECUTED_RETRY if sent else Failure.NOT_EXECUTED_RETRY


def in_words(error: Exception) -> str:
    """Describe an exception for a reader who does not know aiohttp's."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refused to connect: {_with_phrase(error.status)}"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the response's body broke off, or can't be unpacked"
    if isinstance(error, BodyTakenError):
        return "a middleware of the session read a part of the response's body, or released it unread"
    encoding = _refused_encoding(error)
    if encoding is not None:
        return (
            f"the response's Content-Encoding is {encoding}, which can't be decoded here; its status is lost"
        )
    if isinstance(error, HttpProcessingError | aiohttp.ClientResponseError):
        # aiohttp cuts what it quotes of the response, and may cut through the token: nothing of it is shown.
        return f"the response is not HTTP ({_parser_error(error)})"
    text = _TLS_SETTING.sub("", str(error)) if isinstance(error, aiohttp.ClientConnectorError) else str(error)
    return " ".join(f"{_phrase_of(error)}: {text}".split()).removesuffix(":")


def _phrase_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _OUT_OF_FILES:
        return "no file descriptor is left"
    own: type[object] = type(error)
    return next((phrase for kind, phrase in _PHRASES if isinstance(error, kind)), own.__qualname__)


def unknown_encoding(header: str | None) -> str | None:
    """Return the Content-Encoding of a body that aiohttp left as it was; None if it knows it."""
    encoding = (header or "").strip()
    return None if encoding.lower() in _ENCODINGS else encoding


def _with_phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _refused_encoding(error: Exception) -> str | None:
    """Return the Content-Encoding for which aiohttp refused a response; None if it is not for that.

    A server or proxy compresses what nobody asked it to, in a way that needs a package that is not installed.
    aiohttp looks before it passes on the head. Damaged bodies, which are a ClientPayloadError, are not this.
    """
    if not isinstance(error, HttpProcessingError | aiohttp.ClientResponseError):
        return None
    cause = _first_cause(error)
    if not isinstance(cause, ContentEncodingError):
        return None
    named = _ENCODING_NAMED.search(str(cause))
    return named[1] if named else "a strange one"


def _parser_error(error: BaseException) -> str:
    """Return the name of the parser's own exception."""
    return type(_first_cause(error)).__name__


def _first_cause(error: BaseException) -> BaseException:
    """Return the parser's own exception, the cause of those that aiohttp raised."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
