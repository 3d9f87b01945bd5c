"""Statuses of edge servers and proxies, broken error bodies, and their effect on retries and writes."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
from collections.abc import Iterator

import aiohttp
import pytest

from do_images_async import ImagesAPI, RateLimiter, TokenBucket, errors
from do_images_async.events import AttemptEnded, Event
from tests.conftest import FAST, ONCE, TOKEN
from tests.support.calls import CALLS, IDEMPOTENT, failure, success
from tests.support.servers import (
    Answer,
    Server,
    content,
    image_reply,
    raw,
    refusal,
    reply,
    unused_port,
)

TRANSIENT = [pytest.param(408, id="row_81_408")] + [
    pytest.param(status, id=f"row_82_{status}") for status in (*range(520, 528), 529, 530)
]


# --- the edge ---


@IDEMPOTENT
@pytest.mark.parametrize("status", TRANSIENT)
async def test_the_edges_failures_are_retried(
    server: Server, api: ImagesAPI, status: int, method: str
) -> None:
    server.script(content(b"<html>edge</html>", status=status), success(method))
    await CALLS[method](api)
    assert server.methods == [method] * 2


@pytest.mark.parametrize("status", TRANSIENT)
async def test_a_creation_that_meets_them_is_not_retried_and_its_outcome_is_unknown(
    server: Server, api: ImagesAPI, status: int
) -> None:
    server.script(content(b"<html>edge</html>", status=status))
    error = await failure(api, "POST")
    assert isinstance(error, errors.APIError)
    assert (error.status, error.outcome_unknown) == (status, True)
    assert server.methods == ["POST"]


NONSENSE = {
    "100 and the end": raw(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "103 and the end": raw(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
    "101": raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
    **{
        str(status): content(b"", status=status, headers={"location": "/v2/images/7"})
        for status in (301, 303, 304)
    },
    **{str(status): refusal(status) for status in (300, 305, 399, 600, 799, 999)},
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE.keys())
@pytest.mark.parametrize("method", CALLS)
async def test_row_84_a_response_that_does_not_say_what_was_done_makes_a_write_ambiguous(
    server: Server, api: ImagesAPI, answer: Answer, method: str
) -> None:
    server.answer_with(lambda _: answer)
    error = await failure(api.with_options(timeout=5), method)
    assert isinstance(error, errors.APIError | errors.TransportError)
    assert not isinstance(error, errors.ServerError)
    assert error.outcome_unknown == (method != "GET")
    if method == "POST":
        assert server.methods == ["POST"]


@pytest.mark.parametrize("status", [400, 402, 405, 409, 410, 418, 422, 451, 499])
async def test_row_84_a_4xx_refusal_has_a_known_outcome(server: Server, api: ImagesAPI, status: int) -> None:
    server.script(refusal(status))
    assert not (await failure(api, "POST")).outcome_unknown


# --- an error whose body is broken ---
#
# Not among these: a chunk that is none, in the same packet as the head. aiohttp's parser drops the head then,
# and the status is not known.

HEAD = "HTTP/1.1 {} Status\r\ncontent-type: application/json\r\n"
BROKEN_BODIES: dict[str, tuple[str, str]] = {
    "no gzip": ("content-encoding: gzip\r\ncontent-length: 7\r\n\r\nno gzip", "close"),
    "no deflate": (
        "content-encoding: deflate\r\ncontent-length: 7\r\n\r\n\x01\x02\x03\x04\x05\x06\x07",
        "close",
    ),
    "cut short": ('content-length: 500\r\n\r\n{"id": "x"', "close"),
    "cut short by a reset": ('content-length: 500\r\n\r\n{"id": "x"', "reset"),
    "chunks that end early": ("transfer-encoding: chunked\r\n\r\n5\r\n{", "close"),
    "never whole": ('content-length: 500\r\n\r\n{"id": "x"', "hang"),
    "garbage": ("content-length: 4\r\n\r\n\x00\x01\x02\x03", "close"),
}


def timeout_of(name: str) -> float:
    """Return a short timeout for the body that never ends, and a long one for the others."""
    return 0.5 if name == "never whole" else 30.0


BY_STATUS: dict[int, tuple[type[errors.APIError], int, bool]] = {
    401: (errors.AuthenticationError, 1, False),
    404: (errors.NotFoundError, 1, False),
    422: (errors.UnprocessableEntityError, 1, False),
    429: (errors.RateLimitError, 1, False),
    503: (errors.ServerError, 4, True),
    520: (errors.ServerError, 4, True),
}


def broken(status: int, name: str) -> Answer:
    body, after = BROKEN_BODIES[name]
    return Answer((HEAD.format(status) + body).encode("latin-1"), after)  # type: ignore[arg-type]


NEVER_WHOLE = [("POST", 503), ("GET", 404), ("GET", 429)]
"""Of those that wait for the timeout, once or four times, the ones that are not slow."""


@pytest.mark.parametrize(
    ("method", "status", "name"),
    [
        pytest.param(
            *case,
            marks=[pytest.mark.slow] if case[2] == "never whole" and case[:2] not in NEVER_WHOLE else [],
        )
        for case in itertools.product(["GET", "POST"], BY_STATUS, BROKEN_BODIES)
    ],
)
async def test_row_85_an_errors_status_counts_when_its_body_is_broken(
    server: Server, method: str, status: int, name: str
) -> None:
    kind, attempts, ambiguous = BY_STATUS[status]
    server.answer_with(lambda _: broken(status, name))
    limiter = RateLimiter(TokenBucket(50, per=0.02, margin=0))
    retry = ONCE if status == 429 else FAST  # a retry waits a second for the quota
    async with ImagesAPI(
        TOKEN, base_url=server.url, retry=retry, limiter=limiter, timeout=timeout_of(name)
    ) as api:
        error = await failure(api, method)
    assert type(error) is kind
    assert error.outcome_unknown == (ambiguous and method != "GET")
    if method == "POST" and ambiguous:
        attempts = 1
    assert server.methods == [method] * attempts


@pytest.mark.parametrize("name", ["no gzip", "cut short", "never whole"])
async def test_row_85_a_creation_whose_429_is_cut_short_is_retried(server: Server, name: str) -> None:
    server.script(broken(429, name), image_reply(7, status=202, name="a"))
    limiter = RateLimiter(TokenBucket(50, per=0.02, margin=0))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, timeout=timeout_of(name)) as api:
        await CALLS["POST"](api)
    assert server.methods == ["POST"] * 2


# --- dates ---


@pytest.fixture(params=["America/New_York", "Asia/Tokyo", "UTC"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("date", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"])
@pytest.mark.parametrize(
    "until",
    [
        "Sun Nov  6 08:49:47 1994",
        "Sun, 06 Nov 1994 08:49:47 -0000",
        "Sun, 06 Nov 1994 08:49:47",
        "Sunday, 06-Nov-94 08:49:47 GMT",
        "Sun, 06 Nov 1994 09:49:47 +0100",
    ],
)
async def test_row_88_a_date_without_a_zone_is_utc(
    server: Server, api: ImagesAPI, date: str, until: str
) -> None:
    server.script(refusal(429, headers={"date": date, "retry-after": until}))
    error = await failure(api.with_options(retry=ONCE), "GET")
    assert isinstance(error, errors.RateLimitError)
    assert error.retry_after == 10.0
    assert api.limiter.next_permit_in() <= 15


# --- an explanation in another shape ---


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({"error": "x"}, '{"error":"x"}'),
        ({"name": ["is too long"]}, '{"name":["is too long"]}'),
        (["one", "two"], '["one","two"]'),
        ("in words", "in words"),
    ],
)
async def test_row_89_an_explanation_may_be_an_object(
    server: Server, api: ImagesAPI, message: object, shown: str
) -> None:
    server.script(reply({"id": "server_error", "message": message, "request_id": "r-1"}, status=422))
    error = await failure(api, "PUT")
    assert isinstance(error, errors.UnprocessableEntityError)
    assert (error.id, error.message, error.request_id) == ("server_error", shown, "r-1")
    assert shown in str(error)


@pytest.mark.parametrize("message", [None, "", {}, [], 7, True])
async def test_row_89_no_explanation_is_none(server: Server, api: ImagesAPI, message: object) -> None:
    server.script(reply({"id": "server_error", "message": message}, status=422))
    error = await failure(api, "PUT")
    assert isinstance(error, errors.UnprocessableEntityError)
    assert (
        error.message
        == f"not the API's own answer; it begins {json.dumps({'id': 'server_error', 'message': message})!r}"
    )


# --- sessions and proxies ---


async def test_row_93_a_session_of_another_loop_is_a_clear_error(server: Server) -> None:
    made: list[aiohttp.ClientSession] = []

    async def make() -> None:
        made.append(aiohttp.ClientSession())

    await asyncio.to_thread(asyncio.run, make())
    (session,) = made
    async with ImagesAPI(TOKEN, base_url=server.url, session=session) as api:
        for method in CALLS:
            error = await failure(api, method)
            assert isinstance(error, errors.ClientStateError)
            assert "another event loop" in str(error)
        assert api.limiter.stats().granted == 0
    assert not server.received
    session.detach()


class Proxy:
    """An HTTP proxy that answers CONNECT with a status and never connects."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.decode().splitlines()[0])
        writer.write(f"HTTP/1.1 {self.status} {TOKEN}\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("status", "words", "attempts"),
    [
        (407, "the proxy refused to connect: 407 Proxy Authentication Required", 1),
        (403, "the proxy refused to connect: 403 Forbidden", 1),
        (503, "the proxy refused to connect: 503 Service Unavailable", 4),
        (502, "the proxy refused to connect: 502 Bad Gateway", 4),
        (299, "the proxy refused to connect: 299", 4),
    ],
)
async def test_row_94_a_proxy_that_refuses_to_connect_says_so(
    status: int, words: str, attempts: int, method: str
) -> None:
    proxy = Proxy(status)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener, aiohttp.ClientSession(proxy=address) as session:
        api = ImagesAPI(TOKEN, base_url="https://api.example", session=session, retry=FAST)
        error = await failure(api, method)
        assert api.limiter.stats().granted == 0
    assert isinstance(error, errors.TransportError)
    assert words in str(error)
    assert not error.outcome_unknown
    assert proxy.asked == ["CONNECT api.example:443 HTTP/1.1"] * attempts


