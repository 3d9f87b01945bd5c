"""Errors: one tree of exceptions with enough detail, and never the token."""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from do_images_async import Image, ImagesAPI, RateLimit, RateLimiter, TokenBucket, errors
from tests.conftest import FAST, ONCE, TOKEN
from tests.support import calls
from tests.support.leaks import assert_not_shown
from tests.support.servers import (
    CLOSE,
    HANG,
    RESET,
    Answer,
    Server,
    content,
    image_document,
    raw,
    refusal,
    reply,
    unused_port,
)

BY_STATUS = [
    (400, errors.BadRequestError),
    (401, errors.AuthenticationError),
    (402, errors.APIError),
    (403, errors.PermissionDeniedError),
    (404, errors.NotFoundError),
    (405, errors.APIError),
    (409, errors.ConflictError),
    (410, errors.APIError),
    (412, errors.APIError),
    (418, errors.APIError),
    (422, errors.UnprocessableEntityError),
    (429, errors.RateLimitError),
    (451, errors.APIError),
    (500, errors.ServerError),
    (501, errors.ServerError),
    (502, errors.ServerError),
    (503, errors.ServerError),
    (504, errors.ServerError),
    (520, errors.ServerError),
]
HTML = b"<html>\r\n<head><title>502 Bad Gateway</title></head>" + b"<p>edge</p>" * 10_000 + b"</html>"


async def failure(api: ImagesAPI, method: str = "GET") -> errors.DOImagesError:
    return await calls.failure(api.with_options(retry=ONCE), method)


async def api_failure(api: ImagesAPI, method: str = "GET") -> errors.APIError:
    error = await failure(api, method)
    assert isinstance(error, errors.APIError)
    return error


# --- from statuses and bodies ---


@pytest.mark.parametrize(("status", "kind"), BY_STATUS)
async def test_every_status_has_its_class(
    server: Server, api: ImagesAPI, status: int, kind: type[errors.APIError]
) -> None:
    server.script(refusal(status, id="some_id"))
    error = await api_failure(api)
    assert type(error) is kind
    assert (error.status, error.id, error.message) == (status, "some_id", "message of some_id")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/42"), ("PUT", "/42"), ("DELETE", "/42"), ("POST", "")]
)
async def test_row_24_errors_name_the_request(server: Server, api: ImagesAPI, method: str, path: str) -> None:
    server.script(refusal(422, id="unprocessable_entity"))
    error = await api_failure(api, method)
    assert (error.method, error.url) == (method, f"{server.url}/v2/images{path}")
    for part in (method, error.url, "422", "unprocessable_entity", "message of unprocessable_entity"):
        assert part in str(error)


@pytest.mark.parametrize(
    ("body", "header", "expected"),
    [
        ({"request_id": "from-body"}, None, "from-body"),
        ({}, "from-header", "from-header"),
        ({"request_id": None}, "from-header", "from-header"),
        ({"request_id": 5}, "from-header", "from-header"),
        ({"request_id": "from-body"}, "from-header", "from-body"),
        ({}, None, None),
    ],
)
async def test_row_24_the_request_id_is_in_body_or_header(
    server: Server, api: ImagesAPI, body: dict[str, object], header: str | None, expected: str | None
) -> None:
    headers = {"x-request-id": header} if header else {}
    server.script(reply({"id": "server_error", "message": "m"} | body, status=500, headers=headers))
    error = await api_failure(api)
    assert error.request_id == expected
    if expected:
        assert expected in str(error)


async def test_row_26_a_page_of_html_gives_a_short_clear_error(server: Server, api: ImagesAPI) -> None:
    server.script(content(HTML, status=502, headers={"content-type": "text/html", "x-request-id": "r-1"}))
    error = await api_failure(api)
    assert isinstance(error, errors.ServerError)
    assert (error.status, error.id, error.request_id) == (502, None, "r-1")
    assert "502 Bad Gateway" in error.message
    assert len(str(error)) < 500
    assert "\n" not in str(error)


async def test_a_304_is_no_redirect(server: Server, api: ImagesAPI) -> None:
    server.script(content(b"", status=304))
    with pytest.raises(errors.APIError, match="answered 304: not modified, although the client sets no") as e:
        await api.get(42)
    assert "redirect" not in str(e.value)


