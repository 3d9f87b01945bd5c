"""`quota_middleware`: one quota for the user's own sessions."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from do_images_async import ImagesAPI, RateLimiter, TokenBucket, errors, quota_middleware
from tests.conftest import TOKEN
from tests.support.servers import RESET, Server, content, eventually, image_reply, refusal, unused_port


async def test_a_session_and_a_client_spend_one_quota(server: Server) -> None:
    server.answer_with(lambda _: image_reply(7))
    limiter = RateLimiter(TokenBucket(3, per=60))
    middleware = quota_middleware(limiter, max_wait=0)
    async with (
        ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, max_wait=0) as api,
        aiohttp.ClientSession(server.url, middlewares=(middleware,)) as session,
    ):
        await api.get(7)
        await (await session.get("/v2/droplets")).read()
        await api.get(7)
        with pytest.raises(errors.QuotaWaitError):
            await session.get("/v2/droplets")
        with pytest.raises(errors.QuotaWaitError):
            await api.get(7)
    assert len(server.received) == 3


async def test_a_429_makes_all_later_messages_wait(server: Server) -> None:
    server.script(refusal(429, headers={"retry-after": "30"}))
    limiter = RateLimiter()
    async with aiohttp.ClientSession(server.url, middlewares=(quota_middleware(limiter),)) as session:
        response = await session.get("/v2/droplets")
        assert response.status == 429, "the middleware retries nothing"
    assert 29 < limiter.next_permit_in() < 37


async def test_every_redirect_and_hidden_retry_takes_a_permit(server: Server) -> None:
    moved = content(b"", status=302, headers={"location": "/v2/b"})
    server.script(moved, image_reply(7), RESET, image_reply(7))
    limiter = RateLimiter()
    async with aiohttp.ClientSession(server.url, middlewares=(quota_middleware(limiter),)) as session:
        assert (await session.get("/v2/a")).status == 200
        assert (await session.get("/v2/c")).status == 200
    assert len(server.received) == 4
    assert limiter.stats().granted == 4
    assert limiter.stats().in_flight == 0


async def test_a_message_that_was_never_sent_gives_its_permit_back() -> None:
    limiter = RateLimiter(TokenBucket(1, per=60))
    async with aiohttp.ClientSession(middlewares=(quota_middleware(limiter, max_wait=0),)) as session:
        for _ in range(3):
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"http://127.0.0.1:{unused_port()}/")
    assert limiter.stats().granted == 0
    assert limiter.stats().available == (1,)


async def test_a_session_that_was_closed_during_the_wait_sends_nothing_and_says_so(server: Server) -> None:
    limiter = RateLimiter(TokenBucket(1, per=60))
    first = await limiter.acquire()
    session = aiohttp.ClientSession(server.url, middlewares=(quota_middleware(limiter),))
    request = asyncio.create_task(session.get("/v2/droplets"))
    await eventually(lambda: limiter.stats().waiting == 1)
    await session.close()
    first.release()
    with pytest.raises(RuntimeError, match=r"^Session is closed$"):
        await request
    assert not server.received
    assert limiter.stats().granted == 0
    assert limiter.stats().available == (1,)


async def test_a_reserve_is_left_for_others(server: Server) -> None:
    server.answer_with(lambda _: image_reply(7))
    limiter = RateLimiter(TokenBucket(3, per=60))
    middleware = quota_middleware(limiter, max_wait=0, reserve=2)
    async with aiohttp.ClientSession(server.url, middlewares=(middleware,)) as session:
        assert (await session.get("/")).status == 200
        with pytest.raises(errors.QuotaWaitError):
            await session.get("/")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"limiter": object()}, TypeError, "limiter must have the methods"),
        ({"max_wait": -1}, ValueError, "max_wait"),
        ({"max_wait": "1"}, TypeError, "max_wait"),
        ({"reserve": 250}, ValueError, "reserve"),
        ({"reserve": True}, TypeError, "reserve"),
    ],
)
def test_bad_arguments_of_the_middleware_are_refused(
    arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    arguments.setdefault("limiter", RateLimiter())
    with pytest.raises(error, match=says):
        quota_middleware(**arguments)
