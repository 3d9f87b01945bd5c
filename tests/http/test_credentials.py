"""Tokens that a function provides: read once, renewed after a 401, shown nowhere."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from do_images_async import ImagesAPI, RateLimiter, errors
from do_images_async.events import AttemptEnded, Event
from tests.conftest import FAST, ONCE, TOKEN
from tests.support.leaks import assert_not_shown
from tests.support.servers import Answer, Held, Received, Script, Server, eventually, image_reply, refusal

OLD = "dop_v1_01dc0de" + "a1b2c3d4e5f60718" * 3
NEW = "dop_v1_9e3c0de" + "5d6e7f8091a2b3c4" * 3


Source = Callable[[], str | Awaitable[str]]


class Vault:
    """A token function that returns the newest of some tokens, and counts its calls."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    def read(self) -> str:
        self.asked += 1
        return self.tokens[min(self.asked, len(self.tokens)) - 1]

    async def fetch(self) -> str:
        token = self.read()
        await self.open.wait()
        return token


def accepting(token: str, seen: Counter[str] | None = None) -> Script:
    def answer(request: Received) -> Answer:
        given = request.headers["authorization"].removeprefix("Bearer ")
        if seen is not None:
            seen[given] += 1
        return image_reply(7) if given == token else refusal(401, id="Unauthorized")

    return answer


@pytest.mark.parametrize("kind", ["function", "coroutine function", "file"])
async def test_the_token_function_is_called_once_for_each_client(
    server: Server, kind: str, tmp_path: Path
) -> None:
    server.answer_with(lambda _: image_reply(7))
    vault = Vault(NEW)
    (tmp_path / "token").write_text(NEW, encoding="utf-8")
    sources: dict[str, Source] = {
        "function": vault.read,
        "coroutine function": vault.fetch,
        "file": (tmp_path / "token").read_text,
    }
    async with ImagesAPI(sources[kind], base_url=server.url) as api:
        assert vault.asked == 0
        await asyncio.gather(*(api.get(7) for _ in range(20)))
        await api.get(7)
    assert vault.asked == (kind != "file")
    assert {request.headers["authorization"] for request in server.received} == {f"Bearer {NEW}"}


async def test_after_a_401_the_token_function_is_called_once_for_all_calls_in_flight(server: Server) -> None:
    seen: Counter[str] = Counter()
    refused = asyncio.Event()
    server.script(*[Held(refusal(401), refused)] * 20)
    server.answer_with(accepting(NEW, seen))
    vault = Vault(OLD, NEW)
    limiter = RateLimiter(slow_start=False)
    async with ImagesAPI(vault.fetch, base_url=server.url, limiter=limiter, retry=ONCE) as api:
        calls = [asyncio.create_task(api.get(7)) for _ in range(20)]
        await eventually(lambda: len(server.received) == 20)
        vault.open.clear()
        refused.set()
        await eventually(lambda: vault.asked == 2)
        vault.open.set()
        await asyncio.gather(*calls)
    assert vault.asked == 2
    assert seen == {NEW: 20}


async def test_a_write_after_a_401_is_retried_with_the_new_token(server: Server) -> None:
    server.script(refusal(401), image_reply(7, status=202))
    vault = Vault(OLD, NEW)
    async with ImagesAPI(vault.read, base_url=server.url, retry=ONCE) as api:
        await api.create_custom(name="image 7", url="https://example.com/a.img", region="nyc3")
    assert [request.headers["authorization"] for request in server.received] == [
        f"Bearer {OLD}",
        f"Bearer {NEW}",
    ]


@pytest.mark.parametrize("tokens", [(OLD,), (OLD, NEW, OLD, NEW)], ids=["the same", "another each time"])
async def test_a_call_whose_new_token_is_refused_too_raises(server: Server, tokens: tuple[str, ...]) -> None:
    server.answer_with(lambda _: refusal(401))
    vault = Vault(*tokens)
    async with ImagesAPI(vault.read, base_url=server.url, retry=FAST) as api:
        with pytest.raises(errors.AuthenticationError):
            await api.get(7)
        assert vault.asked == 2
        assert len(server.received) == min(len(tokens), 2)


async def test_the_default_limiter_is_that_of_the_current_token(server: Server) -> None:
    server.answer_with(accepting(NEW))
    vault = Vault(OLD, NEW)
    api = ImagesAPI(vault.read, base_url=server.url)
    old, new = ImagesAPI(OLD, base_url=server.url), ImagesAPI(NEW, base_url=server.url)
    async with api, old, new:
        await api.get(7)
        assert api.limiter is new.limiter
        assert api.with_options(timeout=5).limiter is new.limiter
        assert (old.limiter.stats().granted, new.limiter.stats().granted) == (1, 1)


