"""The emulator as an HTTP server: its addresses, and requests that are not valid HTTP."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec
import pytest

from do_images_async import ImagesAPI
from do_images_async.testing import Fault, ImagesEmulator
from tests.support.servers import need_ipv6

SECRET = b"dop_v1_secret"
HOST = b"Host: localhost\r\n"
TOKEN = b"Authorization: Bearer " + SECRET + b"\r\n"
GET = b"GET /v2/images HTTP/1.1\r\n"
POST = b"POST /v2/images HTTP/1.1\r\n"


async def answer_to(sent: bytes) -> tuple[int, bytes]:
    """Return the status of an emulator's answer to these bytes, and the rest of it."""
    async with ImagesEmulator(images=0, token=SECRET.decode()) as emulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(emulator.url.rpartition(":")[2]))
        writer.write(sent)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        writer.close()
        await writer.wait_closed()
    return int(head.split()[1]), head + body


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "0:0::0"])  # noqa: S104
async def test_the_url_leads_this_machine_to_a_server_on_all_addresses(host: str) -> None:
    if ":" in host:
        need_ipv6()
    async with ImagesEmulator(images=0, host=host) as emulator:
        assert emulator.url.startswith("http://127.0.0.1:")
        async with ImagesAPI(emulator.token, base_url=emulator.url) as api:
            assert (await api.list_page()).total == 23
        async with aiohttp.ClientSession() as session, session.get(emulator.admin_url) as response:
            assert response.status == 200


async def test_the_url_of_a_server_on_all_of_ipv6_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    need_ipv6()
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    async with ImagesEmulator(images=0, host="::") as emulator:
        assert emulator.url.startswith("http://[::1]:")
        async with ImagesAPI(emulator.token, base_url=emulator.url) as api:
            assert (await api.list_page()).total == 23


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(GET + HOST + TOKEN[:-2] + b"\r\r\n\r\n", id="a CR in a header"),
        pytest.param(GET + TOKEN + b"\r\n", id="no Host"),
        pytest.param(GET + HOST + HOST + TOKEN + b"\r\n", id="two Hosts"),
        pytest.param(
            POST + HOST + TOKEN + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="Content-Length and Transfer-Encoding",
        ),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\n" + SECRET + b"\r\n\r\n", id="HTTP/2"),
        pytest.param(b"GET /" + SECRET * 700 + b" HTTP/1.1\r\n" + HOST + b"\r\n", id="a long URL"),
        pytest.param(GET + HOST + b"X: " + SECRET * 700 + b"\r\n\r\n", id="a long header"),
        pytest.param(b"GET http://[::1/" + SECRET + b" HTTP/1.1\r\n" + HOST + b"\r\n", id="a wrong URL"),
        pytest.param(
            POST + HOST + TOKEN + b"Transfer-Encoding: chunked\r\n\r\nzz" + SECRET + b"\r\n", id="a bad chunk"
        ),
        pytest.param(
            POST + HOST + TOKEN + b"Content-Encoding: gzip\r\nContent-Length: 13\r\n\r\n" + SECRET,
            id="a body that is not gzip",
        ),
    ],
)
async def test_a_request_that_is_not_valid_http_is_refused_and_shown_nowhere(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    status, answer = await answer_to(sent)
    assert (status, json.loads(answer.partition(b"\r\n\r\n")[2])["id"]) == (400, "bad_request")
    assert SECRET not in answer
    (logged,) = (record for record in caplog.records if record.levelno >= logging.INFO)
    shown = logging.Formatter().format(logged)
    assert shown.startswith("Refused a request from 127.0.0.1 that is not valid HTTP: ")
    assert "\n" not in shown
    assert SECRET.decode() not in caplog.text


async def test_the_journal_is_json_whatever_the_bytes_of_a_url() -> None:
    async with ImagesEmulator(images=0) as emulator, aiohttp.ClientSession() as session:
        for url in (b"/v2/images/\xff?\xfe=\xfd", b"/v2/images/%ED%A0%80?%ff=%ED%A0%80"):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(emulator.url.rpartition(":")[2]))
            writer.write(b"GET " + url + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
            assert (await reader.read()).startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
            writer.close()
            await writer.wait_closed()
        async with session.get(f"{emulator.admin_url}/requests") as response:
            journal = msgspec.json.decode(await response.read())
    assert journal["count"] >= 1


async def test_without_a_host_links_lead_to_the_emulators_own_address() -> None:
    async with ImagesEmulator(images=0, token=SECRET.decode()) as emulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(emulator.url.rpartition(":")[2]))
        writer.write(GET.replace(b"images HTTP/1.1", b"images?per_page=1 HTTP/1.0") + TOKEN + b"\r\n")
        page = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
        writer.close()
        await writer.wait_closed()
        assert page["links"]["pages"]["next"] == f"{emulator.url}/v2/images?per_page=1&page=2"


