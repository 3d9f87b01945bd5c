"""The event loop of a command, and what Ctrl-C, SIGTERM and SIGHUP do to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, TypeVar

from do_images_async.cli.in_flight import Interruption
from do_images_async.cli.signals import (
    INTERRUPTED,
    blocked,
    exit_again,
    hold_stopping,
    on_stopping,
    terminate_as_ctrl_c,
)
from do_images_async.cli.status import Exit, Stopped, message_with_notes
from do_images_async.errors import DOImagesError

__all__ = ["check_files", "run_interruptibly", "run_to_report"]

T = TypeVar("T")

_FILES: Final = 12
"""The files that must be free to open: those of an event loop, of one connection, and of the quota."""


def run_interruptibly(main: Coroutine[Any, Any, T], interruption: Interruption | None = None) -> T:
    """Run a coroutine to its end; Ctrl-C, SIGTERM or SIGHUP cancels it, and it may still return a result.

    With an `interruption` it changes something: what is in flight may still end, and when the coroutine has
    ended, no signal keeps the report from being written, unless its reader does not read it.

    `asyncio.run` would do the same but for a moment: a signal that comes just before the loop begins to wait
    is seen only when the wait is over, which may be half a minute. A signal handler of the loop wakes it.

    Raises:
        Stopped: it was interrupted and returned nothing, or too few files may be open.
        KeyboardInterrupt: so it was, after it had ended.
    """
    try:
        check_files()
        with ExitStack() as begins, asyncio.Runner(loop_factory=_loop_factory()) as runner:
            begins.enter_context(blocked())
            return runner.run(_cancelled_by_signal(main, interruption, begins.close))
    finally:
        main.close()  # in case it was never started
        terminate_as_ctrl_c()


def check_files() -> None:
    """Raise Stopped if too few files may be opened: an event loop that lacks one can't even be closed."""
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_FILES))
    except OSError as error:
        message = f"{error.strerror}: the command needs {_FILES} more at once; see `ulimit -n`"
        raise Stopped(Exit.API_ERROR, message) from None
    finally:
        for descriptor in opened:
            os.close(descriptor)


def run_to_report(main: Coroutine[Any, Any, None], interruption: Interruption) -> None:
    """Run work whose report is written afterwards, also if it is interrupted; see `run_interruptibly`."""
    try:
        run_interruptibly(main, interruption)
    except Stopped as stopped:
        if stopped.status is not Exit.INTERRUPTED:
            raise


async def _cancelled_by_signal(
    main: Coroutine[Any, Any, T], interruption: Interruption | None, unblock: Callable[[], None]
) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(main)
    is_cancelled = False

    def interrupt() -> None:
        nonlocal is_cancelled
        if interruption is not None and not task.done():
            interruption.interrupt()
        is_cancelled = task.cancel() or is_cancelled

    was_signalled = on_stopping(loop, interrupt)
    unblock()
    try:
        return await task
    except asyncio.CancelledError:
        raise Stopped(Exit.INTERRUPTED, INTERRUPTED) from None
    except DOImagesError as error:
        if interruption is None or not interruption.begun:
            raise
        raise Stopped(Exit.INTERRUPTED, f"interrupted; {message_with_notes(error)}") from None
    finally:
        if interruption is None:
            exit_again(loop)
            if was_signalled() and not is_cancelled:  # when the task was done
                raise KeyboardInterrupt
        else:
            hold_stopping(loop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory if it is installed (extra `uvloop`); None for asyncio's own loop."""
    if find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    return factory