@pytest.mark.parametrize(
    "body",
    [b"", b"   ", b"{", b"[]", b"null", b'"x"', b'{"id": 5, "message": {}}', b"\xff\xfe\x00", b"[" * 100_000],
    ids=repr,
)
async def test_an_unexpected_error_body_is_an_error_of_its_status(
    server: Server, api: ImagesAPI, body: bytes
) -> None:
    server.script(content(body, status=404))
    error = await api_failure(api)
    assert type(error) is errors.NotFoundError
    assert error.id is None
    assert error.message
    assert len(str(error)) < 500


HOSTILE = "down\r\nCRITICAL root: forged \x1b[2J\u202e"
ESCAPED = r"down\r\nCRITICAL root: forged \x1b[2J\u202e"


async def test_an_error_is_one_printable_line_whatever_the_server_says(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture
) -> None:
    refused = {"id": "un\nwell", "message": HOSTILE, "request_id": "7\x1b[0m"}
    server.script(reply(refused, status=503), reply(refused, status=404))
    with pytest.raises(errors.NotFoundError) as caught:
        await api.get(7)
    assert str(caught.value).endswith(rf"404 un\nwell: {ESCAPED} (request id 7\x1b[0m)")
    assert caught.value.message == HOSTILE
    assert ESCAPED in caplog.messages[0]
    assert all(message.isprintable() for message in caplog.messages)


async def test_a_failed_import_or_action_is_one_printable_line(server: Server, api: ImagesAPI) -> None:
    hostile = {"status": "deleted", "error_message": HOSTILE}
    server.script(reply({"image": image_document(7, **hostile)}))
    with pytest.raises(errors.ImportFailedError) as caught:
        await api.wait_until_available(7, timeout=5)
    assert str(caught.value) == f"image 7 ended as deleted: {ESCAPED}"
    assert caught.value.error_message == HOSTILE
    action = {"id": 1, "type": HOSTILE, "status": "errored", "region_slug": "a\nb"}
    server.script(reply({"action": action}))
    with pytest.raises(errors.ActionFailedError) as failed:
        await api.actions.wait(7, 1, timeout=5)
    assert str(failed.value) == rf"action 1, {ESCAPED} to a\nb, ended as errored"


async def test_an_error_body_with_a_byte_order_mark_is_read(server: Server, api: ImagesAPI) -> None:
    server.script(content(b'\xef\xbb\xbf{"id": "not_found", "message": "gone"}', status=404))
    error = await api_failure(api)
    assert (error.id, error.message) == ("not_found", "gone")


@pytest.mark.parametrize(
    "headers",
    [
        "ratelimit-limit: 5000\r\nratelimit-remaining: 10\r\n",
        "ratelimit-limit: 5000\r\nratelimit-remaining: -1\r\nratelimit-reset: 1444931833\r\n",
        "ratelimit-limit: 5000\r\nratelimit-remaining: 5001\r\nratelimit-reset: 1444931833\r\n",
        "ratelimit-limit: 5000\r\nratelimit-remaining: ten\r\nratelimit-reset: 1444931833\r\n",
        "ratelimit-limit: 5000\r\n" * 2 + "ratelimit-remaining: 10\r\nratelimit-reset: 1444931833\r\n",
        "ratelimit-limit: 5000\r\nratelimit-remaining: 10\r\nratelimit-reset: " + "9" * 400 + "\r\n",
    ],
)
async def test_row_30_invalid_quota_headers_are_ignored(server: Server, api: ImagesAPI, headers: str) -> None:
    head = f"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n{headers}\r\n"
    server.script(raw(head.encode() + b"{}", "keep"))
    error = await api_failure(api)
    assert error.rate_limit is None
    assert api.rate_limit is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [("30", 30.0), ("0", 0.0), ("", None), ("soon", None), ("-5", None), ("nan", None), ("inf", None),
     ("1e3", None), ("\u0663".encode().decode("latin-1"), None)],
)  # fmt: skip
async def test_row_19_retry_after_is_read_as_seconds_and_ignored_when_invalid(
    server: Server, api: ImagesAPI, header: str, expected: float | None
) -> None:
    server.script(refusal(429, headers={"retry-after": header}))
    error = await failure(api)
    assert isinstance(error, errors.RateLimitError)
    assert error.retry_after == expected


async def test_row_20_retry_after_as_a_date_is_read_against_the_servers_clock(
    server: Server, api: ImagesAPI
) -> None:
    headers = {"date": "Wed, 21 Oct 2015 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2015 07:28:40 GMT"}
    server.script(refusal(429, headers=headers))
    error = await failure(api)
    assert isinstance(error, errors.RateLimitError)
    assert error.retry_after == 40.0


