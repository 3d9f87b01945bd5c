"""A permit for the length of a block."""

from __future__ import annotations

from types import TracebackType

from do_images_async._quota.protocols import Limiter, Permit

__all__ = ["PermitContext"]


class PermitContext:
    """Acquires a permit when a block is entered, and settles it at the end, or loses it if the block raises.

    Args:
        limiter: whose permit it is.
        max_wait, reserve: as in its `acquire`.
    """

    __slots__ = ("_limiter", "_max_wait", "_permit", "_reserve")

    def __init__(self, limiter: Limiter, *, max_wait: float | None, reserve: int) -> None:
        self._limiter = limiter
        self._max_wait = max_wait
        self._reserve = reserve
        self._permit: Permit | None = None

    async def __aenter__(self) -> Permit:
        self._permit = permit = await self._limiter.acquire(max_wait=self._max_wait, reserve=self._reserve)
        return permit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        permit, self._permit = self._permit, None
        if permit is None:
            return
        # What the block has reported itself stays: a permit takes one report.
        if error is None:
            permit.settle()
        else:
            permit.lose()
