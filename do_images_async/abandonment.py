"""Connections whose event loop was closed before them."""

from __future__ import annotations

import contextlib
from typing import Any

import aiohttp

__all__ = ["abandon"]


def abandon(connector: aiohttp.BaseConnector) -> None:
    """Close a connector's idle sockets without the loop that they belonged to.

    Neither aiohttp nor asyncio does: both ask the loop, which takes no calls any more, so that sockets stay
    open until they are collected as garbage, with a warning for each. Transports that are not asyncio's own
    are left to that.
    """
    pooled: Any = getattr(connector, "_conns", {})
    for connections in pooled.values():
        for protocol, _ in connections:
            _close(protocol.transport)
    # Nothing is awaited in there: the loop is closed.
    with contextlib.suppress(StopIteration):
        connector.close().__await__().__next__()


def _close(transport: Any) -> None:
    tls = getattr(transport, "_ssl_protocol", None)
    if tls is not None:
        transport._closed = True  # noqa: SLF001  (it would only ask the loop, and then warn)
        transport = tls._transport  # noqa: SLF001
    finish = getattr(transport, "_call_connection_lost", None)
    with contextlib.suppress(RuntimeError):
        if finish is not None:
            finish(None)
