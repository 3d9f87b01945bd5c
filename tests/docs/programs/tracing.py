"""Shows attempts and waits for the quota in traces: `ImagesAPI.from_env(on_event=trace_attempt)`.

The spans of the requests are those of OpenTelemetry's own instrumentation of aiohttp. Call `instrument`
before the first client makes its session.
"""

from __future__ import annotations

import time

from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor

from do_images_async.events import Event, PermitGranted

tracer = trace.get_tracer("do_images")


def instrument() -> None:
    AioHttpClientInstrumentor().instrument()


def trace_attempt(event: Event) -> None:
    if isinstance(event, PermitGranted):
        trace.get_current_span().set_attribute("http.request.resend_count", event.attempt - 1)
        if event.quota_wait > 0.001:
            now = time.time_ns()
            wait = tracer.start_span("wait for quota", start_time=now - round(event.quota_wait * 1e9))
            wait.end(now)
