"""Bytes on a connection before the request is written: never the response (row 79)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
import trustme

from do_images_async import ImagesAPI, errors
from tests.conftest import FAST, ONCE, TOKEN
from tests.support.servers import NO_CONTENT, Received, Server, eventually, image_reply, refusal

WRONG = image_reply(666, name="golden")
LATE_408 = refusal(408, headers={"connection": "close"})
UNASKED: dict[str, tuple[bytes, bool]] = {
    "a second answer": (WRONG.data, False),
    "a second answer and the end": (WRONG.data, True),
    "two more answers": (WRONG.data * 2, False),
    "a late 408": (LATE_408.data, False),
    "a late 408 and the end": (LATE_408.data, True),
    "a 204": (NO_CONTENT.data, False),
    "the head of an answer": (WRONG.data.partition(b"{")[0], False),
    "half a head": (b"HTTP/1.1 200 OK\r\nconte", False),
    "garbage": (b"\x00\x01 garbage\r\n\r\n", False),
    "the end": (b"", True),
}
EVERY_KIND = pytest.mark.parametrize(("data", "close"), UNASKED.values(), ids=UNASKED.keys())
EVERY_SESSION = pytest.mark.parametrize("borrowed", [False, True], ids=["own session", "borrowed session"])


CALLS: dict[str, Callable[[ImagesAPI], Awaitable[object]]] = {
    "GET": lambda api: api.get(7),
    "POST": lambda api: api.create_custom(name="golden", url="https://example.com/a.img", region="nyc3"),
}


@asynccontextmanager
async def client(server: Server, borrowed: bool, **options: Any) -> AsyncGenerator[ImagesAPI]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession()) if borrowed else None
        yield await stack.enter_async_context(
            ImagesAPI(TOKEN, base_url=server.url, session=session, retry=FAST, **options)
        )


def asked_for(request: Received) -> Any:
    if request.method == "POST":
        return image_reply(8, status=202, name="golden")
    return image_reply(int(request.path.rpartition("/")[2]))


@EVERY_SESSION
@EVERY_KIND
@pytest.mark.parametrize("read", [True, False], ids=["read meanwhile", "not read yet"])
async def test_row_79_bytes_that_came_while_the_connection_was_idle_are_no_response(
    server: Server, data: bytes, close: bool, read: bool, borrowed: bool
) -> None:
    server.answer_with(asked_for)
    async with client(server, borrowed) as api:
        await api.get(7)
        server.push(data, close=close)
        if read:
            # Long enough for the loop to read what lies there: a whole conversation on another connection.
            async with client(server, borrowed) as other:
                await other.get(1)
        new = await api.create_custom(name="golden", url="https://example.com/a.img", region="nyc3")
        server.push(data, close=close)
        assert new.id == 8
        assert (await api.get(9)).id == 9
    assert server.methods.count("POST") == 1
    assert server.methods.count("GET") == 2 + read, "nothing was sent twice"


@EVERY_SESSION
async def test_row_79_every_connection_of_the_pool_is_checked(server: Server, borrowed: bool) -> None:
    server.answer_with(asked_for)
    async with client(server, borrowed) as api:
        await asyncio.gather(*(api.get(number) for number in range(1, 21)))
        assert server.connections > 1
        server.push(WRONG.data)
        found = await asyncio.gather(*(api.get(number) for number in range(1, 21)))
    assert [image.id for image in found] == list(range(1, 21))
    assert len(server.received) == 40


@EVERY_SESSION
async def test_row_79_a_connection_without_such_bytes_is_reused(server: Server, borrowed: bool) -> None:
    server.answer_with(asked_for)
    async with client(server, borrowed) as api:
        for number in range(1, 6):
            await api.get(number)
    assert server.connections == 1


async def test_row_79_a_connection_of_the_users_own_requests_is_checked_too(server: Server) -> None:
    server.answer_with(asked_for)
    async with (
        aiohttp.ClientSession() as session,
        ImagesAPI(TOKEN, base_url=server.url, session=session) as api,
    ):
        async with session.get(f"{server.url}/v2/images/1") as response:
            await response.read()
        server.push(WRONG.data)
        assert (await api.get(7)).id == 7


@pytest.mark.parametrize("method", CALLS)
async def test_row_79_a_server_that_talks_first_is_an_error_and_nothing_was_sent(method: str) -> None:
    connections = 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(WRONG.data)
        sent = await reader.read(1)
        writer.close()
        assert not sent

    listener = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, ImagesAPI(TOKEN, base_url=f"http://127.0.0.1:{port}", retry=ONCE) as api:
        # Whether the greeting is here when the request is written is the network's choice: make it so.
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}") as response:
            assert response.status == 200
        with pytest.raises(errors.TransportError, match="before the request") as caught:
            await CALLS[method](api)
        assert not caught.value.outcome_unknown
        assert api.limiter.stats().granted == 0
    assert connections > 1


@pytest.mark.parametrize("unasked", [False, True], ids=["clean", "a second answer"])
async def test_row_79_under_tls(unasked: bool) -> None:
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(theirs)  # pyright: ignore[reportUnknownMemberType]
    authority.issue_cert("127.0.0.1").configure_cert(ours)  # pyright: ignore[reportUnknownMemberType]
    connector = aiohttp.TCPConnector(ssl=theirs)
    async with (
        Server().running(tls=ours) as server,
        aiohttp.ClientSession(connector=connector) as session,
        ImagesAPI(TOKEN, base_url=server.url, session=session, retry=FAST) as api,
    ):
        server.answer_with(asked_for)
        for number in range(1, 6):
            assert (await api.get(number)).id == number
            if unasked:
                server.push(WRONG.data)
        assert server.connections == (5 if unasked else 1)
        await eventually(lambda: len(server.received) == 5)