async def test_row_94_a_proxy_that_is_not_there_says_so() -> None:
    async with aiohttp.ClientSession(proxy=f"http://user:secret@127.0.0.1:{unused_port()}") as session:
        api = ImagesAPI(TOKEN, base_url="https://api.example", session=session, retry=FAST)
        error = await failure(api, "GET")
    assert "no connection to the proxy" in str(error)
    assert "secret" not in str(error)


# --- the wait that follows a 429 ---


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after": "30"}, 29, 37),
        ({"retry-after": "3600"}, 3590, 3610),
        ({"retry-after": "99999999"}, 3590, 3610),
        ({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}, 3590, 3610),
    ],
)
async def test_row_95_after_a_429_the_log_and_the_event_name_the_wait_that_follows(
    server: Server, caplog: pytest.LogCaptureFixture, headers: dict[str, str], least: float, most: float
) -> None:
    caplog.set_level(logging.DEBUG, "do_images_async")
    told: list[Event] = []
    server.script(refusal(429, headers=headers))
    async with ImagesAPI(TOKEN, base_url=server.url, on_event=told.append) as api:
        call = asyncio.create_task(api.get(42))
        while not any(isinstance(event, AttemptEnded) for event in told):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        wait = api.limiter.next_permit_in()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    end = next(event for event in told if isinstance(event, AttemptEnded))
    assert end.retry_in is not None
    assert least <= end.retry_in <= most
    assert end.retry_in == pytest.approx(wait, abs=2)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"next in {end.retry_in:.2f} s" in record.getMessage()


async def test_row_95_without_a_wait_none_is_named(server: Server) -> None:
    told: list[Event] = []
    limiter = RateLimiter(TokenBucket(50, per=0.02, margin=0))
    server.script(refusal(429), image_reply(42))
    async with ImagesAPI(TOKEN, base_url=server.url, on_event=told.append, limiter=limiter) as api:
        await api.get(42)
    ends = [event.retry_in for event in told if isinstance(event, AttemptEnded)]
    assert ends[1] is None
    assert ends[0] is not None
