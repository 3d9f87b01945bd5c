"""The documentation's programs, run as processes in which every warning is an error.

Not in development mode ("-X dev"), in which asyncio reports whatever a busy machine is slow to do.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import attrs

__all__ = ["PROGRAMS", "Program", "impatient", "outcome_here", "running"]

PROGRAMS = Path(__file__).parents[1] / "docs" / "programs"


def impatient(code: str) -> str:
    """Return a documented block that polls at once instead of after seconds."""
    code = re.sub(r"(\bensure_regions\([^()]*)\)", r"\1, poll_interval=0.05)", code)
    return re.sub(r"(timeout=\d+)(?=[,)])(?!, poll_interval)", r"\1, poll_interval=0.05", code)


def outcome_here(code: str) -> tuple[str, str]:
    """Run a program in this process, which is faster than one of its own; return its stdout and stderr."""
    with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr:
        exec(compile(code, "<program>", "exec", dont_inherit=True), {"__name__": "__main__"})  # noqa: S102
    return stdout.getvalue(), stderr.getvalue()


@attrs.frozen
class Program:
    """A running program, and its standard error."""

    process: asyncio.subprocess.Process
    errors: asyncio.Task[bytes]

    def send(self, signal_number: int) -> None:
        self.process.send_signal(signal_number)

    async def stop(self, *, within: float = 20.0) -> tuple[int, str]:
        """End it with SIGTERM; return its exit code and its standard error."""
        if self.process.returncode is None:
            self.send(signal.SIGTERM)
        async with asyncio.timeout(within):
            code = await self.process.wait()
            return code, (await self.errors).decode()


@asynccontextmanager
async def running(name: str, *, url: str, token: str, **environment: str) -> AsyncGenerator[Program]:
    """Start a program with the API at a URL; kill it at the end unless it was stopped."""
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
