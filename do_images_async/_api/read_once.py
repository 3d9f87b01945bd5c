"""The async generators that users get: a second loop over one is an error, not an empty loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Literal, Self, TypeVar

from do_images_async._arguments import check_unread, is_read

__all__ = ["ReadOnce"]

V = TypeVar("V")


class ReadOnce(AsyncGenerator[V, None]):
    """A generator that a loop can't begin again once it is finished.

    A generator of Python yields nothing then, which would pass for an empty listing, or for work that is all
    done: in a cell of a notebook that is run again, or in a loop that is tried again after an error.

    Attributes:
        kind: the word for it in messages.
        has_begun: whether something was read of it.
    """

    def __init__(
        self, generator: AsyncGenerator[V, None], kind: Literal["listing", "generator of outcomes"]
    ) -> None:
        self._generator = generator
        self.kind = kind
        self.has_begun = False

    def __repr__(self) -> str:
        if is_read(self._generator):
            return f"<{self.kind} that was read to its end or closed>"
        return f"<{self.kind} that {'has begun' if self.has_begun else 'has not begun'}>"

    def __aiter__(self) -> Self:
        check_unread(self._generator, f"this {self.kind}")
        return self

    def __anext__(self) -> Coroutine[Any, Any, V]:
        self.has_begun = True
        return self._generator.__anext__()

    def asend(self, value: None) -> Coroutine[Any, Any, V]:
        self.has_begun = True
        return self._generator.asend(value)

    def athrow(self, *error: Any) -> Coroutine[Any, Any, V]:
        return self._generator.athrow(*error)

    def aclose(self) -> Coroutine[Any, Any, None]:
        return self._generator.aclose()
