"""The log, the metrics and the traces of a call, which never hold the token."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from do_images_async import ImagesAPI, RateLimiter, TokenBucket
from do_images_async._http.bodies import ImageBody
from do_images_async._http.logs import route_of
from do_images_async._http.request import Call
from do_images_async._quota.protocols import Permit
from do_images_async.errors import (
    ClientStateError,
    DecodeError,
    NotFoundError,
    QuotaWaitError,
    RequestTimeoutError,
    TransportError,
)
from do_images_async.events import AttemptEnded, Event, PermitGranted
from tests.conftest import FAST, ONCE, TOKEN
from tests.docs.programs import metrics, tracing
from tests.support.logs import without_quota_wait
from tests.support.servers import (
    HANG,
    RESET,
    Answer,
    Server,
    content,
    eventually,
    image_document,
    image_reply,
    refusal,
    reply,
)

LIMITS = {"ratelimit-limit": "5000", "ratelimit-remaining": "4999", "ratelimit-reset": "1444931833"}


class Told:
    """A hook that records its events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def permits(self) -> list[PermitGranted]:
        return [event for event in self.events if isinstance(event, PermitGranted)]

    @property
    def ends(self) -> list[AttemptEnded]:
        return [event for event in self.events if isinstance(event, AttemptEnded)]


def client(server: Server, told: Told, **options: Any) -> ImagesAPI:
    return ImagesAPI(TOKEN, base_url=server.url, retry=FAST, on_event=told, **options)


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "do_images_async"]


# The log.


async def test_an_attempt_is_one_record_and_a_retry_a_warning(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "do_images_async")
    server.script(refusal(503, headers={"x-request-id": "r-1"}), RESET, image_reply(7))
    await api.get(7)
    records = logged(caplog)
    assert [record.levelname for record in records] == ["WARNING", "WARNING", "DEBUG"]
    fields = [vars(record) for record in records]
    assert [each["attempt"] for each in fields] == [1, 2, 3]
    assert [each["outcome"] for each in fields] == ["503", "TransportError", "200"]
    assert [each["status"] for each in fields] == [503, None, 200]
    assert fields[0]["request_id"] == "r-1"
    assert {each["route"] for each in fields} == {"/v2/images/{image_id}"}
    assert {each["url"] for each in fields} == {f"{server.url}/v2/images/7"}
    assert fields[0]["retry_in"] >= 0
    assert fields[2]["retry_in"] is None
    first, _, last = (without_quota_wait(record.getMessage()) for record in records)
    assert first.startswith(f"GET {server.url}/v2/images/7: attempt 1 failed, next in 0.00 s: ")
    assert last.startswith(f"GET {server.url}/v2/images/7: attempt 3 was answered 200 in 0.")