@pytest.mark.parametrize(("reset", "expected"), [("1445412490", 10.0), ("1445412470", None)])
async def test_row_17_and_row_18_without_retry_after_the_reset_is_used_unless_it_is_past(
    server: Server, api: ImagesAPI, reset: str, expected: float | None
) -> None:
    headers = {"date": "Wed, 21 Oct 2015 07:28:00 GMT", "ratelimit-reset": reset}
    server.script(refusal(429, headers=headers))
    error = await failure(api)
    assert isinstance(error, errors.RateLimitError)
    assert error.retry_after == expected


# --- the tree ---


def test_the_module_exports_its_whole_tree() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and not name.startswith("_")
    }
    assert set(errors.__all__) == defined
    assert all(issubclass(getattr(errors, name), errors.DOImagesError) for name in defined)


def test_timeouts_are_also_the_builtin_timeout() -> None:
    assert issubclass(errors.RequestTimeoutError, TimeoutError)
    assert issubclass(errors.RequestTimeoutError, errors.TransportError)
    assert issubclass(errors.WaitTimeoutError, TimeoutError)


def make_api_error(kind: type[errors.APIError]) -> errors.APIError:
    return kind(
        status=499,
        id="some_id",
        message="a message",
        request_id="r-1",
        method="DELETE",
        url="https://api.digitalocean.com/v2/images/1",
        rate_limit=RateLimit(limit=5000, remaining=1, reset=2),
    )


def example_errors() -> list[errors.DOImagesError]:
    limited = make_api_error(errors.RateLimitError)
    assert isinstance(limited, errors.RateLimitError)
    limited.retry_after = 12.5
    doubtful = make_api_error(errors.ServerError)
    doubtful.outcome_unknown = True
    paged = errors.DecodeError("no listing")
    paged.page = 7
    image = Image(id=1, name="x", error_message="too large")
    return [
        *(make_api_error(kind) for kind in dict.fromkeys(kind for _, kind in BY_STATUS)),
        limited,
        doubtful,
        paged,
        errors.DOImagesError("plain"),
        errors.TransportError("broken", method="GET", url="https://x/v2/images"),
        errors.RequestTimeoutError("late", method="GET", url="https://x/v2/images"),
        errors.QuotaWaitError(wait=12.0, max_wait=3.0),
        errors.ImportFailedError(image),
        errors.WaitTimeoutError("too late", image=image),
        errors.IncompleteListingError("a part", seen=4, total=5),
        errors.ClientStateError("closed"),
    ]


Travel = Callable[[errors.DOImagesError], errors.DOImagesError]


def pickled(protocol: int) -> Travel:
    return lambda error: pickle.loads(pickle.dumps(error, protocol))  # noqa: S301


TRAVELS: list[Travel] = [*map(pickled, range(2, 6)), copy.copy, copy.deepcopy]


