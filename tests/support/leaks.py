"""Search an exception for a secret in every place that could show it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from types import FrameType

import do_images_async


def family(error: BaseException) -> Iterator[BaseException]:
    """Return the exception, and all exceptions in its causes and contexts."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        queue += [current.__cause__, current.__context__]


def frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def shown(error: BaseException) -> Iterator[tuple[str, str]]:
    """Return every text that a log, a debugger or an error tracker would show, with its place."""
    package = do_images_async.__name__
    for member in family(error):
        name = type(member).__name__
        yield f"str of {name}", str(member)
        yield f"repr of {name}", repr(member)
        yield f"args of {name}", repr(member.args)
        yield f"attributes of {name}", repr(vars(member))
        for frame in frames(member):
            if not str(frame.f_globals.get("__name__", "")).startswith((package, "aiohttp")):
                continue
            for local, value in frame.f_locals.items():
                yield f"{local} in {frame.f_code.co_qualname}", _text_of(value)


def _text_of(value: object) -> str:
    try:
        return f"{value!r} {value!s}"
    except Exception as error:  # noqa: BLE001  (a half-built object is shown by its failure)
        return repr(error)


def assert_not_shown(secret: str, error: BaseException) -> None:
    places = [place for place, text in shown(error) if secret in text]
    assert not places, places
    assert secret.encode() not in pickle.dumps(error)