async def test_a_formatter_that_writes_json_takes_every_record(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    usual = vars(logging.makeLogRecord({})).keys() | {"message"}
    with_limits = reply({"image": image_document(7)}, headers=LIMITS)
    answers = (refusal(503, headers=LIMITS), with_limits, refusal(404), RESET, HANG)
    server.answer_with(lambda request: answers[len(server.received) - 1])
    async with client(server, Told(), limiter=RateLimiter(TokenBucket(5, per=60), slow_start=False)) as api:
        assert (await api.get(7)).id == 7
        once = api.with_options(retry=ONCE, max_wait=0)
        for error in (NotFoundError, TransportError):
            with pytest.raises(error):
                await once.get(7)
        with pytest.raises(RequestTimeoutError):
            await once.with_options(timeout=0.1).get(7)
        with pytest.raises(QuotaWaitError):
            await once.get(7)
    written = [
        json.loads(json.dumps({name: vars(record)[name] for name in vars(record).keys() - usual}))
        for record in caplog.records
        if record.name.startswith("do_images_async")
    ]
    assert [fields["outcome"] for fields in written] == [
        *("503", "200", "404", "TransportError", "RequestTimeoutError", "QuotaWaitError")
    ]
    assert written[1]["rate_limit"] == {"limit": 5000, "remaining": 4999, "reset": 1444931833}
    assert written[2]["rate_limit"] is None


async def test_the_last_failure_is_no_warning_of_a_retry(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "do_images_async")
    server.script(refusal(404))
    with pytest.raises(NotFoundError):
        await api.get(7)
    (record,) = logged(caplog)
    assert record.levelno == logging.DEBUG
    assert "attempt 1 failed: GET" in without_quota_wait(record.getMessage())


async def test_neither_the_token_nor_a_body_is_ever_logged(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script(image_reply(7, name="my secret", description="the answer's secret"), refusal(422))
    await api.create_custom(name="my secret", url="https://example.com/a.img?signature=mine", region="nyc3")
    with pytest.raises(Exception, match="422"):
        await api.update(7, description="another secret")
    assert len(logged(caplog)) == 2
    for record in logged(caplog):
        text = f"{record.getMessage()} {vars(record)!r}"
        assert TOKEN not in text
        assert "secret" not in text
        assert "signature" not in text


async def test_without_a_log_or_a_hook_no_event_is_built(
    server: Server, api: ImagesAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not_be_asked() -> None:
        raise AssertionError("nobody listens")

    monkeypatch.setattr(api.limiter, "stats", must_not_be_asked)
    logging.getLogger("do_images_async").setLevel(logging.INFO)
    try:
        server.script(image_reply(7))
        await api.get(7)
    finally:
        logging.getLogger("do_images_async").setLevel(logging.NOTSET)


# The hook.


async def test_the_hook_is_called_for_the_permit_and_the_end(server: Server) -> None:
    told = Told()
    server.script(image_reply(7, slug="ubuntu-24-04-x64"))
    async with client(server, told) as api:
        await api.get("ubuntu-24-04-x64")
    permit, end = told.events
    assert permit == PermitGranted(
        method="GET", route="/v2/images/{image_id}", attempt=1, quota_wait=told.permits[0].quota_wait
    )
    assert isinstance(end, AttemptEnded)
    assert (end.status, end.outcome, end.error, end.permitted) == (200, "200", None, True)
    assert end.available == (249, 4999)
    assert end.quota_wait >= 0
    assert 0 < end.duration < 10


async def test_the_hook_is_called_for_retries_with_the_servers_quota(server: Server) -> None:
    told = Told()
    server.script(
        refusal(429, headers={"retry-after": "0", "x-request-id": "r-9"}),
        Answer(
            image_reply(7).data.replace(
                b"\r\n\r\n",
                b"\r\nratelimit-limit: 5000\r\nratelimit-remaining: 4998\r\nratelimit-reset: 9\r\n\r\n",
                1,
            )
        ),
    )
    async with client(server, told) as api:
        await api.get(7)
        assert told.ends[1].rate_limit == api.rate_limit is not None
    assert [end.outcome for end in told.ends] == ["429", "200"]
    assert [end.retry_in is None for end in told.ends] == [False, True]
    assert told.ends[0].request_id == "r-9"
    assert [permit.attempt for permit in told.permits] == [1, 2]


@pytest.mark.parametrize(
    ("answer", "error", "status"),
    [
        (refusal(404), NotFoundError, 404),
        (RESET, TransportError, None),
        (HANG, RequestTimeoutError, None),
        (content(b"{}"), DecodeError, 200),
    ],
)
async def test_the_hook_gets_the_error_of_a_failed_attempt(
    server: Server, answer: Answer, error: type[Exception], status: int | None
) -> None:
    told = Told()
    server.script(answer)
    async with client(server, told) as api:
        with pytest.raises(error) as caught:
            await api.with_options(retry=ONCE, timeout=0.2 if answer is HANG else 30.0).get(7)
    (end,) = told.ends
    assert end.error is caught.value
    assert end.status == status
    assert end.outcome == ("404" if status == 404 else error.__name__)


async def test_the_hook_is_called_for_waits_and_for_refused_waits(server: Server) -> None:
    told = Told()
    limiter = RateLimiter(TokenBucket(1, per=1, margin=0))
    server.answer_with(lambda _: image_reply(7))
    async with client(server, told, limiter=limiter) as api:
        await api.get(7)
        with pytest.raises(QuotaWaitError):
            await api.with_options(max_wait=0).get(7)
        await api.get(7)
    first, refused, second = told.ends
    assert first.quota_wait < second.quota_wait
    assert not refused.permitted
    assert refused.outcome == "QuotaWaitError"
    assert refused.duration == 0
    assert second.quota_wait > 0.1
    assert len(told.permits) == 2


async def test_the_hook_is_called_for_a_cancelled_attempt(server: Server) -> None:
    told = Told()
    server.script(HANG)
    async with client(server, told) as api:
        call = asyncio.create_task(api.get(7))
        await eventually(lambda: len(server.received) == 1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    (end,) = told.ends
    assert (end.outcome, end.error, end.status) == ("cancelled", None, None)


async def test_the_hook_is_called_when_the_client_is_closed(server: Server) -> None:
    told = Told()
    api = client(server, told)
    await api.aclose()
    with pytest.raises(ClientStateError):
        await api.get(7)
    assert [end.outcome for end in told.ends] == ["ClientStateError"]


async def test_a_hook_that_raises_does_not_end_the_call(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Event) -> None:
        raise ZeroDivisionError("the hook's own fault")

    server.script(image_reply(7))
    async with ImagesAPI(TOKEN, base_url=server.url, on_event=broken) as api:
        assert (await api.get(7)).id == 7
    assert [record.levelname for record in logged(caplog)] == ["ERROR", "ERROR"]
    assert "the hook's own fault" in caplog.text


class StopNow(BaseException):
    """An exception that is no `Exception`, as KeyboardInterrupt and CancelledError are."""


@pytest.mark.parametrize("kind", [PermitGranted, AttemptEnded])
async def test_a_hook_that_ends_the_program_leaves_no_permit_taken(server: Server, kind: type[Event]) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, kind):
            raise StopNow

    server.script(image_reply(7))
    limiter = RateLimiter()
    async with ImagesAPI(TOKEN, base_url=server.url, on_event=stop, limiter=limiter) as api:
        with pytest.raises(StopNow):
            await api.get(7)
    stats = limiter.stats()
    assert (stats.granted, stats.in_flight) == ((0, 0) if kind is PermitGranted else (1, 0))
    assert len(server.received) == stats.granted


async def test_the_exception_of_a_custom_limiter_is_named_and_not_shown(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(RateLimiter):
        async def acquire(self, *, max_wait: float | None = None, reserve: int = 0) -> Permit:
            raise ZeroDivisionError("with a secret in it")

    caplog.set_level(logging.DEBUG, "do_images_async")
    told = Told()
    async with client(server, told, limiter=Broken()) as api:
        with pytest.raises(ZeroDivisionError):
            await api.get(7)
    assert [(end.outcome, end.error, end.permitted) for end in told.ends] == [
        ("ZeroDivisionError", None, False)
    ]
    (record,) = logged(caplog)
    assert without_quota_wait(record.getMessage()).endswith("attempt 1 failed: ZeroDivisionError")
    assert "secret" not in f"{vars(record)!r}"


def test_a_hook_must_be_callable() -> None:
    with pytest.raises(TypeError, match="on_event must be callable or None"):
        ImagesAPI(TOKEN, on_event="print")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2/images", "/v2/images"),
        ("/v2/images/42", "/v2/images/{image_id}"),
        ("/v2/images/ubuntu-24-04-x64", "/v2/images/{image_id}"),
        ("/v2/images/42/actions", "/v2/images/{image_id}/actions"),
        ("/v2/images/42/actions/9", "/v2/images/{image_id}/actions/{action_id}"),
        ("/v2/images/42/account_transfer/accept", "/v2/images/{image_id}/account_transfer/accept"),
    ],
)
def test_a_route_has_no_ids(path: str, route: str) -> None:
    assert route_of(path) == route


async def test_a_call_of_another_resource_states_its_route(server: Server) -> None:
    told = Told()
    server.script(image_reply(7))
    route = "/v2/snapshots/{snapshot_id}"
    async with client(server, told) as api:
        call = Call(method="GET", path="/v2/snapshots/7", model=ImageBody, route=route)
        await api._transport.send(call, api._options)  # pyright: ignore[reportPrivateUsage]
    assert [event.route for event in told.events] == [route, route]


# Metrics, as the documentation wires them.


async def test_prometheus_counts_requests_retries_and_waits(server: Server) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    route = {"method": "GET", "route": "/v2/images/{image_id}"}
    before = {
        outcome: value("do_images_requests_total", **route, outcome=outcome) for outcome in ("200", "429")
    }
    retries, waited = value("do_images_retries_total"), value("do_images_quota_wait_seconds_total")
    limiter = RateLimiter(TokenBucket(2, per=1.5, margin=0))
    server.script(refusal(429, headers={"retry-after": "0"}), image_reply(7), image_reply(7))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, on_event=metrics.count) as api:
        await api.get(7)
        await api.get(7)
    assert value("do_images_requests_total", **route, outcome="200") == before["200"] + 2
    assert value("do_images_requests_total", **route, outcome="429") == before["429"] + 1
    assert value("do_images_retries_total") == retries + 1
    assert value("do_images_quota_wait_seconds_total") > waited + 0.05
    assert value("do_images_tokens_left") <= 1


# Traces, by the ecosystem's own instrumentation of aiohttp.


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("do_images"))
    tracing.instrument()
    yield exporter
    AioHttpClientInstrumentor().uninstrument()


