"""The reading of some images: the outcome of each, as far as it was read before an interruption."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

import attrs

from do_images_async import Image, Outcome

__all__ = ["Lookup"]

K = TypeVar("K", int, int | str)


@attrs.define
class Lookup(Generic[K]):
    """The reading of some images.

    Attributes:
        keys: the images, in the order of `found` and `errors`.
        interrupted: whether it was interrupted before it was complete.
    """

    keys: Sequence[K]
    interrupted: bool = attrs.field(default=False, init=False)
    _known: dict[K, Outcome[K, Image | None]] = attrs.field(
        factory=dict[K, Outcome[K, Image | None]], init=False
    )

    async def read(self, outcomes: AsyncGenerator[Outcome[K, Image | None], None]) -> None:
        """Read the outcomes, which may come in any order, until they end or the task is cancelled."""
        try:
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    self._known[outcome.key] = outcome
        except asyncio.CancelledError:
            self.interrupted = True

    @property
    def found(self) -> list[Image]:
        """Return the images that were read."""
        return [each.value for each in self._ended if each.value is not None]

    @property
    def errors(self) -> list[BaseException]:
        """Return why images could not be read."""
        return [each.error for each in self._ended if each.error is not None]

    @property
    def _ended(self) -> list[Outcome[K, Image | None]]:
        return [self._known[key] for key in self.keys if key in self._known]
