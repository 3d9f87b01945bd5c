"""Run a server in an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractAsyncContextManager
from typing import Any

__all__ = ["ServingThread"]


class ServingThread:
    """Holds an asynchronous context manager open on another thread.

    Args:
        server: what is entered when the thread starts and left when it stops.
    """

    def __init__(self, server: AbstractAsyncContextManager[Any]) -> None:
        self._server = server
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="images-emulator", daemon=True)

    def start(self) -> None:
        """Return when the server is entered; raise what entering it raised."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        """Return when the server is left."""
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  (it belongs to whoever started the thread)
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        async with self._server:
            self._loop = asyncio.get_running_loop()
            self._stopping = asyncio.Event()
            self._ready.set()
            await self._stopping.wait()
