"""Secrets: no part of a token, and none of a constructor's arguments, is shown (rows 91 and 92)."""

from __future__ import annotations

import asyncio
import base64
import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from do_images_async import FileRateLimiter, ImagesAPI, RateLimiter, RetryPolicy, TokenBucket, errors
from do_images_async._credentials import Token
from do_images_async.redis import RedisRateLimiter
from tests.conftest import FAST, TOKEN
from tests.support.leaks import assert_not_shown
from tests.support.servers import Answer, Server, content, image_document, image_reply, raw, refusal, reply

SHORTEST = 8
"""A part of the token that counts as one."""

PARTS = {TOKEN[start : start + SHORTEST] for start in range(len(TOKEN) - SHORTEST + 1)}


def assert_no_part_is_shown(text: str) -> None:
    found = {part for part in PARTS if part in text}
    assert not found, text


BEARER = f"Authorization: Bearer {TOKEN}"
ECHOED_IN: dict[str, Callable[[str], Answer]] = {
    "in the message": lambda text: reply({"id": "x", "message": f"Bearer {text}"}, status=422),
    "in an object": lambda text: reply({"id": "x", "message": {"header": [text]}}, status=422),
    "in the HTML": lambda text: content(f"<pre>{text}</pre>".encode(), status=502),
}
ECHOES: dict[str, Answer] = {
    "in a header that is too long": raw(
        b"HTTP/1.1 200 OK\r\nx-echo: " + b"a" * 8150 + BEARER.encode() + b"b" * 900 + b"\r\n\r\n"
    ),
    "in a header without a colon": raw(f"HTTP/1.1 200 OK\r\n{BEARER[13:]}\r\n\r\n".encode()),
    "in a status line": raw(f"HTTP/1.1 2000 {BEARER}\r\n\r\n".encode()),
    "in no HTTP at all": raw(f"{BEARER}\r\n\r\n".encode()),
    "in half a head": raw(f"HTTP/1.1 200 OK\r\nx-echo: {TOKEN}".encode()),
    "in a chunk's size": raw(f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{TOKEN}\r\n".encode()),
    "in a content-encoding": content(b"x", headers={"content-encoding": f"gzip, {TOKEN}"}),
    "in a content-length": raw(f"HTTP/1.1 200 OK\r\ncontent-length: {TOKEN}\r\n\r\n".encode()),
    "in a reason": raw(f"HTTP/1.1 403 {TOKEN}\r\ncontent-length: 0\r\n\r\n".encode()),
    "as the value of a field": reply({"image": {"id": TOKEN[:40], "created_at": TOKEN[5:50]}}),
    "as the name of a field": reply({"image": {TOKEN[:40]: 1}}),
    "as a request id": refusal(503, headers={"x-request-id": TOKEN[3:44]}),
    "as an id": refusal(503, id=TOKEN[:-1]),
    "in a location": content(b"", status=302, headers={"location": f"https://x/?{TOKEN}"}),
    **{
        f"{name} of an error, from {start} to {end}": answer(TOKEN[start:end])
        for start, end in ((0, 64), (0, 40), (7, 64), (20, 30))
        for name, answer in ECHOED_IN.items()
    },
    **{
        f"after {length} bytes of an error": content(
            b"<html>" + b"a" * length + TOKEN.encode() * 100, status=502
        )
        for length in (0, 150, 170, 190, 760, 780, 3950, 3990)
    },
    **{
        f"after {length} characters of a message": reply(
            {"id": "x", "message": "a" * length + TOKEN * 70}, status=422
        )
        for length in (0, 960, 990, 3950, 3990)
    },
}


@pytest.mark.parametrize("answer", ECHOES.values(), ids=ECHOES.keys())
async def test_row_91_no_part_of_a_token_that_the_server_echoes_is_shown(
    server: Server, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer_with(lambda _: answer)
    async with ImagesAPI(TOKEN, base_url=server.url, retry=FAST) as api:
        with pytest.raises(errors.DOImagesError) as caught:
            await api.get(7)
    error = caught.value
    assert_not_shown(TOKEN, error)
    assert_no_part_is_shown(
        f"{error} {error!r} {error.args} {vars(error)} {error.__cause__!r} {error.__context__!r}"
    )
    assert_no_part_is_shown("".join(traceback.format_exception(error)))
    assert_no_part_is_shown(caplog.text + "".join(str(vars(record)) for record in caplog.records))


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("", ""),
        ("nothing of it", "nothing of it"),
        (TOKEN, "***"),
        (f"Bearer {TOKEN}!", "Bearer ***!"),
        (TOKEN[:30], "***"),
        (f"a {TOKEN[10:20]} b {TOKEN[-9:]}", "a *** b ***"),
        (TOKEN[:7], TOKEN[:7]),
        (TOKEN * 2, "******"),
    ],
)
def test_a_token_is_taken_out_of_a_text_in_whole_and_in_parts(text: str, clean: str) -> None:
    assert Token(TOKEN).redact(text) == clean


