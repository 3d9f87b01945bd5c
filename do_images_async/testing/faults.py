"""Things that go wrong on demand: what, for which requests, and how often."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import attrs
from aiohttp import web

from do_images_async.testing.journal import matches

__all__ = ["Body", "Fault", "Faults", "Pages"]

Broken = Literal["reset", "reset-body", "cut", "stall", "stall-body"]
Encoding = Literal["gzip", "corrupt-gzip"]
Pages = Literal["duplicated", "created", "deleted", "looping"]
Body = bytes | str | Mapping[str, Any] | Sequence[Any]


def _as_bytes(body: Body | None) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def _from(least: float, most: float | None = None) -> Any:
    """A validator: a number in these bounds, or None where that is the default."""

    def check(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None and attribute.name in ("times", "status"):
            return
        kinds = int if attribute.name in ("times", "status") else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise TypeError(f"{attribute.name} must be a number, not {type(value).__name__}")
        if not (least <= value and (most is None or value <= most)):
            bounds = f"from {least:g}" if most is None else f"from {least:g} to {most:g}"
            raise ValueError(f"{attribute.name} must be {bounds}, not {value!r}")

    return check


def _one_of(literal: Any) -> Any:
    """A validator: one of the literal's values, or None."""

    def check(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None and value not in get_args(literal):
            raise ValueError(f"{attribute.name} must be one of {', '.join(get_args(literal))}, not {value!r}")

    return check


def _header_fields(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{attribute.name} must be a mapping, not {type(value).__name__}")
    texts: list[Any] = [*value.keys(), *value.values()]  # pyright: ignore[reportUnknownArgumentType]
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError(f"{attribute.name} must map printable strings to printable strings")


_TEXT = attrs.validators.optional(attrs.validators.instance_of(str))
_FLAG = attrs.validators.instance_of(bool)


@attrs.define(kw_only=True)
class Fault:
    """One kind of trouble for the requests that it matches; several kinds can be put into one fault.

    Args:
        method: only requests with this method.
        path: only this path; `*` in it stands for anything.
        times: how often it strikes; None for ever.
        probability: how likely it strikes a request that it matches.
        after: whether the request is carried out first, so that only the answer is lost or spoilt.
        delay: seconds to wait before anything else.
        jitter: seconds that are drawn at random and added to `delay`, at most.
        status: answer with this status instead.
        body: answer with this body instead, as it is or as JSON; with `status` alone, an error body of the
            API's shape.
        headers: headers to add to the answer; an empty value takes a header away.
        raw: send these bytes instead of an HTTP answer, and close.
        broken: "reset" closes the connection hard without an answer, "stall" sends nothing until the client
            gives up. The others send the headers and half the body of what would be answered, and then:
            "cut" closes, "reset-body" closes hard, "stall-body" sends nothing more.
        pace: seconds between the bytes of the body.
        malformed: whether the body's JSON ends too early, with everything else in order.
        encoding: "gzip" compresses the body, whether or not the client asked for it; "corrupt-gzip" also
            damages it.
        pages: what a page of a listing shows: "duplicated" the images of the page before, "created" and
            "deleted" what it shows when an image was created or deleted on an earlier page since that was
            read, "looping" a link to the next page that leads to this one.
        reset_skew: seconds by which the clock behind `ratelimit-reset` is fast.

    Attributes:
        struck: how often it has struck.
    """

    method: str | None = attrs.field(default=None, validator=_TEXT)
    path: str | None = attrs.field(default=None, validator=_TEXT)
    times: int | None = attrs.field(default=1, validator=_from(0))
    probability: float = attrs.field(default=1.0, validator=_from(0, 1))
    after: bool = attrs.field(default=False, validator=_FLAG)
    delay: float = attrs.field(default=0.0, validator=_from(0))
    jitter: float = attrs.field(default=0.0, validator=_from(0))
    status: int | None = attrs.field(default=None, validator=_from(200, 599))
    body: bytes | None = attrs.field(default=None, converter=_as_bytes)
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str], validator=_header_fields)
    raw: bytes | None = attrs.field(default=None, converter=_as_bytes)
    broken: Broken | None = attrs.field(default=None, validator=_one_of(Broken))
    pace: float = attrs.field(default=0.0, validator=_from(0))
    malformed: bool = attrs.field(default=False, validator=_FLAG)
    encoding: Encoding | None = attrs.field(default=None, validator=_one_of(Encoding))
    pages: Pages | None = attrs.field(default=None, validator=_one_of(Pages))
    reset_skew: float = attrs.field(default=0.0, validator=_from(-1e9, 1e9))
    struck: int = attrs.field(default=0, init=False)

    def matches(self, request: web.BaseRequest) -> bool:
        """Whether it may strike this request."""
        if self.times is not None and self.struck >= self.times:
            return False
        return self.method in (None, request.method) and matches(self.path, request.path)

    @property
    def answers(self) -> bool:
        """Whether it gives the answer itself."""
        return self.status is not None or self.body is not None

    @property
    def silent(self) -> bool:
        """Whether the client gets no status."""
        return self.raw is not None or self.broken in ("reset", "stall")

    @property
    def prevents(self) -> bool:
        """Whether the request is not carried out."""
        return not self.after and (self.answers or self.silent)


class Faults:
    """The faults in force; the first that matches strikes.

    Args:
        seed: what the probabilities are drawn from.
    """

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._faults: list[Fault] = []

    def __len__(self) -> int:
        return len(self._faults)

    def __iter__(self) -> Iterator[Fault]:
        return iter(tuple(self._faults))

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force, behind those that are; returns it."""
        self._faults.append(fault)
        return fault

    def storm(self, times: int | None = 100, *, retry_after: int | None = 1) -> Fault:
        """Refuse the next requests with 429, whatever the quota says.

        Args:
            times: how many; None refuses all.
            retry_after: whole seconds for `retry-after`; None leaves it out, as for a spent hour.
        """
        headers = {} if retry_after is None else {"retry-after": str(retry_after)}
        return self.add(Fault(status=429, times=times, headers=headers))

    def clear(self) -> None:
        """Take all faults away."""
        self._faults.clear()

    def match(self, request: web.BaseRequest) -> Fault | None:
        """Return the fault that applies to this request and count it; None if there is none."""
        for fault in self:
            if fault.matches(request) and self._dice.random() < fault.probability:
                fault.struck += 1
                return fault
        return None

    def pause(self, fault: Fault) -> float:
        """Seconds to wait before anything else."""
        return fault.delay + (fault.jitter * self._dice.random() if fault.jitter else 0.0)
