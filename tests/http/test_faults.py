"""Faults that concern the whole client: clocks, the machine, secrets in tracebacks.

The numbers are those of the catalogue of faults, one for each thing that goes wrong; `row_NN` in the name or
the id of a test anywhere in this directory says which one it covers.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from do_images_async import ImagesAPI, RateLimiter, TokenBucket, errors
from tests.conftest import ONCE, TOKEN
from tests.support.leaks import assert_not_shown
from tests.support.servers import (
    HANG,
    Answer,
    Received,
    Server,
    deadline_when,
    eventually,
    image_reply,
    refusal,
)


class Log:
    """A server's sliding log, with the largest number of requests in any window."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._times: deque[float] = deque()
        self.worst = 0

    def answer(self, _: Received) -> Answer:
        now = time.monotonic()
        self._times.append(now)
        while self._times[0] <= now - self._period:
            self._times.popleft()
        self.worst = max(self.worst, len(self._times))
        return image_reply(1)


# --- time ---


@pytest.mark.parametrize("step", [-86400.0, 86400.0])
async def test_row_53_a_step_of_the_wall_clock_changes_no_wait(
    server: Server, api: ImagesAPI, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step)
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.script(
        image_reply(1), refusal(429, headers={"date": date, "retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"})
    )
    await api.get(1)
    assert api.limiter.next_permit_in() == 0
    with pytest.raises(errors.RateLimitError) as caught:
        await api.with_options(retry=ONCE).get(1)
    assert caught.value.retry_after == 30.0
    assert 29 < api.limiter.next_permit_in() <= 34


@pytest.mark.parametrize("counts", [True, False], ids=["clock counts the sleep", "clock stands still"])
async def test_row_54_after_a_suspend_a_wait_is_never_too_short(server: Server, counts: bool) -> None:
    slept = 0

    def clock() -> int:
        return time.monotonic_ns() + slept

    server.answer_with(lambda _: image_reply(1))
    limiter = RateLimiter(TokenBucket(2, per=60, margin=0), clock=clock)
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, max_wait=0) as api:
        await api.get(1)
        await api.get(1)
        if counts:
            slept = 3600 * 10**9
            await api.get(1)
            await api.get(1)
        with pytest.raises(errors.QuotaWaitError) as caught:
            await api.get(1)
        assert 55 < caught.value.wait <= 60
    assert len(server.received) == (4 if counts else 2)


async def test_row_55_a_caller_whose_deadline_passes_between_attempts_sends_no_more(
    server: Server, api: ImagesAPI
) -> None:
    server.script(*[refusal(503, headers={"retry-after": "30"})] * 4)
    patient = ImagesAPI(TOKEN, base_url=server.url, limiter=api.limiter)
    with pytest.raises(TimeoutError):
        async with deadline_when(lambda: bool(server.received) and not api.limiter.stats().in_flight):
            await patient.get(1)
    await patient.aclose()
    assert len(server.received) == 1
    assert api.limiter.stats().granted == 1


async def test_row_56_a_blocked_event_loop_is_late_and_never_over_quota(server: Server) -> None:
    log = Log(period=0.25)
    server.answer_with(log.answer)
    limiter = RateLimiter(TokenBucket(10, per=0.25, margin=0.01))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, retry=ONCE) as api:
        calls = [asyncio.create_task(api.get(1)) for _ in range(30)]
        await eventually(lambda: limiter.stats().granted >= 10)
        time.sleep(0.6)  # noqa: ASYNC251  (this is the fault)
        await asyncio.gather(*calls)
    assert log.worst <= 10


# --- secrets ---


async def _cancel(call: asyncio.Task[object]) -> BaseException:
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call
    return caught.value


async def _time_out(call: asyncio.Task[object]) -> BaseException:
    with pytest.raises(TimeoutError) as caught:
        await asyncio.wait_for(call, 0.05)
    return caught.value


@pytest.mark.parametrize("end", [_cancel, _time_out])
@pytest.mark.parametrize("phase", ["headers", "body"])
async def test_row_62_a_call_that_is_cancelled_shows_no_token_in_any_frame(
    server: Server,
    api: ImagesAPI,
    phase: str,
    end: Callable[[asyncio.Task[object]], Awaitable[BaseException]],
) -> None:
    server.script(HANG if phase == "headers" else Answer(image_reply(1).data[:-9], "hang"))
    call: asyncio.Task[object] = asyncio.create_task(api.get(1))
    await eventually(lambda: len(server.received) == 1)
    await asyncio.sleep(0.05)
    error = await end(call)
    assert_not_shown(TOKEN, error)
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert TOKEN not in "".join(shown.format())


async def test_row_62_asyncio_in_debug_mode_does_not_print_the_token(
    server: Server, api: ImagesAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    server.script(HANG)
    call = asyncio.create_task(api.get(1))
    await eventually(lambda: len(server.received) == 1)
    text = io.StringIO()
    call.print_stack(file=text)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert "Executing" in caplog.text
    assert TOKEN not in caplog.text + text.getvalue() + repr(call)


# --- the catalogue itself ---


def test_every_row_of_the_catalogue_has_a_test() -> None:
    names = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    covered = {int(number) for number in re.findall(r"row_(\d\d)", names)}
    assert covered >= set(range(1, 96))