def test_a_short_token_is_taken_out_as_a_whole() -> None:
    assert Token("abc").redact("abcdef ab") == "***def ab"


ENCODED: dict[str, str] = {
    "percent-encoded": "".join(f"%{ord(c):02x}" for c in TOKEN),
    "escaped for JSON": "".join(f"\\u{ord(c):04x}" for c in TOKEN),
    "escaped for HTML": "".join(f"&#{ord(c)};" for c in TOKEN),
    **{
        f"in base64 after {length} bytes": base64.b64encode(b"Bearer: "[:length] + TOKEN.encode()).decode()
        for length in (0, 7, 8)
    },
}


@pytest.mark.parametrize("encoded", ENCODED.values(), ids=ENCODED.keys())
async def test_row_91_a_token_that_the_server_echoes_in_another_encoding_is_not_shown(
    server: Server, encoded: str
) -> None:
    server.answer_with(lambda _: content(f"<pre>you sent {encoded}</pre>".encode(), status=403))
    async with ImagesAPI(TOKEN, base_url=server.url, retry=FAST) as api:
        with pytest.raises(errors.PermissionDeniedError, match="you sent") as caught:
            await api.get(7)
    assert encoded[12:36] not in str(caught.value)
    assert "***" in str(caught.value)


WAITED_FOR: dict[str, tuple[Answer, type[errors.DOImagesError]]] = {
    "an import's reason": (
        reply({"image": image_document(7, status="deleted", error_message=f"Bearer {TOKEN}")}),
        errors.ImportFailedError,
    ),
    "a part of a token in an import's reason": (
        reply({"image": image_document(7, status="deleted", error_message=f"Bearer {TOKEN[:30]}")}),
        errors.ImportFailedError,
    ),
    "an escaped token in an import's reason": (
        content(
            b'{"image": {"id": 7, "status": "deleted", "error_message": "'
            + ENCODED["escaped for JSON"].encode()
            + b'"}}'
        ),
        errors.ImportFailedError,
    ),
    "a state": (reply({"image": image_document(7, status=f"Bearer {TOKEN}")}), errors.WaitTimeoutError),
    "another image": (image_reply(8, name=TOKEN), errors.WaitTimeoutError),
    "a body that is no image": (reply({"oops": f"Bearer {TOKEN}"}), errors.DecodeError),
}


async def answer_of(server: Server, answer: Answer) -> errors.DOImagesError:
    """Return the error of a wait for an image."""
    server.answer_with(lambda _: answer)
    async with ImagesAPI(TOKEN, base_url=server.url, retry=FAST) as api:
        with pytest.raises(errors.DOImagesError) as caught:
            await api.wait_until_available(7, timeout=0.3, poll_interval=0.05)
    return caught.value


