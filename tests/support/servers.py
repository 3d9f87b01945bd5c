"""A scripted HTTP/1.1 server without an HTTP library: it can send any bytes.

Nothing of the client's stack is in it, so that a fault of that stack can't hide itself here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Literal
from urllib.parse import parse_qsl

import attrs
import pytest

from do_images_async.testing.server import accepted

After = Literal["keep", "close", "reset", "hang"]


@attrs.frozen
class Received:
    """A received request; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        pairs = parse_qsl(self.target.partition("?")[2], keep_blank_values=True, strict_parsing=True)
        assert len(pairs) == len(dict(pairs)), f"a name is repeated in {self.target}"
        return dict(pairs)

    def json(self) -> Any:
        return json.loads(self.body)


@attrs.frozen
class Answer:
    """The bytes of a response, and the end of the connection after it.

    With `drip`, they come one by one, so many seconds apart.
    """

    data: bytes = b""
    after: After = "keep"
    drip: float = 0.0


@attrs.frozen
class Held:
    """A response that is sent when `until` is set."""

    answer: Answer
    until: asyncio.Event


Script = Callable[[Received], "Answer | Awaitable[Answer]"]


def raw(data: bytes, after: After = "close") -> Answer:
    return Answer(data, after)


RESET = Answer(after="reset")
CLOSE = Answer(after="close")
HANG = Answer(after="hang")


def content(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None, after: After = "keep"
) -> Answer:
    """Return a well-formed response with this body."""
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return Answer(f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + body, after)


def reply(
    document: object, *, status: int = 200, headers: Mapping[str, str] | None = None, after: After = "keep"
) -> Answer:
    """Return a well-formed response with this JSON document."""
    return content(json.dumps(document).encode(), status=status, headers=headers, after=after)


def refusal(status: int, *, id: str = "some_id", headers: Mapping[str, str] | None = None) -> Answer:  # noqa: A002
    """Return a well-formed error response of the API."""
    return reply({"id": id, "message": f"message of {id}"}, status=status, headers=headers)


NO_CONTENT = Answer(b"HTTP/1.1 204 No Content\r\n\r\n")


def image_document(image_id: int = 7, **fields: object) -> dict[str, object]:
    """Return an image as the API sends it."""
    return {
        "id": image_id,
        "name": f"image {image_id}",
        "type": "snapshot",
        "distribution": "Ubuntu",
        "slug": None,
        "public": False,
        "regions": ["nyc3"],
        "created_at": "2020-05-04T22:23:02Z",
        "min_disk_size": 20,
        "size_gigabytes": 2.34,
        "description": "",
        "tags": [],
        "status": "available",
        "error_message": "",
        **fields,
    }


def image_reply(image_id: int = 7, *, status: int = 200, **fields: object) -> Answer:
    return reply({"image": image_document(image_id, **fields)}, status=status)


_SERVING = {"Server._serve", "BaseSelectorEventLoop._accept_connection2"}


