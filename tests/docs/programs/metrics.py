"""Counts what the client does, for Prometheus: `ImagesAPI.from_env(on_event=count)`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from do_images_async.events import AttemptEnded, Event

REQUESTS = Counter("do_images_requests", "Requests sent.", ["method", "route", "outcome"])
RETRIES = Counter("do_images_retries", "Attempts that another one followed.")
WAITED = Counter("do_images_quota_wait_seconds", "Seconds that attempts waited for the quota.")
TOKENS = Gauge("do_images_tokens_left", "Requests that may be sent now without waiting.")


def count(event: Event) -> None:
    if isinstance(event, AttemptEnded):
        REQUESTS.labels(event.method, event.route, event.outcome).inc(event.permitted)
        RETRIES.inc(event.retry_in is not None)
        WAITED.inc(event.quota_wait)
        TOKENS.set(min(event.available))
