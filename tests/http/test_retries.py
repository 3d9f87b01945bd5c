"""Retries, counted by the server, and the permits that they take."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import ssl
import struct
import time
import tracemalloc
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult

from do_images_async import ImagesAPI, RateLimiter, RetryPolicy, TokenBucket, errors
from do_images_async._http.retry import BUDGET_IS_SPENT, RetryBudget
from do_images_async.events import AttemptEnded, Event
from tests.conftest import FAST, ONCE, TOKEN
from tests.support.calls import CALLS, EVERY_METHOD, IDEMPOTENT, Method, failure, success
from tests.support.limiters import Unlimited
from tests.support.servers import (
    CLOSE,
    HANG,
    NO_CONTENT,
    RESET,
    Answer,
    Held,
    Received,
    Server,
    content,
    eventually,
    image_document,
    image_reply,
    raw,
    refusal,
    reply,
    unused_port,
)
from tests.support.slow import fewer

SHORT = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
BROKEN: dict[str, Answer] = {
    "row_25_500": refusal(500),
    "row_26_502": content(b"<html>", status=502),
    "503": refusal(503),
    "504": refusal(504),
    "row_05_reset": RESET,
    "row_05_closed": CLOSE,
    "row_07_half_the_headers": raw(b"HTTP/1.1 200 OK\r\ncontent-"),
    "row_07_half_the_headers_then_reset": raw(b"HTTP/1.1 200 OK\r\ncontent-", "reset"),
    "row_08_short_body": SHORT,
    "row_08_short_body_then_reset": raw(SHORT.data, "reset"),
    "row_09_bad_chunk": raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
    "row_10_garbage": raw(b"\x00\x01\x02 nonsense\r\n\r\n"),
    "row_10_tls_hello": raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "row_11_huge_header": raw(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n"),
    "row_12_bad_gzip": content(b"no gzip", headers={"content-encoding": "gzip"}),
}
EVERY_BREAK = pytest.mark.parametrize("fault", BROKEN.values(), ids=BROKEN.keys())
FINAL = [400, 401, 403, 404, 405, 409, 410, 418, 422]


# --- what may be sent again ---


@IDEMPOTENT
@EVERY_BREAK
async def test_a_broken_attempt_is_retried(
    server: Server, api: ImagesAPI, method: str, fault: Answer
) -> None:
    server.script(fault, fault, success(method))
    await CALLS[method](api)
    assert server.methods == [method] * 3
    assert len({(request.target, request.body) for request in server.received}) == 1
    assert {request.headers["authorization"] for request in server.received} == {f"Bearer {TOKEN}"}
    assert api.limiter.stats().granted == 3
    assert api.limiter.stats().in_flight == 0


@IDEMPOTENT
@EVERY_BREAK
async def test_a_call_has_four_attempts_at_most(
    server: Server, api: ImagesAPI, method: str, fault: Answer
) -> None:
    server.script(*[fault] * 9)
    error = await failure(api, method)
    assert server.methods == [method] * 4
    assert isinstance(error, errors.TransportError | errors.ServerError)
    assert error.outcome_unknown is (method != "GET")
    assert api.limiter.stats().granted == 4


@EVERY_METHOD
@EVERY_BREAK
async def test_one_attempt_sends_once(server: Server, api: ImagesAPI, method: str, fault: Answer) -> None:
    server.script(*[fault] * 9)
    error = await failure(api.with_options(retry=ONCE), method)
    assert server.methods == [method]
    assert error.outcome_unknown is (method != "GET")
    assert ("may have been carried out" in str(error)) is error.outcome_unknown
    assert repr(error).endswith(", outcome_unknown=True)") is error.outcome_unknown


@EVERY_BREAK
async def test_row_25_a_broken_creation_is_never_retried(
    server: Server, api: ImagesAPI, fault: Answer
) -> None:
    server.script(fault, *[image_reply(42, status=202)] * 3)
    error = await failure(api, "POST")
    assert server.methods == ["POST"]
    assert error.outcome_unknown


@EVERY_METHOD
@pytest.mark.parametrize("status", FINAL)
async def test_row_22_a_refusal_is_never_retried(
    server: Server, api: ImagesAPI, method: str, status: int
) -> None:
    server.script(refusal(status), success(method))
    error = await failure(api, method)
    assert isinstance(error, errors.APIError)
    assert (error.status, error.outcome_unknown) == (status, False)
    assert server.methods == [method]


@EVERY_METHOD
async def test_an_unusual_server_error_is_not_retried(server: Server, api: ImagesAPI, method: str) -> None:
    server.script(refusal(501), success(method))
    error = await failure(api, method)
    assert isinstance(error, errors.ServerError)
    assert server.methods == [method]
    assert error.outcome_unknown is (method != "GET")


@pytest.mark.parametrize("method", fewer(["POST", "DELETE", "GET", "PUT"], 2))
async def test_a_timeout(server: Server, api: ImagesAPI, method: str) -> None:
    server.script(HANG, HANG, HANG, HANG)
    error = await failure(api.with_options(timeout=0.25), method)
    assert isinstance(error, errors.RequestTimeoutError)
    assert isinstance(error, TimeoutError)
    assert server.methods == (["POST"] if method == "POST" else [method] * 4)
    assert error.outcome_unknown is (method != "GET")


@pytest.mark.parametrize("part", ["headers", "body"])
async def test_row_14_a_response_that_arrives_byte_by_byte_is_ended_by_the_deadline(
    server: Server, api: ImagesAPI, part: str
) -> None:
    whole = image_reply(42).data
    if part == "headers":
        server.script(Answer(whole, drip=0.01))
    else:
        server.script(Answer(whole[:-1], "hang"))
    error = await failure(api.with_options(timeout=0.2, retry=ONCE), "GET")
    assert isinstance(error, errors.RequestTimeoutError)
    await eventually(lambda: server.open_connections == 0)


async def test_after_a_timeout_the_next_attempt_has_its_own_deadline(server: Server, api: ImagesAPI) -> None:
    server.script(HANG, image_reply(42))
    assert (await api.with_options(timeout=0.5).get(42)).id == 42
    assert server.methods == ["GET", "GET"]


@IDEMPOTENT
async def test_many_failures_do_not_multiply_the_traffic(server: Server, api: ImagesAPI, method: str) -> None:
    server.answer_with(lambda _: refusal(503))
    calls = [CALLS[method](api) for _ in range(80)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {errors.ServerError}
    assert len(server.received) == 80 + 50
    # The error of a call that ran out of attempts says nothing of the budget.
    unlucky = [getattr(result, "__notes__", []) for result in results]
    assert unlucky.count([BUDGET_IS_SPENT]) + unlucky.count([]) == 80
    assert unlucky.count([BUDGET_IS_SPENT]) >= 80 - 50 // 3
    server.answer_with(lambda _: success(method))
    for _ in range(11):
        await CALLS[method](api)
    server.received.clear()
    server.answer_with(lambda _: refusal(503))
    await failure(api.with_options(timeout=5), method)
    assert len(server.received) == 2


def test_a_budget_that_was_spent_is_whole_again_after_ten_successes_for_each_retry() -> None:
    budget = RetryBudget(2)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    spent: list[bool] = []
    for _ in range(21):
        spent.append(budget.was_spent)
        budget.earn()
    assert spent[:19] == [True] * 19
    assert not budget.was_spent
    assert budget.spend()


async def test_a_spent_budget_is_one_warning_until_it_is_whole_again(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "do_images_async")

    async def levels(answer: Answer, calls: int) -> list[str]:
        server.answer_with(lambda _: answer)
        caplog.clear()
        await asyncio.gather(*(api.get(42) for _ in range(calls)), return_exceptions=True)
        return [each.levelname for each in caplog.records if each.getMessage() == BUDGET_IS_SPENT]

    first, *others = await levels(refusal(503), 30)
    assert (first, set(others)) == ("WARNING", {"DEBUG"})
    await levels(image_reply(42), 20)
    assert set(await levels(refusal(503), 10)) == {"DEBUG"}, "it was not whole"


@pytest.fixture
async def hasty(server: Server) -> AsyncIterator[ImagesAPI]:
    """Yield a client whose limiter waits no longer than 0.02 s after a refusal that names no time."""
    limiter = RateLimiter(TokenBucket(50, per=0.02, margin=0))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, retry=FAST) as client:
        yield client


async def test_429_responses_do_not_use_the_retry_budget(server: Server, hasty: ImagesAPI) -> None:
    for _ in range(20):
        server.script(*[refusal(429)] * 3, image_reply(42))
        await hasty.get(42)


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_a_request_answered_without_json_is_retried(
    server: Server, api: ImagesAPI, method: str
) -> None:
    server.script(content(b'{"image": {"id"'), image_reply(42, name="a"))
    await CALLS[method](api)
    assert server.methods == [method] * 2


@pytest.mark.parametrize(
    "body", [b'{"image": {"id": 42, "size_gigabytes": 1e999}}', b'{"image": {"id": 1e999}}']
)
async def test_a_number_that_no_float_holds_is_named_and_not_retried(
    server: Server, api: ImagesAPI, body: bytes
) -> None:
    server.script(content(body))
    error = await failure(api, "GET")
    assert isinstance(error, errors.DecodeError)
    assert not error.transient
    place = "size_gigabytes" if b"size" in body else "id"
    assert str(error).endswith(f"Number out of range - at `$.image.{place}`")
    assert server.methods == ["GET"]


async def test_a_body_that_is_cut_off_after_such_a_number_is_retried(server: Server, api: ImagesAPI) -> None:
    server.script(content(b'{"image": {"id": 42, "size_gigabytes": 1e999'), image_reply(42))
    await CALLS["GET"](api)
    assert server.methods == ["GET", "GET"]


async def test_a_creation_answered_without_json_is_not_retried(server: Server, api: ImagesAPI) -> None:
    server.script(content(b'{"image": {"id"', status=202), image_reply(42))
    error = await failure(api, "POST")
    assert isinstance(error, errors.DecodeError)
    assert error.outcome_unknown
    assert server.methods == ["POST"]


# --- the quota's own refusal ---


@EVERY_METHOD
async def test_row_21_a_429_is_retried_since_it_was_not_executed(
    server: Server, hasty: ImagesAPI, method: str
) -> None:
    server.script(*[refusal(429)] * 3, success(method))
    await CALLS[method](hasty)
    assert server.methods == [method] * 4


@EVERY_METHOD
async def test_refusals_that_go_on_for_longer_than_max_wait_end_after_four_attempts_more(
    server: Server, hasty: ImagesAPI, method: str
) -> None:
    server.answer_with(lambda _: refusal(429))
    error = await failure(hasty.with_options(max_wait=0.15), method)
    assert isinstance(error, errors.RateLimitError)
    assert not error.outcome_unknown
    assert len(server.received) > 4


async def test_a_policy_of_one_attempt_sends_once_although_refused(server: Server, hasty: ImagesAPI) -> None:
    server.script(refusal(429))
    assert isinstance(await failure(hasty.with_options(retry=ONCE), "GET"), errors.RateLimitError)
    assert server.methods == ["GET"]


async def test_refusals_that_say_how_long_to_wait_use_up_no_attempts(server: Server, api: ImagesAPI) -> None:
    server.script(*[refusal(429, headers={"retry-after": "1"})] * 2, image_reply(42))
    await api.with_options(retry=RetryPolicy(attempts=2), max_wait=60).get(42)
    assert server.methods == ["GET"] * 3


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"retry-after": "0"},
        {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"},
        {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"},
    ],
    ids=["nothing", "0", "a date that is now", "a date in the past"],
)
async def test_a_429_that_says_nothing_or_less_than_a_second_uses_up_no_attempts_either(
    server: Server, hasty: ImagesAPI, headers: dict[str, str]
) -> None:
    server.script(*[refusal(429, headers=headers)] * 8, image_reply(42))
    await hasty.get(42)
    assert len(server.received) == 9


LIMITS = {"ratelimit-limit": "5000", "ratelimit-remaining": "4999", "ratelimit-reset": "1"}


@pytest.mark.parametrize(
    ("headers", "patient"),
    [({}, False), (LIMITS, True), ({"retry-after": "0"}, True), ({"content-type": "text/html"}, False)],
    ids=["nothing", "the quota", "retry-after", "a type"],
)
@pytest.mark.parametrize("body", [b"<html>blocked", b'{"message": "blocked"}', b""])
async def test_a_429_that_is_not_the_apis_own_uses_up_attempts(
    server: Server, hasty: ImagesAPI, headers: dict[str, str], body: bytes, *, patient: bool
) -> None:
    server.script(*[content(body, status=429, headers=headers)] * 6, image_reply(42))
    if patient:
        assert (await hasty.get(42)).id == 42
    else:
        assert isinstance(await failure(hasty, "GET"), errors.RateLimitError)
    assert len(server.received) == (7 if patient else 4)


class Unhurried(RetryPolicy):
    def delay(self, attempt: int) -> float:
        return 0.03 * attempt


@pytest.mark.parametrize("asked", [None, "0", "30"])
async def test_a_limiter_that_makes_no_call_wait_gets_retry_after_or_the_backoff(
    server: Server, asked: str | None
) -> None:
    waits: list[float] = []
    arrivals: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, AttemptEnded) and event.retry_in is not None:
            waits.append(event.retry_in)

    def answer(_: Received) -> Answer:
        arrivals.append(time.monotonic())
        return refusal(429, headers={"retry-after": asked} if asked else {})

    server.answer_with(answer)
    async with ImagesAPI(
        TOKEN, base_url=server.url, limiter=Unlimited(), retry=Unhurried(), on_event=note
    ) as api:
        call = asyncio.ensure_future(api.get(42))
        await eventually(lambda: len(waits) >= (1 if asked == "30" else 4))
        await asyncio.sleep(0.05)
        call.cancel()
    if asked == "30":
        assert waits == [30.0]
        assert len(arrivals) == 1
    else:
        assert waits[:4] == pytest.approx([0.03, 0.06, 0.09, 0.12])
        assert arrivals[3] - arrivals[0] >= 0.17


@pytest.mark.parametrize("remaining", [4000, 0], ids=["the minute's", "either window's"])
async def test_a_429_without_retry_after_waits_a_minute_at_most_and_fails_nobody(
    server: Server, remaining: int
) -> None:
    reset = int(time.time()) + 3000
    headers = {
        "ratelimit-limit": "5000",
        "ratelimit-remaining": str(remaining),
        "ratelimit-reset": str(reset),
    }
    server.script(*[refusal(429, headers=headers)] * 6, image_reply(42))
    limiter = RateLimiter(TokenBucket(50, per=0.02, margin=0))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, max_wait=90) as api:
        await api.get(42)
    assert server.methods == ["GET"] * 7


@EVERY_METHOD
async def test_row_16_after_retry_after_every_call_waits(server: Server, api: ImagesAPI, method: str) -> None:
    server.script(refusal(429, headers={"retry-after": "30"}))
    call = asyncio.ensure_future(CALLS[method](api))
    await eventually(lambda: api.limiter.next_permit_in() > 0)
    assert 15 < api.limiter.next_permit_in() <= 31
    with pytest.raises(errors.QuotaWaitError) as caught:
        await api.with_options(max_wait=5).get(1)
    assert 15 < caught.value.wait <= 31
    assert not call.done()
    assert server.methods == [method]
    call.cancel()


@pytest.mark.parametrize("header", ["30", "99999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
@EVERY_METHOD
async def test_row_19_a_pause_longer_than_allowed_raises_at_once(
    server: Server, api: ImagesAPI, method: str, header: str
) -> None:
    server.script(refusal(429, headers={"retry-after": header}))
    before = time.monotonic()
    error = await failure(api.with_options(max_wait=5), method)
    assert time.monotonic() - before < 30, "it did not wait as long as the server asks"
    assert isinstance(error, errors.RateLimitError)
    assert error.retry_after is not None
    assert error.retry_after >= 30
    assert server.methods == [method]


async def test_row_19_an_invalid_retry_after_is_replaced_by_the_backoff(server: Server) -> None:
    invalid = dict(enumerate(["", "soon", "nan", "inf", "-1", "1e9", "30, 30", "Wed, 99 Foo 2015"], start=1))
    refused: list[int] = []

    def answer(request: Received) -> Answer:
        number = int(request.path.rpartition("/")[2])
        if number in refused:
            return image_reply(number)
        refused.append(number)
        return refusal(429, headers={"retry-after": invalid[number]})

    async def get(number: int) -> int:
        async with ImagesAPI(TOKEN, base_url=server.url, limiter=RateLimiter(), max_wait=5) as api:
            return (await api.get(number)).id

    server.answer_with(answer)
    # At once: each waits a second.
    results = await asyncio.gather(*map(get, invalid), return_exceptions=True)
    assert dict(zip(invalid.values(), results, strict=True)) == {
        header: number for number, header in invalid.items()
    }
    assert server.methods == ["GET"] * 2 * len(invalid)


@IDEMPOTENT
async def test_a_503_with_retry_after_is_retried(server: Server, api: ImagesAPI, method: str) -> None:
    server.script(refusal(503, headers={"retry-after": "0"}), success(method))
    await CALLS[method](api)
    assert server.methods == [method] * 2


async def test_a_503_with_retry_after_0_waits_for_the_backoff(server: Server) -> None:
    waits: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, AttemptEnded) and event.retry_in is not None:
            waits.append(event.retry_in)

    server.script(*[refusal(503, headers={"retry-after": "0"})] * 3, image_reply(42))
    async with ImagesAPI(TOKEN, base_url=server.url, retry=RetryPolicy(base=0.01), on_event=note) as api:
        await api.get(42)
    assert len(waits) == 3
    assert all(wait > 0 for wait in waits)


async def test_a_503_with_retry_after_waits_as_long_as_the_cap_allows(server: Server, api: ImagesAPI) -> None:
    server.script(refusal(503, headers={"retry-after": "3600"}), image_reply(42))
    patient = api.with_options(retry=RetryPolicy(base=0.0, cap=0.1))
    before = time.monotonic()
    await patient.get(42)
    assert time.monotonic() - before >= 0.09


async def test_a_creation_answered_503_is_not_retried(server: Server, api: ImagesAPI) -> None:
    server.script(refusal(503, headers={"retry-after": "0"}), image_reply(42))
    error = await failure(api, "POST")
    assert isinstance(error, errors.ServerError)
    assert error.outcome_unknown
    assert server.methods == ["POST"]


# --- deleting ---

AMBIGUOUS: dict[str, Answer] = {
    name: BROKEN[name] for name in ("row_25_500", "503", "row_05_reset", "row_05_closed", "row_10_garbage")
}


@pytest.mark.parametrize("fault", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
async def test_row_23_not_found_after_an_attempt_that_may_have_deleted_is_done(
    server: Server, api: ImagesAPI, fault: Answer
) -> None:
    server.script(fault, refusal(404))
    await api.delete(42)
    assert server.methods == ["DELETE", "DELETE"]


async def test_row_23_not_found_at_first_is_an_error(server: Server, api: ImagesAPI) -> None:
    server.script(refusal(404))
    error = await failure(api, "DELETE")
    assert isinstance(error, errors.NotFoundError)
    assert not error.outcome_unknown


async def test_row_23_not_found_after_a_refusal_for_the_quota_is_an_error(
    server: Server, api: ImagesAPI
) -> None:
    server.script(refusal(429, headers={"retry-after": "0"}), refusal(404))
    error = await failure(api, "DELETE")
    assert isinstance(error, errors.NotFoundError)
    assert not error.outcome_unknown


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_not_found_after_a_broken_attempt_is_an_error_except_for_a_deletion(
    server: Server, api: ImagesAPI, method: str
) -> None:
    server.script(RESET, refusal(404))
    assert isinstance(await failure(api, method), errors.NotFoundError)


async def test_a_refusal_after_an_ambiguous_attempt_keeps_the_outcome_unknown(
    server: Server, api: ImagesAPI
) -> None:
    server.script(RESET, refusal(401))
    error = await failure(api, "DELETE")
    assert isinstance(error, errors.AuthenticationError)
    assert error.outcome_unknown


# --- connections ---


@IDEMPOTENT
async def test_row_06_a_stale_connection_costs_one_counted_attempt(
    server: Server, api: ImagesAPI, method: str
) -> None:
    server.script(image_reply(1), RESET, success(method))
    await api.get(1)
    await CALLS[method](api)
    assert server.methods == ["GET", method, method]
    assert server.received[0].connection == server.received[1].connection
    assert api.limiter.stats().granted == 3


async def test_row_06_a_stale_connection_makes_a_creation_ambiguous(server: Server, api: ImagesAPI) -> None:
    server.script(image_reply(1), RESET)
    await api.get(1)
    error = await failure(api, "POST")
    assert isinstance(error, errors.TransportError)
    assert error.outcome_unknown
    assert server.methods == ["GET", "POST"]


async def test_a_connection_closed_while_idle_is_replaced(server: Server, api: ImagesAPI) -> None:
    server.script(Answer(image_reply(1).data, "close"), image_reply(2))
    await api.get(1)
    await eventually(lambda: server.open_connections == 0)
    assert (await api.get(2)).id == 2
    assert server.methods == ["GET", "GET"]


async def test_a_good_connection_is_reused(server: Server, api: ImagesAPI) -> None:
    server.script(image_reply(1), refusal(404), NO_CONTENT, image_reply(2))
    await api.get(1)
    await failure(api, "GET")
    await api.delete(3)
    await api.get(2)
    assert server.connections == 1


async def test_row_28_a_deletion_answered_with_a_body_leaves_the_next_call_alone(
    server: Server, api: ImagesAPI
) -> None:
    server.script(content(b'{"x": 1}', status=204))
    server.answer_with(lambda request: image_reply(2) if request.method == "GET" else refusal(404))
    await api.delete(1)
    assert (await api.get(2)).id == 2


async def test_a_deletion_answered_with_200_is_done(server: Server, api: ImagesAPI) -> None:
    server.script(reply({}), content(b""))
    await api.delete(1)
    await api.delete(2)


class Resolver(AbstractResolver):
    """A resolver that answers from a script: each step is a port, an error, or None to hang."""

    def __init__(self, *steps: int | Exception | None) -> None:
        self.steps = list(steps)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        step = self.steps.pop(0) if self.steps else port
        if step is None:
            await asyncio.sleep(3600)
        if isinstance(step, Exception):
            raise step
        assert step is not None
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=step, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def misled(
    server: Server, *steps: int | Exception | None, **options: Any
) -> AsyncGenerator[ImagesAPI, None]:
    """Yield a client whose name resolution finds the server only after these steps."""
    connector = aiohttp.TCPConnector(resolver=Resolver(*steps), use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        base_url = f"http://localhost:{server.port}"
        options = {"retry": FAST, **options}
        async with ImagesAPI(TOKEN, session=session, base_url=base_url, **options) as api:
            yield api


@EVERY_METHOD
async def test_row_02_a_refused_connection_is_retried_and_costs_no_permit(
    server: Server, method: str
) -> None:
    server.script(success(method))
    async with misled(server, unused_port(), unused_port()) as api:
        await CALLS[method](api)
        stats = api.limiter.stats()
    assert server.methods == [method]
    assert (stats.granted, stats.in_flight, stats.available) == (1, 0, (249, 4999))


@EVERY_METHOD
async def test_row_01_a_failed_name_resolution_is_retried(server: Server, method: str) -> None:
    server.script(success(method))
    async with misled(server, OSError("no such name")) as api:
        await CALLS[method](api)
        assert api.limiter.stats().granted == 1
    assert server.methods == [method]


@pytest.mark.parametrize("method", fewer(["POST", "GET", "PUT", "DELETE"], 2))
async def test_row_04_a_connection_that_hangs_is_retried(server: Server, method: str) -> None:
    server.script(success(method))
    async with misled(server, None, timeout=0.5) as api:
        await CALLS[method](api)
        assert api.limiter.stats().granted == 1
    assert server.methods == [method]


@EVERY_METHOD
async def test_a_connection_that_stays_refused_has_a_known_outcome(server: Server, method: str) -> None:
    async with misled(server, *[unused_port()] * 4) as api:
        error = await failure(api, method)
        stats = api.limiter.stats()
    assert isinstance(error, errors.TransportError)
    assert not error.outcome_unknown
    assert (stats.granted, stats.available) == (0, (250, 5000))
    assert not server.received


async def test_not_found_after_a_refused_connection_is_an_error(server: Server) -> None:
    server.script(refusal(404))
    async with misled(server, unused_port()) as api:
        error = await failure(api, "DELETE")
    assert isinstance(error, errors.NotFoundError)
    assert not error.outcome_unknown


async def test_row_15_waiting_for_a_pooled_connection_is_not_sending(server: Server) -> None:
    release = asyncio.Event()
    server.script(Held(image_reply(1), release), image_reply(2, status=202))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
        limiter = RateLimiter(slow_start=False)  # the second call waits for the connection only
        api = ImagesAPI(TOKEN, session=session, base_url=server.url, retry=ONCE, limiter=limiter)
        first = asyncio.create_task(api.get(1))
        await eventually(lambda: len(server.received) == 1)
        error = await failure(api.with_options(timeout=0.05), "POST")
        assert isinstance(error, errors.RequestTimeoutError)
        assert not error.outcome_unknown
        stats = api.limiter.stats()
        assert (stats.granted, stats.in_flight, stats.available) == (1, 1, (249, 4999))
        release.set()
        await first
    assert server.methods == ["GET"]


def certificates() -> dict[str, tuple[trustme.CA, trustme.LeafCert]]:
    """Return bad certificates by their fault, each with the authority that the client trusts."""
    trusted, stranger = trustme.CA(), trustme.CA()
    past = datetime(2020, 1, 1, tzinfo=UTC)
    return {
        "unknown authority": (trusted, stranger.issue_cert("127.0.0.1")),
        "another name": (trusted, trusted.issue_cert("api.example.com")),
        "expired": (trusted, trusted.issue_cert("127.0.0.1", not_before=past, not_after=past + timedelta(1))),
    }


@asynccontextmanager
async def behind_tls(
    authority: trustme.CA, certificate: trustme.LeafCert
) -> AsyncGenerator[tuple[Server, ImagesAPI], None]:
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(ours)  # pyright: ignore[reportUnknownMemberType]  (names pyOpenSSL)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)  # pyright: ignore[reportUnknownMemberType]
    connector = aiohttp.TCPConnector(ssl=theirs)
    async with Server().running(tls=ours) as server, aiohttp.ClientSession(connector=connector) as session:
        yield server, ImagesAPI(TOKEN, session=session, base_url=server.url, retry=FAST)


@EVERY_METHOD
@pytest.mark.parametrize("wrong", certificates())
async def test_row_03_a_bad_certificate_is_final_and_nothing_is_sent(method: str, wrong: str) -> None:
    async with behind_tls(*certificates()[wrong]) as (server, api):
        error = await failure(api, method)
        assert isinstance(error, errors.TransportError)
        assert not error.outcome_unknown
        assert api.limiter.stats().granted == 0
        assert server.connections <= 1
        assert not server.received


WAITS: dict[str, Method] = {
    "for an image": lambda api: api.wait_until_available(42, timeout=60, poll_interval=0.01),
    "for an action": lambda api: api.actions.wait(42, 5, timeout=60, poll_interval=0.01),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
async def test_row_03_a_bad_certificate_ends_a_wait(wait: Method) -> None:
    async with behind_tls(*certificates()["unknown authority"]) as (server, api):
        with pytest.raises(errors.TransportError, match="not trusted") as caught:
            await wait(api)
        assert not caught.value.transient
        assert server.connections <= 1


async def test_a_connection_that_is_refused_does_not_end_a_wait(server: Server) -> None:
    server.script(image_reply(42))
    async with misled(server, unused_port(), retry=ONCE) as api:
        assert (await api.wait_until_available(42, timeout=60, poll_interval=0.01)).id == 42


@EVERY_METHOD
async def test_a_good_certificate_is_accepted(method: str) -> None:
    authority = trustme.CA()
    async with behind_tls(authority, authority.issue_cert("127.0.0.1")) as (server, api):
        server.script(success(method))
        await CALLS[method](api)
        assert server.methods == [method]


async def test_a_server_without_tls_is_sent_nothing() -> None:
    async def answer_plainly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer_plainly, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        async with ImagesAPI(TOKEN, base_url=f"https://127.0.0.1:{port}", retry=ONCE) as api:
            error = await failure(api, "POST")
            assert api.limiter.stats().granted == 0
    assert isinstance(error, errors.TransportError)
    assert not error.outcome_unknown


# --- redirects ---


@EVERY_METHOD
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_row_27_a_redirect_is_an_error_and_is_not_followed(
    server: Server, api: ImagesAPI, method: str, status: int
) -> None:
    async with Server().running() as other:
        server.script(content(b"", status=status, headers={"location": f"{other.url}/v2/images/42"}))
        error = await failure(api, method)
        assert isinstance(error, errors.APIError)
        assert error.status == status
        assert server.methods == [method]
        assert not other.connections


async def test_row_27_a_redirect_on_the_same_server_is_not_followed_either(
    server: Server, api: ImagesAPI
) -> None:
    server.script(reply({}, status=307, headers={"location": "/v2/images/43"}), image_reply(43))
    error = await failure(api, "GET")
    assert isinstance(error, errors.APIError)
    assert len(server.received) == 1


# --- bodies that are too much ---


def gzip_bomb(size: int) -> bytes:
    """Return so many zeros, packed: a block of them is packed once, and repeated."""
    zeros = bytes(2**20)
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    number, check = size // len(zeros), 0
    for _ in range(number):
        check = zlib.crc32(zeros, check)
    head = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    return head + block * number + packer.flush() + struct.pack("<II", check, number * len(zeros))


async def test_row_13_a_gzip_bomb_is_not_unpacked(server: Server, api: ImagesAPI) -> None:
    bomb = gzip_bomb(200 * 2**20)
    assert len(bomb) < 250_000
    server.script(content(bomb, headers={"content-encoding": "gzip"}))
    tracemalloc.start()
    try:
        error = await failure(api, "GET")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, errors.TransportError)
    assert "large" in str(error)
    assert peak < 64 * 2**20
    assert server.methods == ["GET"]
    await eventually(lambda: server.open_connections == 0)


async def test_row_12_a_gzipped_response_that_is_cut_off_is_an_error(server: Server, api: ImagesAPI) -> None:
    body = image_reply(42).data.partition(b"\r\n\r\n")[2]
    packed = gzip.compress(body)
    for length in (5, 20, len(packed) // 2):
        server.script(content(packed[:length], headers={"content-encoding": "gzip"}))
        await failure(api.with_options(retry=ONCE), "GET")


@EVERY_METHOD
@pytest.mark.parametrize("status", [200, 422])
async def test_an_encoding_that_needs_a_missing_package_is_named_and_not_retried(
    server: Server, api: ImagesAPI, monkeypatch: pytest.MonkeyPatch, status: int, method: str
) -> None:
    """aiohttp drops the head with the status, so it is not known what a write did."""
    monkeypatch.setattr("aiohttp.http_parser.HAS_BROTLI", False)
    server.script(content(b"{}", status=status, headers={"content-encoding": "br"}))
    error = await failure(api, method)
    assert isinstance(error, errors.TransportError)
    assert "Content-Encoding is br, which can't be decoded" in str(error)
    assert (error.transient, error.outcome_unknown) == (False, method != "GET")
    assert server.methods == [method]


@EVERY_METHOD
async def test_an_encoding_that_nobody_knows_is_named_and_not_retried(
    server: Server, api: ImagesAPI, method: str
) -> None:
    server.script(content(b"\x1f\x9d\x90", headers={"content-encoding": "compress"}))
    error = await failure(api, method)
    assert isinstance(error, errors.DecodeError)
    assert "Content-Encoding is 'compress', which can't be decoded" in str(error)
    assert (error.transient, error.outcome_unknown) == (False, method != "GET")
    assert server.methods == [method]


async def test_an_error_of_an_unknown_encoding_keeps_its_status(server: Server, api: ImagesAPI) -> None:
    server.script(content(b"\x1f\x9d\x90", status=404, headers={"content-encoding": "compress"}))
    assert isinstance(await failure(api, "GET"), errors.NotFoundError)


async def test_a_gzipped_answer_is_read(server: Server, api: ImagesAPI) -> None:
    body = image_reply(42).data.partition(b"\r\n\r\n")[2]
    server.script(content(gzip.compress(body), headers={"content-encoding": "gzip"}))
    assert (await api.get(42)).id == 42


# --- waiting for quota ---


async def test_waiting_for_quota_takes_nothing_from_the_deadline(server: Server) -> None:
    limiter = RateLimiter(TokenBucket(1, per=1.5, margin=0))
    server.script(image_reply(1), image_reply(2))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, retry=ONCE, timeout=1.0) as api:
        await api.get(1)
        assert limiter.next_permit_in() > 1.0
        assert (await api.get(2)).id == 2


async def test_a_wait_longer_than_allowed_raises_at_once_and_sends_nothing(server: Server) -> None:
    limiter = RateLimiter(TokenBucket(1, per=60, margin=0))
    server.script(image_reply(1))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, max_wait=0.5) as api:
        await api.get(1)
        for method in CALLS:
            error = await failure(api, method)
            assert isinstance(error, errors.QuotaWaitError)
            assert not error.outcome_unknown
            assert 30 < error.wait <= 60
            assert error.max_wait == 0.5
        assert limiter.stats().granted == 1
    assert len(server.received) == 1


async def test_a_permit_is_held_until_the_headers_come(server: Server, api: ImagesAPI) -> None:
    release = asyncio.Event()
    server.script(Held(image_reply(1), release))
    call = asyncio.create_task(api.get(1))
    await eventually(lambda: len(server.received) == 1)
    assert (api.limiter.stats().granted, api.limiter.stats().in_flight) == (1, 1)
    release.set()
    await call
    stats = api.limiter.stats()
    assert (stats.granted, stats.in_flight, stats.available) == (1, 0, (249, 4999))


async def test_row_67_a_call_cancelled_in_flight_has_spent_its_permit(server: Server, api: ImagesAPI) -> None:
    server.script(HANG)
    call = asyncio.create_task(api.get(1))
    await eventually(lambda: len(server.received) == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    stats = api.limiter.stats()
    assert (stats.granted, stats.in_flight, stats.available) == (1, 0, (249, 4999))


async def test_row_55_and_row_66_a_call_cancelled_in_the_queue_has_spent_nothing(server: Server) -> None:
    limiter = RateLimiter(TokenBucket(1, per=60))
    server.script(image_reply(1))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter) as api:
        await api.get(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await api.get(2)
        stats = limiter.stats()
    assert (stats.granted, stats.in_flight, stats.waiting) == (1, 0, 0)
    assert len(server.received) == 1


# --- delays ---


def test_the_backoff_is_random_below_a_limit_that_doubles() -> None:
    policy = RetryPolicy(base=0.5, cap=3.0)
    for attempt, ceiling in [(1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (5, 3.0), (5000, 3.0)]:
        delays = [policy.delay(attempt) for _ in range(300)]
        assert 0 <= min(delays) < ceiling / 4
        assert ceiling * 3 / 4 < max(delays) <= ceiling


async def test_every_document_of_an_attempt_is_its_own(server: Server, api: ImagesAPI) -> None:
    def answer(request: Received) -> Answer:
        number = int(request.path.rpartition("/")[2])
        return reply({"image": image_document(number)})

    server.answer_with(answer)
    images = await asyncio.gather(*(api.get(number) for number in range(1, 101)))
    assert [image.id for image in images] == list(range(1, 101))
