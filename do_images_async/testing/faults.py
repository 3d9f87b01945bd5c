"""Faults: the failures, the requests that they apply to, and their number."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
from aiohttp import web

from do_images_async.testing.arguments import (
    flag,
    header_fields,
    is_json,
    number,
    one_of,
    or_none,
    text,
    whole,
)
from do_images_async.testing.journal import check_request, matches

__all__ = ["Body", "Fault", "Faults", "Pages"]

Broken = Literal["reset", "reset-body", "cut", "stall", "stall-body"]
Encoding = Literal["gzip", "corrupt-gzip"]
Pages = Literal["duplicated", "created", "deleted", "looping"]
_DAY = 86_400.0  # the longest pause, in seconds
_EDGE_STATUSES = range(520, 531)  # only Cloudflare answers with these
Body = bytes | str | Mapping[str, Any] | Sequence[Any]


def _as_bytes(name: str, body: Body | None) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    if not is_json(body):
        raise ValueError(
            f"{name} must be bytes, a string or JSON data, without NaN, infinity and lone surrogates"
        )
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def _body(body: Body | None) -> bytes | None:
    return _as_bytes("body", body)


def _raw(raw: Body | None) -> bytes | None:
    return _as_bytes("raw", raw)


def _possible(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Raise unless a request can have this method or path."""
    check_request(**{"method": None, "path": None, attribute.name: value})


@attrs.define(kw_only=True)
class Fault:
    """A failure for the requests that it matches; one fault can combine several kinds.

    Args:
        method: only requests with this method.
        path: only this path, without a query. `*` in it matches anything, and `[0-9]` one of these
            characters; `[[]` is a bracket.
        times: how many requests it applies to; None for all.
        probability: the probability that it applies to a matching request, from 0 to 1.
        after: whether the request is executed first, so that only the response is lost or damaged.
        delay: seconds to wait before anything else.
        jitter: the most seconds that are drawn at random and added to `delay`.
        status: answer with this status instead; 520 to 530 with the edge's HTML page, see `edge`.
        body: answer with this body instead, as it is or as JSON; with `status` alone, an error body of the
            API's shape.
        headers: headers to add to the answer; an empty value removes a header. Without `content-length`, or
            with `connection: close`, the connection is closed after the answer.
        edge: answer `status`, by default 502, with an HTML page as the servers in front of the API do: no
            JSON, no quota headers and no request id.
        raw: send these bytes instead of an HTTP answer, and close.
        broken: "reset" closes the connection hard without an answer, "stall" sends nothing until the client
            gives up. The others send the headers and half the body of what would be answered, and then:
            "cut" closes, "reset-body" closes hard, "stall-body" sends nothing more.
        pace: seconds between the bytes of the body.
        malformed: whether the body's JSON ends too early, with everything else in order.
        encoding: "gzip" compresses the body, whether or not the client asked for it; "corrupt-gzip" also
            damages it.
        pages: how a page of a listing is wrong: "duplicated" repeats the images of the page before; "created"
            and "deleted" shift it, as if an image had been created or deleted on an earlier page
            meanwhile; "looping" links to this page as the next.
        reset_skew: seconds by which the clock for `ratelimit-reset` is ahead.
        reset_in: seconds from now to `ratelimit-reset`; negative for a reset in the past.

    Attributes:
        struck: the number of requests that it has applied to.
    """

    method: str | None = attrs.field(default=None, validator=[or_none(text), _possible])
    path: str | None = attrs.field(default=None, validator=[or_none(text), _possible])
    times: int | None = attrs.field(default=1, validator=or_none(whole(0)))
    probability: float = attrs.field(default=1.0, validator=number(0, 1))
    after: bool = attrs.field(default=False, validator=flag)
    delay: float = attrs.field(default=0.0, validator=number(0, _DAY))
    jitter: float = attrs.field(default=0.0, validator=number(0, _DAY))
    status: int | None = attrs.field(default=None, validator=or_none(whole(200, 599)))
    body: bytes | None = attrs.field(default=None, converter=_body)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], validator=header_fields)
    edge: bool = attrs.field(default=False, validator=flag)
    raw: bytes | None = attrs.field(default=None, converter=_raw)
    broken: Broken | None = attrs.field(default=None, validator=or_none(one_of(Broken)))
    pace: float = attrs.field(default=0.0, validator=number(0, _DAY))
    malformed: bool = attrs.field(default=False, validator=flag)
    encoding: Encoding | None = attrs.field(default=None, validator=or_none(one_of(Encoding)))
    pages: Pages | None = attrs.field(default=None, validator=or_none(one_of(Pages)))
    reset_skew: float = attrs.field(default=0.0, validator=number(-1e9, 1e9))
    reset_in: float | None = attrs.field(default=None, validator=or_none(number(-1e9, 1e9)))
    struck: int = attrs.field(default=0, init=False)

    def matches(self, request: web.BaseRequest) -> bool:
        """Return whether the fault may apply to this request."""
        if self.times is not None and self.struck >= self.times:
            return False
        return self.method in (None, request.method) and matches(self.path, request.path)

    @property
    def answers(self) -> bool:
        """Return whether the fault replaces the response."""
        return self.status is not None or self.body is not None or self.edge

    @property
    def from_edge(self) -> bool:
        """Return whether the response is an HTML page of the edge, unless `body` replaces it."""
        return self.edge or (self.status is not None and self.status in _EDGE_STATUSES)

    @property
    def silent(self) -> bool:
        """Return whether the client receives no status."""
        return self.raw is not None or self.broken in ("reset", "stall")

    @property
    def prevents(self) -> bool:
        """Return whether the fault keeps the request from being executed."""
        return not self.after and (self.answers or self.silent)


_CHOOSING = {"method", "path", "times", "probability", "after"}
"""The arguments of a fault that choose requests; the others do something to them."""
_EFFECTS = [each.name for each in attrs.fields(Fault) if each.init and each.name not in _CHOOSING]
_WITHOUT_EFFECT = Fault()


class Faults:
    """The active faults; the first that matches a request applies.

    Args:
        seed: the seed of the probabilities.
    """

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._faults: list[Fault] = []

    def __len__(self) -> int:
        return len(self._faults)

    def __iter__(self) -> Iterator[Fault]:
        return iter(tuple(self._faults))

    def add(self, fault: Fault) -> Fault:
        """Activate a fault, after the active ones, and return it.

        Raises:
            ValueError: the fault does nothing.
        """
        if all(getattr(fault, name) == getattr(_WITHOUT_EFFECT, name) for name in _EFFECTS):
            raise ValueError(f"a fault needs one of {', '.join(_EFFECTS)}: this one would do nothing")
        self._faults.append(fault)
        return fault

    def storm(self, times: int | None = 100, *, retry_after: int | None = 1) -> Fault:
        """Answer the next requests with 429, regardless of the quota.

        Args:
            times: how many; None refuses all.
            retry_after: whole seconds for `retry-after`; None omits it, as for a spent hour.
        """
        headers = {} if retry_after is None else {"retry-after": str(retry_after)}
        return self.add(Fault(status=429, times=times, headers=headers))

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def match(self, request: web.BaseRequest) -> Fault | None:
        """Return the fault that applies to this request and count it; None if there is none."""
        for fault in self:
            if fault.matches(request) and self._dice.random() < fault.probability:
                fault.struck += 1
                return fault
        return None

    def pause(self, fault: Fault) -> float:
        """Return the seconds to wait before anything else."""
        return fault.delay + (fault.jitter * self._dice.random() if fault.jitter else 0.0)
