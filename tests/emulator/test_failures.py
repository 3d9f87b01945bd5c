"""Exceptions while the emulator answers: of a test's own functions, and of the emulator itself."""

from __future__ import annotations

import asyncio
import logging
import urllib.error
import urllib.request
from typing import Any, NoReturn

import aiohttp
import pytest
from aiohttp import web

from do_images_async import ImagesAPI, RetryPolicy, errors
from do_images_async.testing import ImagesEmulator
from tests.support.servers import eventually

GET = b"GET /v2/images/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"


def refuse(request: web.Request) -> None:
    assert request.method != "GET", "no GET was expected"


async def refuse_later(request: web.Request) -> None:
    await asyncio.sleep(0)
    refuse(request)


def fail(_: object) -> NoReturn:
    pytest.fail("this is not expected")  # which is no Exception


async def ask(url: str) -> tuple[int, Any, str]:
    """Return the status, the JSON body and the request id of an answer."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.json(), response.headers["x-request-id"]


@pytest.mark.parametrize("hook", [refuse, refuse_later])
async def test_an_assertion_of_a_hook_is_raised_at_the_end(hook: Any) -> None:
    with pytest.raises(AssertionError, match="no GET was expected") as caught:  # noqa: PT012
        async with ImagesEmulator(images=0) as emulator:
            emulator.on_request.append(hook)
            status, body, request_id = await ask(f"{emulator.url}/v2/images?page=1")
            emulator.on_request.clear()
            assert (status, body["id"], body["request_id"]) == (500, "server_error", request_id)
            assert (await ask(f"{emulator.url}/v2/images"))[0] == 401
            assert emulator.requests.count("GET", "/v2/images", status=500) == 1
            assert emulator.served == {500: 1, 401: 1}
            assert emulator.requests.worst_window(60) == 2
    assert caught.value.__notes__ == ["while the emulator answered GET '/v2/images'"]


def test_a_thread_raises_it_in_the_test() -> None:
    emulator = ImagesEmulator(images=0)
    with pytest.raises(pytest.fail.Exception, match="this is not expected"), emulator:  # noqa: PT012
        emulator.on_request.append(fail)
        with pytest.raises(urllib.error.HTTPError, match="500") as refused:
            urllib.request.urlopen(emulator.url)  # noqa: S310
        refused.value.close()
    emulator.on_request.clear()
    with emulator:  # it was raised once
        pass


async def test_the_first_is_raised_and_the_others_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AssertionError):  # noqa: PT012
        async with ImagesEmulator(images=0) as emulator:
            emulator.on_request.append(refuse)
            await ask(emulator.url)
            emulator.on_request[:] = [lambda _: 1 // 0]
            await ask(f"{emulator.url}/another")
    assert "while the emulator answered GET '/another'" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("on_thread", [False, True])
async def test_an_exception_of_the_block_says_what_a_hook_raised(on_thread: bool) -> None:
    emulator = ImagesEmulator(images=0)
    emulator.on_request.append(refuse)

    async def use() -> None:
        once = RetryPolicy(attempts=1)
        async with ImagesAPI(emulator.token, base_url=emulator.url, retry=once) as api:
            await api.get(1)

    with pytest.raises(errors.ServerError) as caught:  # noqa: PT012
        if on_thread:
            with emulator:
                await use()
        async with emulator:
            await use()
    (note,) = caught.value.__notes__
    assert note.startswith(
        "while the emulator answered GET '/v2/images/1', this was raised: AssertionError: no"
    )


async def test_a_hook_may_answer_with_an_exception_of_aiohttp() -> None:
    def conflict(_: object) -> NoReturn:
        raise web.HTTPConflict

    async with ImagesEmulator(images=0) as emulator:
        emulator.on_request.append(conflict)
        status, body, _ = await ask(f"{emulator.url}/v2/images/1")
        assert (status, body["id"]) == (409, "conflict")
        assert emulator.requests.count("GET", "/v2/images/1", status=409) == emulator.served[409] == 1


async def test_an_error_of_the_emulator_itself_is_raised_at_the_end() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with ImagesEmulator(images=1, action_seconds=0) as emulator:
            emulator.actions.fails = lambda _: bool(1 // 0)
            number = emulator.images.add(regions=["nyc3"])
            once = RetryPolicy(attempts=1)
            async with ImagesAPI(emulator.token, base_url=emulator.url, retry=once) as api:
                await api.actions.transfer(number, "ams3")
                with pytest.raises(errors.ServerError) as caught:
                    await api.get(number)
            assert (caught.value.id, bool(caught.value.request_id)) == ("server_error", True)
            assert emulator.requests.count("GET", status=500) == 1


async def test_an_error_of_an_admin_endpoint_is_raised_at_the_end() -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with ImagesEmulator(images=1, action_seconds=0) as emulator:
            emulator.actions.fails = lambda _: bool(1 // 0)
            emulator.actions.start(emulator.images.add(), "convert")
            status, body, request_id = await ask(f"{emulator.admin_url}/state")
            assert (status, body["id"], body["request_id"]) == (500, "server_error", request_id)


async def test_a_client_that_leaves_while_a_hook_reads_its_body_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[str] = []

    async def read(request: web.Request) -> None:
        try:
            reading.set()
            await request.read()
        finally:
            ended.append(request.path)

    reading = asyncio.Event()
    async with ImagesEmulator(images=0) as emulator:
        emulator.on_request.append(read)
        _, writer = await asyncio.open_connection("127.0.0.1", int(emulator.url.rpartition(":")[2]))
        writer.write(GET)
        await reading.wait()
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: bool(ended))
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
