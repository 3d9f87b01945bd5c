"""A server in an event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractAsyncContextManager
from typing import Any

__all__ = ["ServingThread"]


class ServingThread:
    """A thread that holds an asynchronous context manager open.

    Args:
        server: the context manager, entered when the thread starts and left when it stops.
    """

    def __init__(self, server: AbstractAsyncContextManager[Any]) -> None:
        self._server = server
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="images-emulator", daemon=True)

    def start(self) -> None:
        """Start the thread and wait until the server is entered; raise its error if that fails."""
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        """Leave the server and wait until that is done."""
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