async def answers_to_two(fault: Fault) -> bytes:
    """Return what an emulator sends on one connection to two requests; the fault changes the first."""
    async with ImagesEmulator(images=0, token=SECRET.decode()) as emulator:
        emulator.faults.add(fault)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(emulator.url.rpartition(":")[2]))
        writer.write(GET + HOST + TOKEN + b"\r\n" + GET + HOST + TOKEN + b"Connection: close\r\n\r\n")
        sent = await reader.read()
        writer.close()
        await writer.wait_closed()
    return sent


@pytest.mark.parametrize("name", ["Content-Length", "content-type", "date", "Server", "x-request-id"])
@pytest.mark.parametrize("effect", [{}, {"pace": 1e-9}, {"broken": "cut"}, {"body": b"{}"}])
async def test_a_header_with_an_empty_value_is_not_sent(name: str, effect: dict[str, Any]) -> None:
    sent = await answers_to_two(Fault(headers={name: ""}, **effect))
    first, _, rest = sent.partition(b"\r\n\r\n")
    fields = [line.partition(b":")[0].lower() for line in first.split(b"\r\n")]
    assert name.lower().encode() not in fields
    closed = name == "Content-Length" or "broken" in effect
    assert rest.count(b"HTTP/1.1 200 OK") == (0 if closed else 1)
    if name == "Content-Length":  # the body ends with the connection
        assert b"transfer-encoding" not in fields
        assert b"connection: close" in first.lower().split(b"\r\n")
        if "broken" not in effect:
            json.loads(rest)


@pytest.mark.parametrize("value", ["close", "Close", "foo, close"])
async def test_a_connection_is_closed_as_its_header_says(value: str) -> None:
    sent = await answers_to_two(Fault(headers={"Connection": value}))
    assert sent.count(b"HTTP/1.1 200 OK") == 1
    assert f"connection: {value}\r\n".encode() in sent.replace(b"Connection:", b"connection:")


async def test_an_expectation_that_is_unknown_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    expectation = b"Expect: " + SECRET + b"\r\nContent-Length: 2\r\n\r\n{}"
    status, answer = await answer_to(POST + HOST + TOKEN + expectation)
    assert (status, json.loads(answer.partition(b"\r\n\r\n")[2])["id"]) == (417, "expectation_failed")
    assert SECRET not in answer
    assert SECRET.decode() not in caplog.text


async def test_a_client_that_goes_away_in_the_middle_of_its_body_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ImagesEmulator(images=0) as emulator, aiohttp.ClientSession(emulator.url) as session:
        gone = asyncio.Event()
        emulator.on_request.append(lambda _: gone.set())
        _, writer = await asyncio.open_connection("127.0.0.1", int(emulator.url.rpartition(":")[2]))
        writer.write(POST + HOST + b"Content-Length: 100\r\n\r\n{")
        await gone.wait()
        writer.close()
        await writer.wait_closed()
        async with session.get("/v2/images") as response:
            assert response.status == 401
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


async def test_stopping_it_while_requests_are_answered_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    connections: list[asyncio.StreamWriter] = []
    async with ImagesEmulator(images=0, latency=0.02, jitter=0.03) as emulator:
        for _ in range(60):
            _, writer = await asyncio.open_connection("127.0.0.1", int(emulator.url.rpartition(":")[2]))
            writer.write(GET + HOST + b"\r\n")
            connections.append(writer)
    for writer in connections:
        writer.close()
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


@pytest.mark.parametrize("steps", range(4))
async def test_a_client_that_connects_while_it_stops_is_closed(
    caplog: pytest.LogCaptureFixture, steps: int
) -> None:
    async with ImagesEmulator(images=0) as emulator:
        client = socket.create_connection(("127.0.0.1", int(emulator.url.rpartition(":")[2])))
        for _ in range(steps):  # asyncio accepts it in the first, and makes the connection in the next ones
            await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    gc.collect()  # warns of connections that nobody has closed
    client.settimeout(5)
    with client, suppress(ConnectionResetError):
        assert client.recv(1) == b""
    assert not caplog.records
