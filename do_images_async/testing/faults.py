"""Things that go wrong on demand."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal

import attrs
from aiohttp import web

__all__ = ["Fault", "Faults", "reset"]


@attrs.define(kw_only=True)
class Fault:
    """One kind of trouble for the requests that it matches.

    Args:
        method: only requests with this method.
        path: only paths that match this pattern, with `*` for anything.
        times: how often it strikes; None for ever.
        probability: how likely it strikes a request that it matches.
        after: whether the request is carried out first, so that only the answer is lost or spoilt.
        delay: seconds to wait before anything else.
        status: answer with this status instead.
        body: answer with this body instead; with `status` alone, an error body of the API's shape.
        headers: headers to add to the answer; an empty value takes a header away.
        broken: "reset" closes the connection hard without an answer, "stall" sends nothing until the client
            gives up, "cut" carries the request out, sends half the body and closes.
    """

    method: str | None = None
    path: str | None = None
    times: int | None = 1
    probability: float = 1.0
    after: bool = False
    delay: float = 0.0
    status: int | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])
    broken: Literal["reset", "cut", "stall"] | None = None

    def matches(self, request: web.Request) -> bool:
        if self.times == 0 or (self.method is not None and self.method != request.method):
            return False
        return self.path is None or fnmatchcase(request.path, self.path)

    @property
    def answers(self) -> bool:
        """Whether it gives the answer itself."""
        return self.status is not None or self.body is not None

    @property
    def prevents(self) -> bool:
        """Whether the request is not carried out."""
        return not self.after and (self.answers or self.broken in ("reset", "stall"))


class Faults:
    """The faults in force; the first that matches strikes.

    Args:
        seed: what the probabilities are drawn from.
    """

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Put a fault in force, behind those that are."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Take all faults away."""
        self._faults.clear()

    def strike(self, request: web.Request) -> Fault | None:
        """The fault that strikes this request, if any does."""
        for fault in self._faults:
            if fault.matches(request) and self._dice.random() < fault.probability:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


async def spoil(fault: Fault, request: web.Request, response: web.Response) -> web.StreamResponse:
    """What the client gets instead of `response`."""
    for name, value in fault.headers.items():
        response.headers.popall(name, None)
        if value:
            response.headers[name] = value
    if fault.broken == "stall":
        await asyncio.sleep(3600)
    if fault.broken == "reset":
        reset(request)
    if fault.broken == "cut":
        return await _cut(request, response)
    return response


async def _cut(request: web.Request, response: web.Response) -> web.StreamResponse:
    body = response.body if isinstance(response.body, bytes) else b""
    half = web.StreamResponse(status=response.status, headers=response.headers)
    half.content_length = len(body)
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return half


def reset(request: web.Request) -> None:
    """Close the connection so that the client sees a reset."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
