"""Sessions, loops, closing and cancelling: the user's session is not changed, and nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import gzip
import json
import pickle
import random
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from do_images_async import (
    FileRateLimiter,
    Image,
    ImagesAPI,
    RateLimiter,
    RetryPolicy,
    TokenBucket,
    errors,
    fan_out,
)
from tests.conftest import FAST, ONCE, TOKEN
from tests.support.leaks import assert_not_shown
from tests.support.servers import (
    HANG,
    Answer,
    Held,
    Received,
    Server,
    content,
    eventually,
    image_document,
    image_reply,
    listing,
    refusal,
    reply,
    unused_port,
)

# --- sessions ---


async def test_the_clients_own_session_is_closed_with_it(server: Server) -> None:
    server.script(image_reply(1))
    async with ImagesAPI(TOKEN, base_url=server.url) as api:
        await api.get(1)
        assert server.open_connections == 1
    await eventually(lambda: server.open_connections == 0)


async def test_the_session_is_closed_when_the_body_raises(server: Server) -> None:
    server.script(refusal(404))
    with contextlib.suppress(errors.NotFoundError):
        async with ImagesAPI(TOKEN, base_url=server.url) as api:
            await api.get(1)
    assert server.connections == 1
    await eventually(lambda: server.open_connections == 0)


async def test_row_71_a_borrowed_session_is_never_closed(server: Server) -> None:
    server.script(image_reply(1), image_reply(2))
    async with aiohttp.ClientSession() as session:
        async with ImagesAPI(TOKEN, session=session, base_url=server.url) as api:
            await api.get(1)
        assert not session.closed
        async with ImagesAPI(TOKEN, session=session, base_url=server.url) as api:
            await api.get(2)
        assert not session.closed
        assert server.connections == 1


async def test_a_borrowed_session_may_have_any_headers_and_cookies(server: Server) -> None:
    body = json.dumps({"image": image_document(1)}).encode()
    server.script(
        content(gzip.compress(body), headers={"content-encoding": "gzip"}),
        refusal(503),
        image_reply(2, status=202, name="a"),
        refusal(404),
    )
    passed: list[str] = []

    async def middleware(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        passed.append(request.method)
        request.headers["Authorization"] = "Bearer theirs"
        return await handler(request)

    def refuse(_: ClientResponse) -> Any:
        raise AssertionError("the session's own raise_for_status ran")

    async with aiohttp.ClientSession(
        base_url="https://elsewhere.example/",
        headers={"Authorization": "Bearer theirs", "Accept": "text/html", "X-Theirs": "kept"},
        raise_for_status=refuse,
        middlewares=[middleware],
        timeout=aiohttp.ClientTimeout(total=0.000_001),
        auto_decompress=False,
        json_serialize=lambda value: f"theirs {value}",
    ) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, retry=FAST)
        assert (await api.get(1)).id == 1
        assert (await api.update(2, name="a")).id == 2
        with pytest.raises(errors.NotFoundError):
            await api.get(3)
    for request in server.received:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert request.headers["accept"] == "application/json"
        assert request.headers["x-theirs"] == "kept"
    assert server.received[1].json() == {"name": "a"}
    assert passed == ["GET", "PUT", "PUT", "GET"]


@pytest.mark.parametrize(
    "headers", [{"X-A": "b\r\nc"}, {"X-A": "hunter2\0"}, {"X\n": "b"}, {"X-A": 5}], ids=repr
)
async def test_a_session_whose_headers_can_not_be_sent_is_a_clear_error(
    server: Server, headers: dict[str, Any]
) -> None:
    limiter = RateLimiter(TokenBucket(1, per=60))
    async with aiohttp.ClientSession(headers=headers) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, limiter=limiter, retry=FAST)
        for call in (lambda: api.get(1), lambda: api.update(1, name="a"), lambda: api.delete(1)):
            with pytest.raises(errors.ClientStateError, match="header of the session") as caught:
                await call()
            assert not caught.value.outcome_unknown
            assert "hunter2" not in str(caught.value)
            assert_not_shown(TOKEN, caught.value)
    assert limiter.next_permit_in() == 0
    assert not server.received


async def test_a_session_whose_length_is_no_number_can_not_write(server: Server) -> None:
    limiter = RateLimiter(TokenBucket(1, per=60))
    async with aiohttp.ClientSession(headers={"Content-Length": "many"}) as session:
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, limiter=limiter, retry=FAST)
        with pytest.raises(errors.ClientStateError, match="header of the session") as caught:
            await api.update(1, name="a")
    assert not caught.value.outcome_unknown
    assert limiter.next_permit_in() == 0
    assert not server.received


async def test_a_custom_limiter_may_raise_any_exception(server: Server) -> None:
    class Broken(RateLimiter):
        async def acquire(self, *, max_wait: float | None = None, reserve: int = 0) -> Any:
            raise ValueError("mine")

    async with ImagesAPI(TOKEN, base_url=server.url, limiter=Broken()) as api:
        with pytest.raises(ValueError, match="mine"):
            await api.get(1)


async def test_calls_of_the_session_itself_do_not_carry_the_token(server: Server) -> None:
    server.script(image_reply(1), reply({}))
    async with aiohttp.ClientSession() as session:
        await ImagesAPI(TOKEN, session=session, base_url=server.url).get(1)
        async with session.get(f"{server.url}/other"):
            pass
    assert "authorization" not in server.received[1].headers


async def test_row_64_a_session_closed_by_its_owner_is_a_clear_error(server: Server) -> None:
    session = aiohttp.ClientSession()
    api = ImagesAPI(TOKEN, session=session, base_url=server.url)
    await session.close()
    with pytest.raises(errors.ClientStateError, match="session"):
        await api.get(1)


async def test_row_64_a_session_closed_while_a_call_waits_for_quota_is_a_clear_error(server: Server) -> None:
    server.script(image_reply(1))
    session = aiohttp.ClientSession()
    limiter = RateLimiter(TokenBucket(1, per=1, margin=0))
    api = ImagesAPI(TOKEN, session=session, base_url=server.url, limiter=limiter, retry=FAST)
    await api.get(1)
    call = asyncio.create_task(api.get(2))
    await eventually(lambda: limiter.stats().waiting == 1)
    await session.close()
    with pytest.raises(errors.ClientStateError, match="session"):
        await call
    assert len(server.received) == 1


async def test_row_63_proxies_netrc_and_cookies_are_ignored(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login theirs password theirs\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")
    answer = image_reply(1).data.replace(b"\r\n", b"\r\nset-cookie: a=b\r\n", 1)
    server.script(Answer(answer), Answer(answer))
    async with ImagesAPI(TOKEN, base_url=server.url, retry=ONCE) as api:
        await api.get(1)
        await api.get(1)
    for request in server.received:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert "cookie" not in request.headers


# --- closing ---

CALLS: dict[str, Callable[[ImagesAPI], Any]] = {
    "get": lambda api: api.get(1),
    "list": lambda api: anext(api.list()),
    "list_page": lambda api: api.list_page(),
    "create": lambda api: api.create_custom(name="a", url="https://example.com/a", region="nyc3"),
    "update": lambda api: api.update(1, name="a"),
    "delete": lambda api: api.delete(1),
    "wait": lambda api: api.wait_until_available(1),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("used", [True, False])
async def test_row_64_a_closed_client_says_so(
    server: Server, call: Callable[[ImagesAPI], Any], used: bool
) -> None:
    server.answer_with(lambda _: image_reply(1))
    api = ImagesAPI(TOKEN, base_url=server.url)
    if used:
        await api.get(1)
    await api.aclose()
    with pytest.raises(errors.ClientStateError, match="closed"):
        await call(api)
    with pytest.raises(errors.ClientStateError, match="closed"):
        await call(api.with_options(timeout=1))
    assert len(server.received) == int(used)


async def test_row_73_closing_twice_or_unused_does_nothing(server: Server) -> None:
    api = ImagesAPI(TOKEN, base_url=server.url)
    await api.aclose()
    await api.aclose()
    async with ImagesAPI(TOKEN, base_url=server.url) as other:
        await other.aclose()
    assert not server.connections


async def test_a_client_that_can_not_be_used_is_not_entered(server: Server, api: ImagesAPI) -> None:
    async with ImagesAPI(TOKEN, base_url=server.url) as closed:
        pass
    for client in (closed, closed.with_options(timeout=1)):
        with pytest.raises(errors.ClientStateError, match="the client is closed"):
            await client.__aenter__()
    server.script(image_reply(1))
    await api.get(1)
    with pytest.raises(errors.ClientStateError, match="the client belongs to another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(api.__aenter__()))


async def test_a_client_and_its_copies_are_closed_with_the_outermost_block(server: Server) -> None:
    server.answer_with(lambda _: image_reply(1))
    async with ImagesAPI(TOKEN, base_url=server.url) as api:
        async with api.with_options(timeout=5) as copied, copied.with_options(retry=ONCE) as another, api:
            await another.get(1)
        await api.get(1)
        assert server.connections == 1
    with pytest.raises(errors.ClientStateError, match="the client is closed"):
        await copied.get(1)


async def test_a_copy_of_a_client_that_nobody_entered_closes_it(server: Server) -> None:
    server.answer_with(lambda _: image_reply(1))
    async with ImagesAPI(TOKEN, base_url=server.url).with_options(timeout=5) as copied:
        await copied.get(1)
    api = ImagesAPI(TOKEN, base_url=server.url)
    async with api.with_options(timeout=5) as copied:
        await copied.get(1)
    with pytest.raises(errors.ClientStateError, match="the client is closed"):
        await api.get(1)


async def test_aclose_closes_within_a_block_at_once(server: Server) -> None:
    async with ImagesAPI(TOKEN, base_url=server.url) as api:
        async with api.with_options(timeout=5) as copied:
            await copied.aclose()
        with pytest.raises(errors.ClientStateError, match="the client is closed"):
            await api.get(1)


async def use_a_file_limiter(_: ImagesAPI) -> None:
    async with FileRateLimiter("never-made.db") as limiter:
        await limiter.acquire()


WITHOUT_ASYNCIO: dict[str, Callable[[ImagesAPI], Any]] = {
    **CALLS,
    "enter": ImagesAPI.__aenter__,
    "list_pages": lambda api: anext(api.list_pages()),
    "get_many": lambda api: anext(api.get_many([1])),
    "fan_out": lambda api: anext(fan_out(api.get, [1])),
    "ensure_regions": lambda api: anext(api.ensure_regions(1, ["ams3"])),
    "transfer_to_regions": lambda api: anext(api.actions.transfer_to_regions(1, ["ams3"])),
    "wait for an action": lambda api: api.actions.wait(1, 2),
    "file limiter": use_a_file_limiter,
}


@pytest.mark.parametrize("call", WITHOUT_ASYNCIO.values(), ids=WITHOUT_ASYNCIO.keys())
def test_without_asyncio_an_error_names_it(call: Callable[[ImagesAPI], Any]) -> None:
    """Trio runs coroutines likewise, without an event loop of asyncio."""
    with pytest.raises(errors.ClientStateError, match=r"no event loop of asyncio .* use its asyncio backend"):
        call(ImagesAPI(TOKEN)).send(None)


@pytest.mark.parametrize("borrowed", [True, False])
async def test_closing_ends_calls_in_flight(server: Server, borrowed: bool) -> None:
    server.script(HANG, HANG)
    async with aiohttp.ClientSession() as session:
        limiter = RateLimiter(slow_start=False)  # both calls at once
        api = ImagesAPI(TOKEN, base_url=server.url, session=session if borrowed else None, limiter=limiter)
        reading = asyncio.create_task(api.get(1))
        writing = asyncio.create_task(CALLS["create"](api))
        await eventually(lambda: len(server.received) == 2)
        await api.aclose()
        results = await asyncio.wait_for(asyncio.gather(reading, writing, return_exceptions=True), 5)
        assert [type(result) for result in results] == [errors.ClientStateError] * 2
        assert [getattr(result, "outcome_unknown", None) for result in results] == [False, True]
        await eventually(lambda: server.open_connections == 0)
        assert session.closed is False
    assert api.limiter.stats().in_flight == 0


async def test_row_70_closing_ends_calls_in_the_queue(server: Server) -> None:
    server.script(image_reply(1))
    limiter = RateLimiter(TokenBucket(1, per=60))
    api = ImagesAPI(TOKEN, base_url=server.url, limiter=limiter)
    await api.get(1)
    waiting = [asyncio.create_task(CALLS["delete"](api)) for _ in range(5)]
    await eventually(lambda: limiter.stats().waiting == 5)
    await api.aclose()
    results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert [type(result) for result in results] == [errors.ClientStateError] * 5
    assert not any(getattr(result, "outcome_unknown", None) for result in results)
    stats = limiter.stats()
    assert (stats.waiting, stats.in_flight, stats.granted) == (0, 0, 1)
    assert len(server.received) == 1


async def test_row_70_closing_ends_calls_between_attempts(server: Server) -> None:
    server.script(refusal(503, headers={"retry-after": "60"}))
    api = ImagesAPI(TOKEN, base_url=server.url, retry=RetryPolicy(base=0, cap=60))
    call = asyncio.create_task(api.delete(1))
    await eventually(lambda: len(server.received) == 1 and not api.limiter.stats().in_flight)
    await asyncio.sleep(0.02)
    await api.aclose()
    with pytest.raises(errors.ClientStateError) as caught:
        await asyncio.wait_for(call, 5)
    assert caught.value.outcome_unknown


async def test_closing_ends_a_listing_and_its_prefetch(server: Server) -> None:
    catalogue = listing(100)
    never = asyncio.Event()

    async def answer(request: Received) -> Answer:
        if int(request.query["page"]) > 1:
            await never.wait()
        answer = catalogue(request)
        assert isinstance(answer, Answer)
        return answer

    server.answer_with(answer)
    api = ImagesAPI(TOKEN, base_url=server.url)
    before = asyncio.all_tasks()
    pages = api.list_pages(per_page=10)
    await anext(pages)
    second = asyncio.ensure_future(anext(pages))
    await eventually(lambda: len(server.received) > 1)
    await api.aclose()
    with pytest.raises(errors.ClientStateError):
        await asyncio.wait_for(second, 5)
    assert asyncio.all_tasks() - before - server.tasks <= {second}


# --- loops and tasks ---


async def test_row_65_another_event_loop_is_a_clear_error(server: Server, api: ImagesAPI) -> None:
    server.script(image_reply(1), image_reply(1))
    await api.get(1)

    def elsewhere() -> Image:
        return asyncio.run(api.get(1))

    with pytest.raises(errors.ClientStateError, match="event loop"):
        await asyncio.to_thread(elsewhere)
    assert len(server.received) == 1
    assert (await api.get(1)).id == 1


async def test_row_65_a_client_is_closed_in_its_own_loop(server: Server, api: ImagesAPI) -> None:
    server.script(image_reply(1), image_reply(1))
    await api.get(1)
    with pytest.raises(errors.ClientStateError, match="another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(api.aclose()))
    assert (await api.get(1)).id == 1
    await api.aclose()
    with pytest.raises(errors.ClientStateError, match="closed"):
        await api.get(1)


async def test_row_65_a_client_whose_loop_is_closed_is_closed_from_anywhere(server: Server) -> None:
    server.script(image_reply(1))

    async def call() -> ImagesAPI:
        async with aiohttp.ClientSession() as session:
            api = ImagesAPI(TOKEN, base_url=server.url, session=session)
            await api.get(1)
            return api

    api = await asyncio.to_thread(lambda: asyncio.run(call()))
    await api.aclose()
    await api.aclose()
    with pytest.raises(errors.ClientStateError, match="closed"):
        await api.get(1)


async def test_row_62_a_client_is_neither_pickled_nor_deep_copied(api: ImagesAPI) -> None:
    for part in (api, api.actions, api.account_transfers, api.with_options(timeout=1)):
        for duplicate in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="a client is neither pickled nor deep-copied"):
                duplicate(part)
    assert copy.copy(api).limiter is api.limiter


async def test_a_client_may_be_made_outside_of_any_loop(server: Server) -> None:
    server.script(image_reply(1))
    api = await asyncio.to_thread(lambda: ImagesAPI(TOKEN, base_url=server.url))
    assert (await api.get(1)).id == 1
    await api.aclose()


async def test_row_74_1000_calls_cancelled_at_random_moments_leave_nothing_behind(server: Server) -> None:
    generator = random.Random(20)

    async def answer(_: Received) -> Answer:
        await asyncio.sleep(generator.uniform(0, 0.02))
        whole = image_reply(1).data
        return (
            Answer(whole[: generator.randrange(1, len(whole))], "hang")
            if generator.random() < 0.2
            else Answer(whole)
        )

    server.answer_with(answer)
    before = asyncio.all_tasks()
    connector = aiohttp.TCPConnector(limit=20)
    limiter = RateLimiter(TokenBucket(40, per=0.02, margin=0), grace=0.0)
    async with aiohttp.ClientSession(connector=connector) as session:
        api = ImagesAPI(TOKEN, base_url=server.url, session=session, limiter=limiter, retry=FAST)
        calls = [asyncio.create_task(api.get(1)) for _ in range(1000)]
        loop = asyncio.get_running_loop()
        for call in calls:
            loop.call_later(generator.uniform(0, 0.6), call.cancel)
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} <= {Image, asyncio.CancelledError}
        stats = limiter.stats()
        assert (stats.in_flight, stats.waiting) == (0, 0)
        # asyncio may be accepting a connection for the server, in a task that the server does not know yet.
        await eventually(lambda: not asyncio.all_tasks() - before - server.tasks)
        server.answer_with(lambda _: image_reply(1))
        # Every place in the pool is free again, and every token comes back.
        await asyncio.wait_for(asyncio.gather(*(api.get(1) for _ in range(30))), 5)
        await eventually(lambda: limiter.stats().available == (40,))
    await eventually(lambda: server.open_connections == 0)


async def test_row_68_a_call_cancelled_in_its_body_does_not_reuse_the_connection(
    server: Server, api: ImagesAPI
) -> None:
    server.script(Answer(image_reply(1).data[:-20], "hang"), image_reply(2))
    call = asyncio.create_task(api.get(1))
    await eventually(lambda: api.limiter.stats().available[0] == 249 and not api.limiter.stats().in_flight)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await api.get(2)).id == 2
    assert server.connections == 2
    await eventually(lambda: server.open_connections == 1)


async def test_the_callers_own_deadline_is_the_callers_own_error(server: Server, api: ImagesAPI) -> None:
    server.script(HANG)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.02):
            await api.get(1)
    assert not isinstance(caught.value, errors.DOImagesError)


async def test_row_69_a_listing_left_unfinished_leaves_nothing_behind(server: Server, api: ImagesAPI) -> None:
    server.answer_with(listing(1000))
    before = asyncio.all_tasks()
    async for image in api.list(per_page=10):
        if image.id == 25:
            break
    gc.collect()
    await eventually(lambda: not asyncio.all_tasks() - before - server.tasks)
    assert api.limiter.stats().waiting == 0


async def test_many_calls_at_once_share_one_client(server: Server) -> None:
    release = asyncio.Event()
    server.script(*[Held(image_reply(1), release)] * 60)
    limiter = RateLimiter(slow_start=False)
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter) as api:
        calls = [asyncio.create_task(api.get(1)) for _ in range(60)]
        await eventually(lambda: len(server.received) == 60)
        assert limiter.stats().in_flight == 60
        release.set()
        await asyncio.gather(*calls)
