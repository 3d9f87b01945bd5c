"""Refuse a connection on which bytes arrived before the request was written.

aiohttp hands out a pooled connection as long as it is open. What the server sent while it was idle (a second
response, a late 408) would be taken for the next request's response: a creation would report another image.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from do_images_async._http.failures import ConnectionBrokenError

if TYPE_CHECKING:
    from aiohttp.connector import Connection

__all__ = ["ConnectionCheck"]

_UNKNOWN_TRIED: Final = 3
"""Refused connections that may be new, after which the attempt ends."""


class _UnfitConnectionError(Exception):
    """A connection has bytes on it; nothing was written, and aiohttp closes it."""

    def __init__(self, *, reused: bool) -> None:
        self.reused = reused
        super().__init__("the server sent bytes before the request")


class ConnectionCheck:
    """A check of the connection of each request, just before the request is written to it.

    It works with any session, since it replaces a method of the request and not the pool. Bytes that arrive
    after the check can't be told from the response.
    """

    __slots__ = ("_used",)

    def __init__(self) -> None:
        # A connection's protocol, and the function that tells whether its socket has unread bytes.
        self._used: WeakKeyDictionary[object, Callable[[], bool]] = WeakKeyDictionary()

    async def send(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send the request on the first connection that has nothing to read.

        Raises:
            ConnectionBrokenError: new connections have bytes on them as well; nothing was written.
        """
        unknown = 0
        # aiohttp calls this once it has a connection, with no await in between. An attribute of the request
        # is the only hook that works with a session of the user's. It is a reference cycle, so it is removed.
        write = vars(request).get("send")
        if not isinstance(write, _CheckedWrite):  # a middleware may send one request twice at the same time
            write = vars(request)["send"] = _CheckedWrite(self, request.send)
        write.users += 1
        try:
            while True:
                try:
                    return await handler(request)
                except _UnfitConnectionError as error:
                    unknown += not error.reused
                    reason = str(error)
                if unknown == _UNKNOWN_TRIED:
                    raise ConnectionBrokenError(reason)
        finally:
            write.users -= 1
            if not write.users:
                del vars(request)["send"]

    def check(self, connection: Connection) -> None:
        """Raise an exception on which `send` takes another connection, if this one has bytes on it."""
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise _UnfitConnectionError(reused=False)
        has_unread_bytes = self._used.get(protocol)
        new = has_unread_bytes is None
        if has_unread_bytes is None:
            has_unread_bytes = _unread_bytes_check(transport)
        # TLS sends session tickets when a connection is new.
        has_tickets = new and transport.get_extra_info("ssl_object") is not None
        # `should_close` is True if the event loop has already read such bytes.
        if protocol.should_close or (not has_tickets and has_unread_bytes()):
            raise _UnfitConnectionError(reused=not new)
        if new:
            self._used[protocol] = has_unread_bytes


class _CheckedWrite:
    """A request's `send` method that checks the connection first."""

    # One is made for every request: a closure would be four objects for the garbage collector.
    __slots__ = ("_connections", "_write", "users")

    def __init__(
        self, connections: ConnectionCheck, write: Callable[[Connection], Awaitable[ClientResponse]]
    ) -> None:
        self._connections = connections
        self._write = write
        self.users = 0

    async def __call__(self, connection: Connection) -> ClientResponse:
        self._connections.check(connection)
        return await self._write(connection)


def _unread_bytes_check(transport: asyncio.Transport) -> Callable[[], bool]:
    """Return a function that tells whether bytes, or the connection's end, wait to be read from the socket.

    It is called once for each request: all that can be prepared is.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        return lambda: False
    descriptor = sock.fileno()
    if descriptor < 0:
        return lambda: True
    if not hasattr(select, "poll"):
        return lambda: bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return lambda: bool(poll.poll(0))