async def test_a_limiter_that_is_passed_in_serves_every_token(server: Server) -> None:
    server.answer_with(accepting(NEW))
    limiter = RateLimiter()
    async with ImagesAPI(Vault(OLD, NEW).read, base_url=server.url, limiter=limiter) as api:
        assert api.limiter is limiter
        await api.get(7)
        assert api.limiter is limiter
    assert limiter.stats().granted == 2


async def test_a_call_that_waited_for_quota_uses_the_newest_token(server: Server) -> None:
    server.answer_with(accepting(NEW))
    vault = Vault(OLD, NEW)
    async with ImagesAPI(vault.read, base_url=server.url) as api:
        other = ImagesAPI(OLD, base_url=server.url)
        held = [await other.limiter.acquire(max_wait=0) for _ in range(249)]
        first = asyncio.create_task(api.get(7))
        await eventually(lambda: vault.asked >= 1)
        late = [asyncio.create_task(api.get(7)) for _ in range(3)]
        await first
        for permit in held:
            permit.release()
        await asyncio.gather(*late)
    sent = Counter(request.headers["authorization"] for request in server.received)
    assert sent == {f"Bearer {OLD}": 1, f"Bearer {NEW}": 4}


def fail() -> str:
    secret = TOKEN
    raise RuntimeError(f"the vault says {secret}")


def deny() -> str:
    raise PermissionError(13, "Permission denied", f"/run/{TOKEN}")


async def hang() -> str:
    await asyncio.Event().wait()
    return TOKEN


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        (fail, "raised RuntimeError"),
        (deny, "raised PermissionError: Permission denied"),
        (hang, "did not return within 0.5 s"),
        (lambda: None, "token must be a str, not NoneType"),
        (lambda: f"{TOKEN}\n", "visible ASCII"),
    ],
    ids=["raises", "may not", "hangs", "nothing", "a line"],
)
@pytest.mark.parametrize("first", [True, False], ids=["at the first call", "after a 401"])
async def test_a_token_function_that_fails_raises_an_error_without_a_secret(
    server: Server, provider: object, says: str, first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer_with(lambda _: refusal(401))
    ends: list[Event] = []
    asked = 0

    def source() -> object:
        nonlocal asked
        asked += 1
        return OLD if asked == 1 and not first else provider()  # type: ignore[operator]

    timeout = 0.5 if provider is hang else 30.0
    async with ImagesAPI(source, base_url=server.url, timeout=timeout, on_event=ends.append) as api:  # type: ignore[arg-type]
        with pytest.raises(errors.TokenError, match=says) as caught:
            await api.get(7)
        assert_not_shown(TOKEN, caught.value)
        assert TOKEN not in repr(api) + caplog.text
    assert len(server.received) == (not first)
    assert len([end for end in ends if isinstance(end, AttemptEnded)]) == (not first)


async def test_a_token_function_that_failed_is_called_by_the_next_call(server: Server) -> None:
    server.answer_with(lambda _: image_reply(7))
    answers: Iterator[Exception | str] = iter([OSError("away"), NEW])

    def source() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with ImagesAPI(source, base_url=server.url) as api:
        with pytest.raises(errors.TokenError):
            await api.get(7)
        assert (await api.get(7)).id == 7


async def test_a_cancelled_call_does_not_cancel_the_token_function_of_others(server: Server) -> None:
    server.answer_with(lambda _: image_reply(7))
    vault = Vault(NEW)
    vault.open.clear()
    async with ImagesAPI(vault.fetch, base_url=server.url) as api:
        first, second = asyncio.create_task(api.get(7)), asyncio.create_task(api.get(7))
        await eventually(lambda: vault.asked == 1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        vault.open.set()
        assert (await second).id == 7
    assert vault.asked == 1


async def test_closing_the_client_ends_the_wait_for_a_token(server: Server) -> None:
    vault = Vault(NEW)
    vault.open.clear()
    api = ImagesAPI(vault.fetch, base_url=server.url)
    call = asyncio.create_task(api.get(7))
    await eventually(lambda: vault.asked == 1)
    await api.aclose()
    with pytest.raises(errors.ClientStateError):
        await call
    assert not [task for task in asyncio.all_tasks() - {asyncio.current_task()} if "provided" in repr(task)]


async def test_nothing_of_a_provided_token_is_shown(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    server.script(refusal(401, headers={"x-request-id": OLD}), refusal(403, headers={"x-request-id": NEW}))
    vault = Vault(OLD, NEW)
    async with ImagesAPI(vault.fetch, base_url=server.url) as api:
        with pytest.raises(errors.PermissionDeniedError) as caught:
            await api.get(7)
        shown = caplog.text + repr(api) + "".join(repr(vars(record)) for record in caplog.records)
    for token in (OLD, NEW):
        assert_not_shown(token, caught.value)
        assert token not in shown
