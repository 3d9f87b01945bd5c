"""What happens to each attempt, told to the log and to a hook: for metrics, traces and whoever reads logs.

Neither ever sees the token or a body. The log is `do_images_async`: an attempt is one record, at WARNING when
another attempt follows and at DEBUG otherwise; what the hook is told is in the record's `extra` too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs
from yarl import URL

from do_images_async.errors import APIError, DOImagesError
from do_images_async.models import RateLimit
from do_images_async.ratelimit import Limiter

__all__ = ["AttemptEnded", "Event", "EventHook", "PermitGranted", "Watch", "logger", "route_of"]

logger: Final = logging.getLogger("do_images_async")
logger.addHandler(logging.NullHandler())

_ACTION_POSITION: Final = 5
_CANCELLED: Final = "cancelled"
_WORTH_SAYING: Final = 0.01  # seconds


@attrs.frozen(kw_only=True)
class PermitGranted:
    """An attempt has its permit and is sent now; told inside the attempt, so in its trace span as well.

    Attributes:
        method: the request's HTTP method.
        route: its path with names in the place of ids, such as `/v2/images/{image_id}`: a metric's label.
        attempt: its number within the call, from 1.
        quota_wait: seconds that it waited for the quota.
    """

    method: str
    route: str
    attempt: int
    quota_wait: float


@attrs.frozen(kw_only=True)
class AttemptEnded:
    """An attempt is over, one way or the other.

    Attributes:
        method, route, attempt, quota_wait: as in `PermitGranted`.
        duration: seconds from the permit to the end; 0.0 without a permit.
        permitted: whether it had its permit. Without one, nothing was sent.
        outcome: a word for it out of a small set: the status, "cancelled", or the exception's class.
        status: the HTTP status; None when no answer came.
        error: what it failed with; None when it succeeded or was cancelled.
        retry_in: seconds until the next attempt; None when this was the last one.
        request_id: what the provider's support asks for.
        rate_limit: the hour's quota as the answer reported it.
        available: tokens that are free now, one number for each bucket of the limiter.
    """

    method: str
    route: str
    attempt: int
    quota_wait: float
    duration: float
    permitted: bool
    outcome: str
    status: int | None
    error: DOImagesError | None
    retry_in: float | None
    request_id: str | None
    rate_limit: RateLimit | None
    available: tuple[int, ...]


Event: TypeAlias = PermitGranted | AttemptEnded
EventHook: TypeAlias = Callable[[Event], None]


@attrs.define(kw_only=True)
class Watch:
    """One attempt, watched from before it waits for its permit until it is over."""

    method: str
    path: str
    url: URL
    attempt: int
    limiter: Limiter
    hook: EventHook | None
    status: int | None = None
    request_id: str | None = None
    rate_limit: RateLimit | None = None
    asked_at: float | None = None
    permitted_at: float | None = None

    def asks(self) -> None:
        """Note that the attempt asks for its permit."""
        if self.asked_at is None:
            self.asked_at = time.monotonic()

    def permitted(self) -> None:
        """Note that the attempt has its permit. aiohttp may send a message twice: the first one counts."""
        if self.permitted_at is not None:
            return
        self.permitted_at = time.monotonic()
        if self.hook is not None:
            self._tell(
                PermitGranted(
                    method=self.method,
                    route=route_of(self.path),
                    attempt=self.attempt,
                    quota_wait=self._waited(self.permitted_at),
                )
            )

    def answered(self, status: int, request_id: str | None, rate_limit: RateLimit | None) -> None:
        """Note what the response's headers say."""
        self.status, self.request_id, self.rate_limit = status, request_id, rate_limit

    def ended(self, error: BaseException | None = None, *, retry_in: float | None = None) -> None:
        """Tell the log and the hook how the attempt ended."""
        level = logging.DEBUG if retry_in is None else logging.WARNING
        if self.hook is None and not logger.isEnabledFor(level):
            return
        event = self._describe(error, retry_in)
        if logger.isEnabledFor(level):
            self._log(level, event)
        if self.hook is not None:
            self._tell(event)

    def _describe(self, error: BaseException | None, retry_in: float | None) -> AttemptEnded:
        now = time.monotonic()
        permitted_at = now if self.permitted_at is None else self.permitted_at
        return AttemptEnded(
            method=self.method,
            route=route_of(self.path),
            attempt=self.attempt,
            quota_wait=self._waited(permitted_at),
            duration=now - permitted_at,
            permitted=self.permitted_at is not None,
            outcome=self._outcome(error),
            status=self.status,
            error=error if isinstance(error, DOImagesError) else None,
            retry_in=retry_in,
            request_id=(error.request_id if isinstance(error, APIError) else None) or self.request_id,
            rate_limit=self.rate_limit,
            available=self.limiter.stats().available,
        )

    def _outcome(self, error: BaseException | None) -> str:
        if error is None or isinstance(error, APIError):
            return str(self.status)
        return type(error).__name__ if isinstance(error, Exception) else _CANCELLED

    def _waited(self, until: float) -> float:
        return 0.0 if self.asked_at is None else until - self.asked_at

    def _log(self, level: int, event: AttemptEnded) -> None:
        fields = attrs.asdict(event, recurse=False) | {"url": str(self.url)}
        fields["error"] = None if event.error is None else type(event.error).__name__
        logger.log(level, "%s %s: %s", self.method, self.url, _sentence(event), extra=fields)

    def _tell(self, event: Event) -> None:
        if self.hook is None:
            return
        try:
            self.hook(event)
        except Exception:
            # Whoever counts requests must not be able to break them.
            logger.exception("on_event raised; the call goes on")


def _sentence(event: AttemptEnded) -> str:
    waited = (
        f" (after {event.quota_wait:.2f} s of waiting for quota)" if event.quota_wait >= _WORTH_SAYING else ""
    )
    if event.outcome == _CANCELLED:
        return f"attempt {event.attempt} was cancelled after {event.duration:.3f} s{waited}"
    if event.outcome == str(event.status) and event.error is None:
        return f"attempt {event.attempt} was answered {event.status} in {event.duration:.3f} s{waited}"
    following = "" if event.retry_in is None else f", next in {event.retry_in:.2f} s"
    return f"attempt {event.attempt} failed{following}{waited}: {event.error or event.outcome}"


def route_of(path: str) -> str:
    """A path of the API with names in the place of its ids."""
    parts = path.split("/")
    if len(parts) > 3:
        parts[3] = "{image_id}"
    if len(parts) > _ACTION_POSITION and parts[4] == "actions":
        parts[_ACTION_POSITION] = "{action_id}"
    return "/".join(parts)
