"""One call of each HTTP method about image 42, its success, and its failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from do_images_async import ImagesAPI, errors
from tests.support.servers import NO_CONTENT, Answer, image_reply

__all__ = ["CALLS", "EVERY_METHOD", "IDEMPOTENT", "Method", "failure", "success"]

Method = Callable[[ImagesAPI], Awaitable[object]]
CALLS: dict[str, Method] = {
    "GET": lambda api: api.get(42),
    "PUT": lambda api: api.update(42, name="a"),
    "DELETE": lambda api: api.delete(42),
    "POST": lambda api: api.create_custom(name="a", url="https://example.com/a.img", region="nyc3"),
}
EVERY_METHOD = pytest.mark.parametrize("method", CALLS)
IDEMPOTENT = pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])


def success(method: str) -> Answer:
    """Return the answer to the call of a method."""
    return NO_CONTENT if method == "DELETE" else image_reply(42, name="a")


async def failure(api: ImagesAPI, method: str) -> errors.DOImagesError:
    """Make the call of a method, and return what it raises."""
    with pytest.raises(errors.DOImagesError) as caught:
        await CALLS[method](api)
    return caught.value
