"""The checks of `ImagesEmulator`'s arguments."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Sequence
from typing import Any

import attrs

from do_images_async.testing.admin_access import host_name, listening_name
from do_images_async.testing.answers import Style
from do_images_async.testing.arguments import duration, flag, number, one_of, or_none, whole
from do_images_async.testing.quota import Quota

__all__ = ["Settings"]

_DAY = 86_400.0  # the longest latency, in seconds
_LATEST = 1e11  # Unix time that is still a date


def _quotas(quotas: Any) -> Any:
    """Return limits that no caller changes."""
    if quotas is None:
        return None
    if isinstance(quotas, str | bytes) or not isinstance(quotas, Sequence):
        raise TypeError("quotas must be several Quota(limit, seconds), or None for no limit")
    return tuple(quotas)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _only_quotas(_: object, __: object, quotas: tuple[Any, ...] | None) -> None:
    if quotas is None:
        return
    if not all(isinstance(each, Quota) for each in quotas):
        raise TypeError("quotas must be several Quota(limit, seconds), or None for no limit")
    if not quotas:
        raise ValueError("quotas must hold at least one Quota(limit, seconds); None is for no limit")


def _host(host: Any) -> str:
    if not isinstance(host, str):
        raise TypeError("host must be a host name or an address")
    try:
        return listening_name(host)
    except ValueError as error:
        raise ValueError(f"host: {error}") from None


def _names(names: Any) -> frozenset[str]:
    if isinstance(names, str):
        raise TypeError("names must be several host names, not one string")
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):  # pyright: ignore[reportUnknownVariableType]
        raise TypeError("names must be several host names, each a string")
    try:
        return frozenset(map(host_name, names))  # pyright: ignore[reportUnknownArgumentType]
    except ValueError as error:
        raise ValueError(f"names: {error}") from None


def _tls(_: object, __: object, tls: Any) -> None:
    if tls is not None and not isinstance(tls, ssl.SSLContext):
        raise TypeError("tls must be an ssl.SSLContext, or None for plain HTTP")


def _clock(_: object, __: object, clock: Any) -> None:
    if not callable(clock):
        raise TypeError("clock must be a function that returns Unix time in seconds")


@attrs.define(kw_only=True)
class Settings:
    """The arguments, of which each is known to be usable; so is a value that is set later."""

    images: int = attrs.field(validator=whole(0))
    seed: int = attrs.field(validator=whole())
    quotas: Sequence[Quota] | None = attrs.field(converter=_quotas, validator=_only_quotas)
    import_seconds: float = attrs.field(validator=duration)
    action_seconds: float = attrs.field(validator=duration)
    latency: float = attrs.field(validator=number(0, _DAY))
    jitter: float = attrs.field(validator=number(0, _DAY))
    host: str = attrs.field(converter=_host)
    port: int = attrs.field(validator=whole(0, 65535))
    tls: ssl.SSLContext | None = attrs.field(validator=_tls)
    clock: Callable[[], float] = attrs.field(validator=_clock)
    journal_limit: int | None = attrs.field(validator=or_none(whole(0, 1e9)))
    style: Style = attrs.field(validator=one_of(Style))
    burst_remaining_zero: bool = attrs.field(validator=flag)
    names: Collection[str] = attrs.field(converter=_names)
    remote_admin: bool = attrs.field(validator=flag)

    def now(self) -> float:
        """Return the clock's time.

        Raises:
            TypeError: it is not Unix time.
        """
        now: Any = self.clock()
        if isinstance(now, bool) or not isinstance(now, int | float) or not 0 <= now <= _LATEST:
            raise TypeError("clock must return Unix time in seconds")
        return now