@pytest.mark.parametrize("error", example_errors(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("travel", TRAVELS)
def test_errors_survive_pickling_and_copying(error: errors.DOImagesError, travel: Travel) -> None:
    twin = travel(error)
    assert twin is not error
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
    assert (twin.outcome_unknown, twin.page) == (error.outcome_unknown, error.page)
    twin.page = 99
    assert error.page != 99


# --- the token ---

LONG_HEADER = b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n"
FAULTS: dict[str, Answer] = {
    "401": refusal(401),
    "422": refusal(422),
    "429": refusal(429),
    "500": refusal(500),
    "302": reply({}, status=302, headers={"location": "https://evil.example/"}),
    "html": content(HTML, status=502),
    "reset": RESET,
    "closed": CLOSE,
    "hang": HANG,
    "garbage": raw(b"garbage\r\n\r\n"),
    "half": raw(b"HTTP/1.1 200 OK\r\ncontent-"),
    "long header": raw(LONG_HEADER),
    "short body": raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{"),
    "bad chunk": raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
    "bad gzip": content(b"no gzip", headers={"content-encoding": "gzip"}),
    "no json": content(b"nonsense"),
}
ECHOES: dict[str, Answer] = {
    "message": reply({"id": "x", "message": f"no token {TOKEN}"}, status=401),
    "id": reply({"id": TOKEN, "message": "m"}, status=401),
    "request id in the body": reply({"id": "x", "message": "m", "request_id": TOKEN}, status=401),
    "request id in a header": reply({"id": "x", "message": "m"}, status=401, headers={"x-request-id": TOKEN}),
    "html": content(f"<html>Authorization: Bearer {TOKEN}".encode(), status=502),
    "end of the snippet": content(b"x" * 150 + f" Bearer {TOKEN}".encode(), status=502),
    "garbage": raw(f"HTTP/nonsense {TOKEN}\r\n\r\n".encode()),
    "bad header": raw(f"HTTP/1.1 200 OK\r\nbad header {TOKEN}\r\n\r\n".encode()),
    "location": reply({}, status=302, headers={"location": f"https://evil.example/{TOKEN}"}),
    "body": content(f'{{"image": {{"id": "{TOKEN}"}}}}'.encode()),
    "key": content(f'{{"{TOKEN}'.encode()),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("answer", FAULTS.values(), ids=FAULTS.keys())
async def test_row_62_no_failure_shows_the_token(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture, answer: Answer, method: str
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    server.script(answer)
    error = await failure(api.with_options(timeout=0.1 if answer is HANG else 30.0), method)
    assert_not_shown(TOKEN, error)
    assert not [record for record in caplog.records if TOKEN in f"{record.getMessage()} {record.__dict__!r}"]
    assert any(record.name.startswith("do_images_async") for record in caplog.records)


@pytest.mark.parametrize("answer", ECHOES.values(), ids=ECHOES.keys())
async def test_row_62_a_server_that_echoes_the_token_does_not_make_us_show_it(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    caplog.set_level(logging.DEBUG, "do_images_async")
    server.script(answer)
    error = await failure(api)
    half = TOKEN[: len(TOKEN) // 2]
    assert half not in f"{error} {error!r} {vars(error)}"
    assert half not in caplog.text


async def test_row_62_failed_attempts_are_logged_without_the_token(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script(RESET, refusal(503), reply({"image": image_document(42)}))
    await api.get(42)
    assert "attempt 1 failed" in caplog.text
    assert "attempt 2 failed" in caplog.text
    assert TOKEN not in caplog.text


async def test_a_refused_connection_does_not_show_the_token() -> None:
    async with ImagesAPI(TOKEN, base_url=f"http://127.0.0.1:{unused_port()}", retry=FAST) as api:
        error = await failure(api)
    assert isinstance(error, errors.TransportError)
    assert_not_shown(TOKEN, error)


async def test_a_wait_for_quota_that_is_too_long_does_not_show_the_token(server: Server) -> None:
    limiter = RateLimiter(TokenBucket(1, per=60))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, max_wait=0) as api:
        server.script(refusal(404))
        await failure(api)
        error = await failure(api)
    assert isinstance(error, errors.QuotaWaitError)
    assert_not_shown(TOKEN, error)


async def test_a_closed_client_does_not_show_the_token(server: Server) -> None:
    api = ImagesAPI(TOKEN, base_url=server.url)
    await api.aclose()
    error = await failure(api)
    assert isinstance(error, errors.ClientStateError)
    assert_not_shown(TOKEN, error)


@pytest.mark.parametrize(
    "options",
    [
        {"token": TOKEN + "\n"},
        {"token": f"Bearer {TOKEN}"},
        {"token": TOKEN + "\u00e9"},
        {"token": TOKEN.encode()},
        {"base_url": "http://api.digitalocean.com"},
        {"timeout": -1},
        {"user_agent": "a\nb"},
    ],
    ids=["newline", "bearer", "accent", "bytes", "base url", "timeout", "user agent"],
)
def test_row_62_a_client_that_can_not_be_made_does_not_show_the_token(options: dict[str, Any]) -> None:
    options = {"token": TOKEN, **options}
    with pytest.raises((TypeError, ValueError)) as caught:
        ImagesAPI(**options)
    assert_not_shown(TOKEN, caught.value)


async def test_row_62_the_client_shows_no_token_and_is_not_pickled(server: Server, api: ImagesAPI) -> None:
    server.script(reply({"image": image_document(42)}))
    await api.get(42)
    assert TOKEN not in f"{api!r} {api} {vars(api)} {api.limiter!r}"
    assert server.url in repr(api)
    for travel in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            travel(api)


async def test_no_connection_over_http_says_nothing_of_tls() -> None:
    port = unused_port()
    async with ImagesAPI(TOKEN, base_url=f"http://127.0.0.1:{port}", retry=ONCE) as api:
        with pytest.raises(errors.TransportError) as caught:
            await api.get(7)
    assert f"no connection: Cannot connect to host 127.0.0.1:{port} [" in str(caught.value)