@pytest.mark.parametrize(("answer", "kind"), WAITED_FOR.values(), ids=WAITED_FOR.keys())
async def test_row_91_a_token_in_a_success_is_not_shown_by_the_error_made_of_it(
    server: Server, answer: Answer, kind: type[errors.DOImagesError], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = await answer_of(server, answer)
    assert isinstance(error, kind)
    assert_not_shown(TOKEN, error)
    assert_no_part_is_shown(f"{error} {error!r} {vars(error)} {caplog.text}")


async def test_row_91_a_failed_action_shows_no_token(server: Server) -> None:
    action = {"id": 5, "status": "errored", "type": TOKEN, "region_slug": TOKEN}
    server.answer_with(lambda _: reply({"action": action}))
    async with ImagesAPI(TOKEN, base_url=server.url, retry=FAST) as api:
        with pytest.raises(errors.ActionFailedError) as caught:
            await api.actions.wait(7, 5)
    assert_not_shown(TOKEN, caught.value)


@pytest.mark.parametrize(
    "body", [{"oops": TOKEN}, {"image": {"id": 8, "name": TOKEN[:30]}}], ids=["no image", "another image"]
)
async def test_row_91_no_local_variable_shows_what_the_server_echoed(server: Server, body: object) -> None:
    server.answer_with(lambda _: reply(body))
    async with ImagesAPI(TOKEN, base_url=server.url, retry=FAST) as api:
        with pytest.raises(errors.DecodeError) as caught:
            await api.get(7)
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in trace.stack if "/do_images_async/" in frame.filename]
    assert len(ours) > 1
    assert_no_part_is_shown("".join(line for frame in ours for line in _locals(frame)))


