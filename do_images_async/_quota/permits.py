"""The permit of every limiter, and a permit for the length of a block."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

import msgspec

from do_images_async._quota.protocols import Limiter, Permit, Report, Ticket

__all__ = ["GrantedPermit", "Issuer", "PermitContext"]


class Issuer(Protocol):
    """What takes a permit's tokens back. Each permit calls one of the three, once."""

    def settled(self, ticket: Ticket, report: Report | None, /) -> None:
        """Take the tokens back after a response."""
        ...

    def lost(self, ticket: Ticket, /) -> None:
        """Take the tokens back after a request that was never answered."""
        ...

    def released(self, ticket: Ticket, /) -> None:
        """Take the tokens back after a request that was never sent."""
        ...


class GrantedPermit(msgspec.Struct, eq=False):
    """The right to send one request. Its holder reports exactly once what happened to the request.

    Attributes:
        issuer: is told what happened; None once it has been.
        ticket: the position of the request among the others.
    """

    issuer: Issuer | None
    ticket: Ticket

    def settle(self, report: Report | None = None) -> None:
        """Report that the response's headers arrived: the tokens come back one period from now.

        Args:
            report: what the headers say of the quota.
        """
        issuer, self.issuer = self.issuer, None
        if issuer is not None:
            issuer.settled(self.ticket, report)

    def release(self) -> None:
        """Report that the request was never sent: the tokens come back at once."""
        issuer, self.issuer = self.issuer, None
        if issuer is not None:
            issuer.released(self.ticket)

    def lose(self) -> None:
        """Report that no response arrived to a request that may have been sent.

        The tokens come back one grace and one period from now.
        """
        issuer, self.issuer = self.issuer, None
        if issuer is not None:
            issuer.lost(self.ticket)


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
