"""The running event loop of asyncio, or an error that says that there is none."""

from __future__ import annotations

import asyncio

from do_images_async.errors import ClientStateError

__all__ = ["running_loop"]


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        ClientStateError: there is none, as under trio.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ClientStateError(
            "no event loop of asyncio is running: the client does not run under trio; "
            "with anyio, use its asyncio backend"
        ) from None