async def test_row_91_a_token_that_was_replaced_is_not_shown(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = [TOKEN, *(f"dop_v1_{number:064}" for number in range(3))]
    quoting = reply(
        {"id": "forbidden", "message": f"{TOKEN} is old"}, status=403, headers={"x-request-id": TOKEN}
    )
    server.script(*[refusal(401), refusal(403)] * 3, refusal(401), quoting)
    async with ImagesAPI(lambda: tokens.pop(0), base_url=server.url, retry=FAST) as api:
        for _ in range(3):
            with pytest.raises(errors.PermissionDeniedError):
                await api.get(7)
        tokens.append("dop_v1_" + "9" * 64)
        with pytest.raises(errors.PermissionDeniedError, match="is old") as caught:
            await api.get(7)
    assert_not_shown(TOKEN, caught.value)
    assert_no_part_is_shown(f"{caught.value} {caplog.text}")


async def test_row_91_a_request_id_in_the_log_of_a_success_is_redacted(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script(reply({"images": [], "meta": {"total": 0}}, headers={"x-request-id": TOKEN[:50]}))
    async with ImagesAPI(TOKEN, base_url=server.url) as api:
        await api.list_page()
    assert_no_part_is_shown(caplog.text + "".join(str(vars(record)) for record in caplog.records))


class StruckError(BaseException):
    """What a signal handler raises, in whatever code runs just then."""


def struck(_transport: asyncio.Transport, data: bytes) -> None:
    raise StruckError


async def test_row_91_a_signal_handler_that_raises_while_a_request_is_written_shows_no_token(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = RateLimiter(TokenBucket(10, per=60))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter) as api:
        with monkeypatch.context() as patch:
            patch.setattr("asyncio.selector_events._SelectorSocketTransport.write", struck)
            with pytest.raises(StruckError) as caught:
                await api.get(7)
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert_no_part_is_shown("".join(trace.format()))
    assert limiter.stats().available == (9,), "the bytes may be on their way"
    assert limiter.stats().in_flight == 0


# --- constructors that raise ---

PASSWORD = "pass-word-of-a-url"
REDIS_OPTIONS: dict[str, Any] = {
    "lease": -1,
    "grace": "x",
    "store_timeout": 0,
    "namespace": "",
    "on_wait": 5,
    "on_store_failure": "wait",
}
FILE_OPTIONS: dict[str, Any] = {
    "base_url": 5,
    "buckets": 5,
    "lease": -1,
    "grace": "x",
    "store_timeout": 0,
    "on_wait": 5,
    "on_store_failure": "wait",
}
BAD: dict[str, Callable[[], object]] = {
    "a token with a newline": lambda: ImagesAPI(f"{TOKEN}\n"),
    "a base URL with a password": lambda: ImagesAPI(TOKEN, base_url=f"https://user:{PASSWORD}@example.com"),
    "a base URL with a password in its query": lambda: ImagesAPI(
        TOKEN, base_url=f"https://a.example/?{PASSWORD}"
    ),
    "a base URL with an impossible port": lambda: ImagesAPI(
        TOKEN, base_url=f"https://u:{PASSWORD}@a.example:x"
    ),
    "a base URL of http": lambda: ImagesAPI(TOKEN, base_url=f"http://user:{PASSWORD}@a.example"),
    **{
        f"{name}={value!r}": lambda name=name, value=value: ImagesAPI(TOKEN, **{name: value})  # type: ignore[misc]
        for name, value in {
            "session": "session",
            "limiter": 5,
            "retry": 3,
            "timeout": -1,
            "max_wait": "1",
            "user_agent": "a\nb",
            "on_event": "print",
            "converter": 5,
            "allow_insecure_http": "yes",
            "base_url": 5,
        }.items()
    },
    **{
        f"Redis, {name}={value!r}": lambda name=name, value=value: RedisRateLimiter(  # type: ignore[misc]
            Redis(host="nowhere", password=PASSWORD), TOKEN, **{name: value}
        )
        for name, value in REDIS_OPTIONS.items()
    },
    "Redis, a bucket": lambda: RedisRateLimiter(Redis(password=PASSWORD), TOKEN, 5),  # type: ignore[arg-type]
    "Redis, a URL": lambda: RedisRateLimiter(f"redis://:{PASSWORD}@nowhere", TOKEN),  # type: ignore[arg-type]
    "Redis, a token with a newline": lambda: RedisRateLimiter(Redis(password=PASSWORD), f"{TOKEN}\n"),
    **{
        f"a file, {name}={value!r}": lambda name=name, value=value: FileRateLimiter(  # type: ignore[misc]
            "quota.db", token=TOKEN, **{name: value}
        )
        for name, value in FILE_OPTIONS.items()
    },
    "a file, a path": lambda: FileRateLimiter(5, token=TOKEN),  # type: ignore[arg-type]
    "a file, a token with a newline": lambda: FileRateLimiter("quota.db", token=f"{TOKEN}\n"),
    "a limiter": lambda: RateLimiter(grace=-1),
    "a bucket": lambda: TokenBucket(0, per=60),
    "a policy": lambda: RetryPolicy(attempts=0),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
def test_row_92_a_constructor_that_raises_shows_no_secret(make: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    error = caught.value
    for secret in (TOKEN, PASSWORD):
        assert_not_shown(secret, error)
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [line for frame in trace.stack if "do_images_async" in frame.filename for line in _locals(frame)]
    shown = "".join(ours)
    assert TOKEN not in shown
    assert PASSWORD not in shown
    assert "failed" not in shown, "every object that is half built has a repr"


def _locals(frame: traceback.FrameSummary) -> list[str]:
    variables: dict[str, Any] = frame.locals or {}
    return [f"{name}={value}\n" for name, value in variables.items()]


def test_row_92_from_env_shows_no_secret_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    monkeypatch.setenv("DIGITALOCEAN_API_URL", f"https://user:{PASSWORD}@example.com")
    for make in (ImagesAPI, ImagesAPI.from_env):
        with pytest.raises(ValueError, match="DIGITALOCEAN_API_URL") as caught:
            make()
        for secret in (TOKEN, PASSWORD):
            assert_not_shown(secret, caught.value)


@pytest.mark.parametrize("cls", [ImagesAPI, RateLimiter, RedisRateLimiter, FileRateLimiter])
def test_row_92_what_is_half_built_has_a_repr(cls: Any) -> None:
    assert cls.__name__ in repr(cls.__new__(cls))
