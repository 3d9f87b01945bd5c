"""The documentation's programs, started as their users would: as processes. Every warning is an error.

Not in development mode ("-X dev"), in which asyncio reports whatever a busy machine is slow to do.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

__all__ = ["PROGRAMS", "Program", "impatient", "running"]

PROGRAMS = Path(__file__).parents[1] / "docs" / "programs"


def impatient(code: str) -> str:
    """A documented block that looks again at once where its reader's would after seconds."""
    return re.sub(r"(timeout=\d+)(?=[,)])(?!, poll_interval)", r"\1, poll_interval=0.05", code)


@attrs.frozen
class Program:
    """One that runs; what it writes to its standard error is kept."""

    process: asyncio.subprocess.Process
    errors: asyncio.Task[bytes]

    def send(self, signal_number: int) -> None:
        self.process.send_signal(signal_number)

    async def stop(self, *, within: float = 20.0) -> tuple[int, str]:
        """End it by SIGTERM; returns its exit code and what it wrote to its standard error."""
        if self.process.returncode is None:
            self.send(signal.SIGTERM)
        async with asyncio.timeout(within):
            code = await self.process.wait()
            return code, (await self.errors).decode()


@asynccontextmanager
async def running(name: str, *, url: str, token: str, **environment: str) -> AsyncGenerator[Program]:
    """Start a program that finds the API at a URL; it is killed at the end unless it has been stopped."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", str(PROGRAMS / name)),
        env=os.environ | {"DIGITALOCEAN_TOKEN": token, "DIGITALOCEAN_API_URL": url} | environment,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    program = Program(process, asyncio.create_task(process.stderr.read()))
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await program.errors
