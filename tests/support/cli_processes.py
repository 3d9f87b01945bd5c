"""The command line in a process, in a terminal, or on a thread of the test's process."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

import attrs
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from do_images_async.cli.app import run
from do_images_async.testing import ImagesEmulator
from tests.conftest import TOKEN
from tests.support.servers import Server

__all__ = [
    "Ended",
    "account",
    "at_the_first",
    "do_images",
    "do_images_here",
    "drain",
    "environment",
    "files_of",
    "in_terminal",
    "in_terminal_here",
    "in_watched_terminal",
    "pruning_into_a_pipe",
    "several_accounts",
    "start",
]

_FORWARDED = {"content-type", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after"}


@attrs.frozen
class Ended:
    """A process that has ended."""

    status: int
    stdout: str
    stderr: str


def files_of(directory: Path) -> list[str]:
    """Return the names of the files in a directory, in order."""
    return sorted(each.name for each in directory.iterdir())


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without an account, and with these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DIGITALOCEAN_")}
    fixed = {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
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


@asynccontextmanager
async def pruning_into_a_pipe() -> AsyncGenerator[tuple[ImagesEmulator, Process, int]]:
    """Start a `prune` that deletes 4 of 60 images, and whose report is larger than its pipe.

    Yields the emulator, the process, and the pipe's other end, which the caller reads and closes. When its
    first byte is there, the command is writing, and the pipe is full.
    """
    async with ImagesEmulator(images=0, quotas=None) as emulator:
        for age in range(60):
            emulator.images.add(name=f"web-{age}", created_at=f"2026-01-01T00:00:{age:02}Z")
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        arguments = ("prune", "--name", "web-*", "--keep-last", "56", "--apply", "--yes", "-q", "-o", "json")
        process = await start(arguments, account(emulator, emulator.token), stdout=writer)
        os.close(writer)
        yield emulator, process, reader


async def do_images(*arguments: str, stdin: str = "", **variables: str) -> Ended:
    process = await start(arguments, variables)
    stdout, stderr = await process.communicate(stdin.encode())
    return Ended(await process.wait(), stdout.decode(), stderr.decode())


async def do_images_here(*arguments: str, stdin: str = "", **variables: str) -> Ended:
    """Run the command on a thread, which is faster than a process; one at a time."""
    variables = environment(**variables)
    encoding = variables["PYTHONIOENCODING"]
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    status = await asyncio.to_thread(_call, arguments, variables, io.StringIO(stdin), stdout, stderr)
    return Ended(status, _written(stdout), _written(stderr))


def _call(
    arguments: Sequence[str], variables: Mapping[str, str], stdin: TextIO, stdout: TextIO, stderr: TextIO
) -> int:
    with (
        patch.dict(os.environ, variables, clear=True),
        patch.object(sys, "stdin", stdin),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        return run(arguments)


def _written(stream: io.TextIOWrapper[io.BytesIO]) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()


def account(server: Server | ImagesEmulator, token: str = TOKEN) -> Mapping[str, str]:
    return {"DIGITALOCEAN_TOKEN": token, "DIGITALOCEAN_API_URL": server.url}


@asynccontextmanager
async def several_accounts(*emulators: ImagesEmulator) -> AsyncGenerator[str, None]:
    """Serve these accounts at one address, which it yields: the token says which of them answers."""
    urls = {f"Bearer {each.token}": each.url for each in emulators}

    async def forward(request: web.Request) -> web.Response:
        authorization = request.headers["Authorization"]
        url = urls.get(authorization, emulators[0].url) + request.path_qs
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        async with session.request(
            request.method, url, headers=headers, data=await request.read() or None
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() in _FORWARDED}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    async with ClientSession() as session, TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


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


async def in_terminal_here(*arguments: str, typed: str = "", **variables: str) -> Ended:
    """Run the command on a thread, with a terminal as each of its streams; one at a time."""
    return await in_watched_terminal(bytearray(), *arguments, typed=typed, **variables)


async def in_watched_terminal(shown: bytearray, *arguments: str, typed: str = "", **variables: str) -> Ended:
    """Run the command as `in_terminal_here` does, and append to `shown` what stderr shows, at once."""
    (out, out_side), (err, err_side), (keys, keys_side) = (pty.openpty() for _ in range(3))
    os.write(keys, typed.encode())

    def call() -> int:
        with (
            open(keys_side, encoding="utf-8") as stdin,  # noqa: PTH123
            open(out_side, "w", encoding="utf-8") as stdout,  # noqa: PTH123
            open(err_side, "w", encoding="utf-8") as stderr,  # noqa: PTH123
        ):
            return _call(arguments, environment(**variables), stdin, stdout, stderr)

    status, stdout, stderr = await asyncio.gather(
        asyncio.to_thread(call), asyncio.to_thread(drain, out), asyncio.to_thread(drain, err, shown)
    )
    os.close(keys)
    return Ended(status, stdout, stderr)


def drain(terminal: int, shown: bytearray | None = None) -> str:
    parts = bytearray() if shown is None else shown
    with suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as stream:  # EIO is its end
        while part := stream.read(65536):
            parts.extend(part)
    return parts.decode()


def at_the_first(emulator: ImagesEmulator, method: str, act: Callable[[], object]) -> None:
    """Act when the first request with this method arrives, before it is answered."""
    acts = [act]

    def hook(request: web.Request) -> None:
        if request.method == method and acts:
            acts.pop()()

    emulator.on_request.append(hook)
