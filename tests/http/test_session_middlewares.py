"""The middlewares of a session that the client is given: they run, and get around neither quota nor token."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse
from yarl import URL

from do_images_async import ImagesAPI, RateLimiter, TokenBucket, errors, quota_middleware
from do_images_async._http import transport
from tests.conftest import FAST, ONCE, TOKEN
from tests.support.servers import (
    NO_CONTENT,
    RESET,
    Server,
    content,
    image_document,
    image_reply,
    refusal,
    unused_port,
)


def session_with(*middlewares: ClientMiddlewareType) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(middlewares=middlewares)


async def test_they_run_for_each_attempt_in_their_order(server: Server) -> None:
    server.script(refusal(503), image_reply(7))
    seen: list[str] = []

    def middleware(name: str) -> ClientMiddlewareType:
        async def note(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
            assert "Authorization" not in request.headers, "the token is not on it yet"
            request.headers["X-Seen"] = name
            response = await handler(request)
            seen.append(f"{name} {response.status}")
            return response

        return note

    async with session_with(middleware("first"), middleware("second")) as session:
        assert (await ImagesAPI(TOKEN, session=session, base_url=server.url, retry=FAST).get(7)).id == 7
    assert seen == ["second 503", "first 503", "second 200", "first 200"]
    assert {request.headers["x-seen"] for request in server.received} == {"second"}


async def test_each_message_that_one_sends_takes_a_permit(server: Server) -> None:
    server.script(refusal(503), image_reply(7))

    async def retry_once(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        (await handler(request)).release()
        return await handler(request)

    limiter = RateLimiter()
    async with session_with(retry_once) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, limiter=limiter, retry=FAST)
        assert (await api.get(7)).id == 7
    stats = limiter.stats()
    assert (stats.granted, stats.in_flight) == (2, 0)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_one_may_send_a_request_twice_at_the_same_time(server: Server, method: str) -> None:
    server.answer_with(lambda _: image_reply(7) if method == "GET" else NO_CONTENT)

    async def hedge(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        async def send() -> ClientResponse:
            return await handler(request)

        first, second = asyncio.create_task(send()), asyncio.create_task(send())
        response = await first
        (await second).release()
        return response

    limiter = RateLimiter(slow_start=False)
    async with session_with(hedge) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, limiter=limiter, retry=FAST)
        await (api.get(7) if method == "GET" else api.delete(7))
    assert server.methods == [method, method]
    stats = limiter.stats()
    assert (stats.granted, stats.in_flight) == (2, 0)


@pytest.mark.parametrize("second", ["no permit", "no connection"])
async def test_a_write_that_one_sends_again_may_have_been_executed_by_the_first(
    server: Server, second: str
) -> None:
    server.script(RESET)

    async def send_again(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        try:
            return await handler(request)
        except Exception:  # noqa: BLE001
            again = ClientRequest(
                *(request.method, request.url),
                loop=request.loop,
                session=request.session,
                proxy=URL(f"http://127.0.0.1:{unused_port()}"),
            )
            return await handler(again)

    limiter = RateLimiter(TokenBucket(1 if second == "no permit" else 9, per=60))
    async with session_with(send_again) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, limiter=limiter, max_wait=0, retry=FAST)
        with pytest.raises(errors.DOImagesError) as caught:
            await api.actions.convert(7)
    assert isinstance(caught.value, errors.QuotaWaitError) == (second == "no permit")
    assert caught.value.outcome_unknown
    assert len(server.received) == 1


async def test_the_error_of_one_that_fails_after_a_write_is_told_what_may_have_been_done(
    server: Server,
) -> None:
    server.answer_with(lambda _: image_reply(7))

    async def fail(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        await handler(request)
        raise KeyError("of the middleware")

    async with session_with(fail) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url)
        with pytest.raises(KeyError, match="of the middleware") as caught:
            await api.actions.convert(7)
        with pytest.raises(KeyError) as read:
            await api.get(7)
    assert caught.value.__notes__ == ["the request had been sent, and may have been carried out"]
    assert not hasattr(read.value, "__notes__")


@pytest.mark.parametrize(("text", "told"), [("too slow", ": too slow"), ("", "")])
async def test_the_timeout_of_one_is_not_taken_for_the_clients(server: Server, text: str, told: str) -> None:
    server.answer_with(lambda _: image_reply(7))

    async def give_up(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        await handler(request)
        raise TimeoutError(text) if text else TimeoutError

    async with session_with(give_up) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, retry=ONCE)
        with pytest.raises(errors.RequestTimeoutError) as caught:
            await api.actions.convert(7)
    assert f"failed: a timeout that is not the client's, such as a middleware's{told};" in str(caught.value)
    assert caught.value.outcome_unknown


async def test_none_can_lead_the_token_to_another_origin(server: Server) -> None:
    async def elsewhere(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.url = request.url.with_host("localhost")
        return await handler(request)

    limiter = RateLimiter()
    async with session_with(elsewhere) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, limiter=limiter)
        with pytest.raises(ValueError, match="the token is for"):
            await api.get(7)
    assert not server.received
    assert limiter.stats().available == (250, 5000)


async def test_a_quota_middleware_of_the_session_takes_no_second_permit(server: Server) -> None:
    server.script(image_reply(7))
    limiter = RateLimiter(TokenBucket(1, per=60))
    async with session_with(quota_middleware(limiter, max_wait=0)) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, limiter=limiter, max_wait=0)
        assert (await api.get(7)).id == 7
    assert limiter.stats().granted == 1


async def read(response: ClientResponse) -> None:
    assert await response.read()


async def read_json(response: ClientResponse) -> None:
    assert await response.json()


async def read_and_release(response: ClientResponse) -> None:
    async with response:
        assert "{" in await response.text()


async def read_a_part(response: ClientResponse) -> None:
    assert await response.content.read(5)


async def read_the_stream(response: ClientResponse) -> None:
    assert await response.content.read()


async def release(response: ClientResponse) -> None:
    response.release()


Use = Callable[[ClientResponse], Awaitable[None]]


def uses_response(use: Use) -> ClientMiddlewareType:
    async def middleware(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        if response.status != 204:
            await use(response)
        return response

    return middleware


@pytest.mark.parametrize("use", [read, read_json, read_and_release])
async def test_one_may_read_the_body(server: Server, use: Use) -> None:
    compressed = gzip.compress(json.dumps({"image": image_document(7)}).encode())
    server.script(
        image_reply(7, name="ü"),
        content(compressed, headers={"content-encoding": "gzip"}),
        image_reply(8, status=202, name="golden"),
        NO_CONTENT,
        refusal(404),
    )
    async with session_with(uses_response(use)) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, retry=FAST)
        assert (await api.get(7)).name == "ü"
        assert (await api.get(7)).id == 7
        assert (
            await api.create_custom(name="golden", url="https://x.example/i.qcow2", region="nyc3")
        ).id == 8
        await api.delete(7)
        with pytest.raises(errors.NotFoundError, match="message of some_id"):
            await api.get(7)
    assert len(server.received) == 5


async def test_a_body_that_one_has_read_is_bounded_as_well(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_BODY", 100)
    server.script(image_reply(7))
    async with session_with(uses_response(read)) as session:
        with pytest.raises(errors.TransportError, match="the body is larger than 100 bytes"):
            await ImagesAPI(TOKEN, session=session, base_url=server.url, retry=FAST).get(7)
    assert len(server.received) == 1


@pytest.mark.parametrize("use", [read_a_part, read_the_stream, release])
async def test_one_that_takes_the_body_away_is_named(server: Server, use: Use) -> None:
    server.script(image_reply(7, name="golden"), image_reply(8, status=202, name="golden"), refusal(404))
    reason = "a middleware of the session read a part of the response's body, or released it unread"
    async with session_with(uses_response(use)) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, retry=FAST)
        with pytest.raises(errors.TransportError, match=reason) as caught:
            await api.get(7)
        assert (caught.value.outcome_unknown, caught.value.transient) == (False, False)
        with pytest.raises(errors.TransportError, match=reason) as caught:
            await api.create_custom(name="golden", url="https://x.example/i.qcow2", region="nyc3")
        assert caught.value.outcome_unknown
        with pytest.raises(errors.NotFoundError):
            await api.get(7)
    assert len(server.received) == 3


async def test_one_may_answer_without_the_server(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.script(image_reply(7))

    async def from_elsewhere(request: ClientRequest, _: ClientHandlerType) -> ClientResponse:
        return await other.request(request.method, request.url)

    async with aiohttp.ClientSession() as other, session_with(from_elsewhere) as session:
        with caplog.at_level("DEBUG", "do_images_async"):
            assert (await ImagesAPI(TOKEN, session=session, base_url=server.url).get(7)).id == 7
    assert "attempt 1 was answered 200" in caplog.text


async def test_an_aiohttp_that_hides_them_is_warned_of(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """aiohttp has no public way to read them; no release hides them yet, or the tests above fail."""

    async def unseen(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        raise AssertionError("it runs although the client can't see it")

    server.script(image_reply(7))
    async with session_with(unseen) as session:
        ImagesAPI(TOKEN, session=session, base_url=server.url)
        assert not caplog.messages
        del session._middlewares  # pyright: ignore[reportPrivateUsage]
        api = ImagesAPI(TOKEN, session=session, base_url=server.url)
        assert caplog.messages == [
            "middlewares of the session do not run for this client: this aiohttp hides them"
        ]
        assert (await api.get(7)).id == 7