class Server:
    """A server that answers requests from a script, in order, and records them.

    Attributes:
        received: every request, oldest first.
        open_connections: how many there are now.
        connections: how many there have been.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.open_connections = 0
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._script: deque[Answer | Held] = deque()
        self._function: Script | None = None
        self._address = ("", 0)
        self._scheme = "http"

    @property
    def port(self) -> int:
        return self._address[1]

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """Return the server's own tasks; a connection's begins when asyncio accepts it."""
        every = asyncio.all_tasks()
        return self._tasks | {
            task for task in every if getattr(task.get_coro(), "__qualname__", "") in _SERVING
        }

    @property
    def methods(self) -> list[str]:
        return [request.method for request in self.received]

    def script(self, *answers: Answer | Held) -> None:
        """Answer the next requests with these responses, one each."""
        self._script.extend(answers)

    def answer_with(self, function: Script) -> None:
        """Answer requests that are not scripted with the result of this function."""
        self._function = function

    def push(self, data: bytes, *, close: bool = False) -> None:
        """Write unsolicited bytes to every open connection, and close it if `close`."""
        for writer in self._writers:
            writer.write(data)
            if close:
                if writer.can_write_eof():
                    writer.write_eof()  # at once; `close` waits for the event loop's next turn
                writer.close()

    @contextlib.asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Server, None]:
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self._address = listener.sockets[0].getsockname()[:2]
        self._scheme = "https" if tls else "http"
        try:
            yield self
        finally:
            await accepted()
            listener.close()
            await asyncio.sleep(0)  # those that were accepted begin, and note their tasks
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_connections += 1
        self._writers.add(writer)
        try:
            await self._converse(reader, writer, self.connections)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open_connections -= 1
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> None:
        while True:
            request = await _read_request(reader, connection)
            self.received.append(request)
            answer = await self._answer_unless_gone(request, reader)
            if answer.drip:
                await _drip(answer, writer)
            else:
                writer.write(answer.data)
            await writer.drain()
            if answer.after == "close":
                return
            if answer.after == "reset":
                connected: socket.socket = writer.get_extra_info("socket")
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            if answer.after == "hang":
                await reader.read(1)
                return

    async def _answer_unless_gone(self, request: Received, reader: asyncio.StreamReader) -> Answer:
        answering = asyncio.ensure_future(self._answer(request))
        leaving = asyncio.ensure_future(reader.read(1))
        own: set[asyncio.Task[Any]] = {answering, leaving}
        self._tasks |= own
        try:
            await asyncio.wait(own, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                return answering.result()
            raise ConnectionAbortedError
        finally:
            for task in own:
                task.cancel()
            await asyncio.gather(*own, return_exceptions=True)
            self._tasks -= own

    async def _answer(self, request: Received) -> Answer:
        if self._script:
            step = self._script.popleft()
            if isinstance(step, Answer):
                return step
            await step.until.wait()
            return step.answer
        if self._function is None:
            return refusal(418, id="nothing_is_scripted")
        answer = self._function(request)
        return answer if isinstance(answer, Answer) else await answer


async def _drip(answer: Answer, writer: asyncio.StreamWriter) -> None:
    for byte in answer.data:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(answer.drip)


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Received:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = line.split(" ")
    headers: dict[str, str] = {}
    for field in fields:
        name, _, value = field.partition(":")
        assert name.lower() not in headers, f"{name} is sent twice"
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body, connection)


def listing(
    count: int, *, first_id: int = 1, links: bool = True, total: bool = True, **fields: object
) -> Script:
    """Return a function that answers as a list of `count` images with these fields, in pages."""

    def answer(request: Received) -> Answer:
        page = int(request.query["page"])
        per_page = int(request.query["per_page"])
        start = (page - 1) * per_page
        numbers = range(start, min(start + per_page, count))
        document: dict[str, object] = {
            "images": [image_document(first_id + number, **fields) for number in numbers],
        }
        if links:
            following = {"next": f"https://x/v2/images?page={page + 1}"} if start + per_page < count else {}
            base = f"http://{request.headers['host']}"
            document["links"] = {
                "pages": {name: link.replace("https://x", base) for name, link in following.items()}
            }
        if total:
            document["meta"] = {"total": count}
        return reply(document)

    return answer


def need_ipv6() -> None:
    """Skip the test where no socket can serve IPv6 and IPv4."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6, dualstack_ipv6=True):
            pass
    except (OSError, ValueError):  # ValueError: the system has no sockets that serve both
        pytest.skip("needs IPv6")


def unused_port() -> int:
    """Return a port of this machine that nothing listens on.

    It is below those that the system gives to sockets without a port of their own: another test's server
    could get one of them before it is used here. Hypothesis and plugins seed `random` in all processes alike.
    """
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.asynccontextmanager
async def deadline_when(condition: Callable[[], bool]) -> AsyncGenerator[None]:
    """Let the caller's deadline pass as soon as the condition holds, and raise a `TimeoutError` then."""

    async def watch() -> None:
        await eventually(condition, within=30)
        deadline.reschedule(asyncio.get_running_loop().time())

    async with asyncio.timeout(30) as deadline:
        watcher = asyncio.create_task(watch())
        try:
            yield
        finally:
            watcher.cancel()


async def eventually(condition: Callable[[], bool], *, within: float = 5.0) -> None:
    """Return as soon as the condition holds; fail when it does not in time."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  (the condition is on the other side of a socket)
            await asyncio.sleep(0.002)
