"""Damaged responses: a fault applied to the headers, the bytes, or the connection."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct

from aiohttp import web

from do_images_async.testing.faults import Fault

__all__ = ["remove_headers", "reset", "send_damaged"]

_REMOVED = web.ResponseKey("removed", frozenset[str])
"""The names of the headers that a response is sent without."""


async def remove_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Remove the headers that a fault removes; for aiohttp's `on_response_prepare`.

    That is sent after aiohttp has added its own headers, such as content-length and date.
    """
    for name in response.get(_REMOVED, ()):
        response.headers.popall(name, None)


async def send_damaged(
    fault: Fault, request: web.Request, response: web.Response, *, now: float
) -> web.StreamResponse:
    """Send `response` as the fault damages it; `now` is Unix time by the emulator's clock, in seconds."""
    if fault.raw is not None:
        return _send_raw(fault.raw, request, response)
    if fault.broken == "reset":
        reset(request)
        return response
    if fault.broken == "stall":
        await _until_disconnected(request)
        return response
    body = _damaged_body(fault, response)
    _change_headers(fault, response, now)
    if fault.broken or fault.pace:
        return await _send_slowly(fault, request, response, body)
    response.body = body
    _prepare_removal(fault, response)
    return response


def _prepare_removal(fault: Fault, response: web.StreamResponse) -> None:
    """Let the response lose the headers that the fault removes, and close the connection if it must end."""
    removed = frozenset(name.lower() for name, value in fault.headers.items() if not value)
    response[_REMOVED] = removed
    options = response.headers.get("connection", "").lower().split(",")
    # Without a length, a body ends with its connection.
    if "content-length" in removed or "close" in map(str.strip, options):
        response.force_close()


def _damaged_body(fault: Fault, response: web.Response) -> bytes:
    body = response.body if isinstance(response.body, bytes) else b""
    if fault.malformed:
        body = body[: len(body) // 2]
    if fault.encoding is None:
        return body
    response.headers["content-encoding"] = "gzip"
    packed = gzip.compress(body, mtime=0)
    return packed if fault.encoding == "gzip" else _corrupted(packed)


def _corrupted(packed: bytes) -> bytes:
    # The eight bytes at the end are the checksum and the length.
    return packed[:-8] + bytes(byte ^ 0xFF for byte in packed[-8:])


def _change_headers(fault: Fault, response: web.Response, now: float) -> None:
    reset_at = response.headers.get("ratelimit-reset")
    if fault.reset_skew and reset_at is not None:
        response.headers["ratelimit-reset"] = str(int(reset_at) + round(fault.reset_skew))
    if fault.reset_in is not None and reset_at is not None:
        response.headers["ratelimit-reset"] = str(round(now + fault.reset_in))
    for name, value in fault.headers.items():
        response.headers.popall(name, None)
        if value:
            response.headers[name] = value


async def _send_slowly(
    fault: Fault, request: web.Request, response: web.Response, body: bytes
) -> web.StreamResponse:
    partial = web.StreamResponse(status=response.status, headers=response.headers)
    partial.content_length = len(body)
    _prepare_removal(fault, partial)
    await partial.prepare(request)
    sent = body[: len(body) // 2] if fault.broken else body
    if request.method == "HEAD":  # aiohttp leaves out the body of a whole response only
        sent = b""
    if fault.pace:
        for position in range(len(sent)):
            await asyncio.sleep(fault.pace)
            await partial.write(sent[position : position + 1])
    else:
        await partial.write(sent)
    if fault.broken == "stall-body":
        await _until_disconnected(request)
    elif fault.broken == "reset-body":
        # Without a pause the reset may overtake the headers.
        await asyncio.sleep(0.02)
        reset(request)
    elif fault.broken and request.transport is not None:
        request.transport.close()
    return partial


def _send_raw(raw: bytes, request: web.Request, response: web.Response) -> web.Response:
    if request.transport is not None:
        request.transport.write(raw)
        request.transport.close()
    return response


async def _until_disconnected(request: web.Request) -> None:
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110  (no event says it)
        await asyncio.sleep(0.02)


def reset(request: web.Request) -> None:
    """Close the connection so that the client sees a reset."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
