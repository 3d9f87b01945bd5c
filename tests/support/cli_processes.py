"""The command line in a process, in a terminal, or on a thread of the test's process."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from unittest.mock import patch

import attrs

from do_images_async.cli.app import run
from do_images_async.testing import ImagesEmulator
from tests.conftest import TOKEN
from tests.support.servers import Server

__all__ = ["Ended", "account", "do_images", "do_images_here", "environment", "in_terminal", "start"]


@attrs.frozen
class Ended:
    """A process that has ended."""

    status: int
    stdout: str
    stderr: str


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without the command's variables, and with these."""
    read = ("DIGITALOCEAN_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED", "TERM")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(read)}
    fixed = {"TERM": "xterm-256color", "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    fixed["SSL_CERT_FILE"] = os.devnull  # aiohttp reads all certificates of the system when it is imported
    return kept | fixed | {"XDG_CONFIG_HOME": "/nonexistent"} | variables


async def start(
    arguments: Sequence[str],
    variables: Mapping[str, str],
    *,
    stdin: int = PIPE,
    stdout: int = PIPE,
    stderr: int = PIPE,
) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "do_images_async", *arguments),
        env=environment(**variables),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
    )


async def do_images(*arguments: str, stdin: str = "", **variables: str) -> Ended:
    process = await start(arguments, variables)
    stdout, stderr = await process.communicate(stdin.encode())
    return Ended(await process.wait(), stdout.decode(), stderr.decode())


async def do_images_here(*arguments: str, stdin: str = "", **variables: str) -> Ended:
    """Run the command on a thread, which is faster than a process; one at a time."""

    def call() -> Ended:
        with (
            patch.dict(os.environ, environment(**variables), clear=True),
            patch.object(sys, "stdin", io.StringIO(stdin)),
            redirect_stdout(_stream()) as stdout,
            redirect_stderr(_stream()) as stderr,
        ):
            status = run(arguments)
        return Ended(status, _written(stdout), _written(stderr))

    return await asyncio.to_thread(call)


def _stream() -> io.TextIOWrapper[io.BytesIO]:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8")


def _written(stream: io.TextIOWrapper[io.BytesIO]) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()


def account(server: Server | ImagesEmulator, token: str = TOKEN) -> Mapping[str, str]:
    return {"DIGITALOCEAN_TOKEN": token, "DIGITALOCEAN_API_URL": server.url}


async def in_terminal(*arguments: str, typed: str | None = None, **variables: str) -> Ended:
    """Run the command with stdout and stderr as terminals, and stdin too if something is typed."""
    out, out_side = pty.openpty()
    err, err_side = pty.openpty()
    keys, keys_side = pty.openpty()
    process = await start(arguments, variables, stdin=keys_side, stdout=out_side, stderr=err_side)
    for side in (out_side, err_side, keys_side):
        os.close(side)
    if typed is not None:
        os.write(keys, typed.encode())
    stdout, stderr = await asyncio.gather(asyncio.to_thread(drain, out), asyncio.to_thread(drain, err))
    os.close(keys)
    return Ended(await process.wait(), stdout, stderr)


def drain(terminal: int) -> str:
    parts: list[bytes] = []
    with suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as stream:  # EIO is its end
        while part := stream.read(65536):
            parts.append(part)
    return b"".join(parts).decode()