async def test_spans_show_attempts_and_waits_for_quota(server: Server, spans: InMemorySpanExporter) -> None:
    limiter = RateLimiter(TokenBucket(1, per=1.5, margin=0))
    server.script(refusal(503), image_reply(7))
    tracer = trace.get_tracer("test")
    async with ImagesAPI(
        TOKEN, base_url=server.url, limiter=limiter, retry=FAST, on_event=tracing.trace_attempt
    ) as api:
        with tracer.start_as_current_span("the user's own"):
            await api.get(7)
    *_, wait = [span for span in spans.get_finished_spans() if span.name == "wait for quota"]
    first, second = [span for span in spans.get_finished_spans() if span.name == "GET"]
    (own,) = [span for span in spans.get_finished_spans() if span.name == "the user's own"]

    assert [attribute(span, "http.request.resend_count") for span in (first, second)] == [0, 1]
    assert [attribute(span, "http.status_code", "http.response.status_code") for span in (first, second)] == [
        503,
        200,
    ]
    assert {parent(first), parent(second)} == {context_of(own)}, "attempts are siblings under the user's span"
    assert parent(wait) == context_of(second), "the wait is a part of the attempt that waited"
    assert seconds(wait) > 0.05
    assert seconds(second) >= seconds(wait)
    assert TOKEN not in "".join(span.to_json() for span in spans.get_finished_spans())


async def test_a_failed_attempt_leaves_no_token_in_its_span(
    server: Server, spans: InMemorySpanExporter
) -> None:
    server.script(RESET)
    async with ImagesAPI(TOKEN, base_url=server.url, retry=ONCE) as api:
        with pytest.raises(TransportError):
            await api.get(7)
    (span,) = spans.get_finished_spans()
    assert not span.status.is_ok
    assert TOKEN not in span.to_json()


def attribute(span: ReadableSpan, *names: str) -> object:
    attributes = span.attributes or {}
    return next((attributes[name] for name in names if name in attributes), None)


def context_of(span: ReadableSpan) -> int:
    assert span.context is not None
    number: int = span.context.span_id
    return number


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9
