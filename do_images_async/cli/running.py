"""The event loop of a command, and what Ctrl-C, SIGTERM and SIGHUP do to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

from do_images_async.cli.signals import interrupt_again, on_stopping
from do_images_async.cli.status import INTERRUPTED, Exit, Stopped

__all__ = ["run_interruptibly"]

T = TypeVar("T")


def run_interruptibly(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; Ctrl-C, SIGTERM or SIGHUP cancels it, and it may still return a result.

    `asyncio.run` would do the same but for a moment: a signal that comes just before the loop begins to wait
    is seen only when the wait is over, which may be half a minute. A signal handler of the loop wakes it.

    Raises:
        Stopped: it was interrupted and returned nothing.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_cancelled_by_signal(main))


async def _cancelled_by_signal(main: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(main)
    on_stopping(loop, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise Stopped(Exit.INTERRUPTED, INTERRUPTED) from None
    finally:
        interrupt_again(loop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory if it is installed (extra `uvloop`); None for asyncio's own loop."""
    if find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    return factory
