"""A call, its options and its reply; no I/O.

Objects that are made for every call are msgspec structs, which are made in C.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import attrs
import msgspec

from do_images_async._arguments import check_seconds, shown
from do_images_async._http.retry import RetryPolicy
from do_images_async.models import RateLimit

__all__ = ["Call", "Options", "Reply"]

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Options:
    """The options of a call; see `ImagesAPI`."""

    retry: RetryPolicy
    timeout: float | None
    max_wait: float | None
    reserve: int = 0

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.retry, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"retry must be a RetryPolicy, not {shown(self.retry)}")
        if self.timeout is not None:
            check_seconds(self.timeout, "timeout")
        if self.max_wait is not None:
            check_seconds(self.max_wait, "max_wait", zero=True)


class Call(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A request as an endpoint states it.

    Attributes:
        path: the path, already quoted.
        model: the type of a success.
        route: the path with placeholders for ids, as events name it; None for a path that `route_of` knows.
    """

    method: str
    path: str
    model: type[T]
    query: Mapping[str, str] | None = None
    body: Mapping[str, object] | None = None
    route: str | None = None


class Reply(msgspec.Struct, Generic[T], frozen=True):
    """A success: its model, and the quota in its headers."""

    value: T
    rate_limit: RateLimit | None
