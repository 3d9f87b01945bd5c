"""Headless Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

__all__ = ["BROWSER", "Browser", "browser"]

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_SWITCHES = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars"),
    *("disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"),
    "remote-debugging-port=0",
)


class Browser:
    """One tab; `errors` holds the errors of its console and scripts."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self._loaded = False
        self._socket = socket
        self._numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    async def show(
        self, path: Path, page: str, *, width: int = 1280, height: int = 900, scheme: str = "light"
    ) -> None:
        """Write the page to this path and open it, in a window or on a phone."""
        await asyncio.to_thread(path.write_text, page, encoding="utf-8")
        for domain in ("Runtime", "Log", "Page"):
            await self.call(f"{domain}.enable")
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self._loaded = False
        await self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._note(await self._socket.receive_json())

    async def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression, awaited if it is a promise."""
        result = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def screenshot(self) -> bytes:
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Page.loadEventFired":
            self._loaded = True
        if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(str(message["params"]))


@asynccontextmanager
async def browser() -> AsyncGenerator[Browser, None]:
    """Start Chromium with a new tab, until the end of the block."""
    assert BROWSER is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        switches = [f"--{switch}" for switch in (*_SWITCHES, f"user-data-dir={profile}")]
        process = await asyncio.create_subprocess_exec(BROWSER, *switches, stdout=DEVNULL, stderr=PIPE)
        assert process.stderr is not None
        try:
            port = await _port(process.stderr)
            drained = asyncio.create_task(process.stderr.read())  # so that the pipe never fills
            async with aiohttp.ClientSession() as session:
                async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as response:
                    tab = await response.json()
                async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield Browser(socket)
                process.terminate()
                await drained
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _port(log: asyncio.StreamReader) -> int:
    async for line in log:
        if line.startswith(b"DevTools listening on ws://"):
            return int(line.split(b":")[2].split(b"/")[0])
    raise AssertionError("chromium ended before it listened")
