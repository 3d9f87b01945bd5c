"""Waits for an image or an action: errors that end them, and errors that cost one poll."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import pytest

from do_images_async import (
    Action,
    ActionStatus,
    Image,
    ImagesAPI,
    ImageStatus,
    RetryPolicy,
    converter,
    errors,
)
from do_images_async._api.waits import until_available, until_completed
from tests.conftest import FAST, ONCE, TOKEN
from tests.support.servers import HANG, Answer, Server, content, image_document, refusal, reply
from tests.support.slow import fewer

Wait = Callable[[ImagesAPI, float], Awaitable[Image | Action]]


def image_wait(api: ImagesAPI, timeout: float) -> Awaitable[Image]:
    return api.wait_until_available(42, timeout=timeout, poll_interval=0.01)


def action_wait(api: ImagesAPI, timeout: float) -> Awaitable[Action]:
    return api.actions.wait(42, 5, timeout=timeout, poll_interval=0.01)


WAITS: list[Wait] = [image_wait, action_wait]
waits = pytest.mark.parametrize("wait", WAITS)


def state(status: str, *, image_id: int = 42, action: str = "in-progress") -> Answer:
    """Return a response that an image's and an action's poll can read."""
    return reply(
        {
            "image": image_document(image_id, status=status),
            "action": {"id": 5, "status": action, "resource_id": image_id},
        }
    )


BEGUN = state("NEW")
DONE = state("available", action="completed")
PASSING: dict[str, Answer] = {
    "a 404": refusal(404),
    "another image": state("available", image_id=43, action="completed"),
    "a page of HTML": content(b"<html>Bad gateway</html>", headers={"content-type": "text/html"}),
    "a 429": refusal(429, headers={"retry-after": "0"}),
}


@waits
@pytest.mark.parametrize("answer", PASSING.values(), ids=PASSING.keys())
@pytest.mark.parametrize("before", [[BEGUN], []], ids=["after an answer", "as the first"])
async def test_an_error_that_passes_costs_a_poll(
    server: Server, api: ImagesAPI, wait: Wait, answer: Answer, before: list[Answer]
) -> None:
    server.script(*before, answer, DONE)
    await wait(api.with_options(retry=ONCE), 60)
    assert len(server.received) == len(before) + 2


@waits
async def test_a_body_that_is_json_of_another_shape_ends_the_wait(
    server: Server, api: ImagesAPI, wait: Wait
) -> None:
    server.script(BEGUN, reply({"oops": 1}))
    with pytest.raises(errors.DecodeError) as caught:
        await wait(api, 60)
    assert not caught.value.transient


@pytest.mark.parametrize("wait", fewer(WAITS))
async def test_a_429_does_not_end_the_wait_of_a_client_with_max_wait(server: Server, wait: Wait) -> None:
    server.script(BEGUN, refusal(429, headers={"retry-after": "1"}), DONE)
    async with ImagesAPI(TOKEN, base_url=server.url, retry=FAST, max_wait=0.05) as api:
        await wait(api, 60)
    assert len(server.received) == 3


@waits
async def test_a_token_function_that_fails_once_does_not_end_the_wait(server: Server, wait: Wait) -> None:
    answers: list[str | OSError] = [TOKEN, OSError("the vault is away"), TOKEN[:-1] + "x"]

    def token() -> str:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    server.script(BEGUN, refusal(401), refusal(401), DONE)
    async with ImagesAPI(token, base_url=server.url, retry=FAST) as api:
        await wait(api, 60)
    assert not answers


@waits
async def test_a_token_function_that_never_worked_ends_the_wait(server: Server, wait: Wait) -> None:
    def token() -> str:
        raise OSError("no vault")

    async with ImagesAPI(token, base_url=server.url, retry=FAST) as api:
        with pytest.raises(errors.TokenError):
            await wait(api, 60)


CUT_OFF: dict[str, tuple[Answer, type[errors.DOImagesError]]] = {
    "429": (refusal(429, headers={"retry-after": "30"}), errors.RateLimitError),
    "no answer": (HANG, errors.RequestTimeoutError),
    "503": (refusal(503, headers={"retry-after": "30"}), errors.ServerError),
}


@waits
async def test_the_last_error_is_known_when_time_is_up_within_a_poll(wait: Wait) -> None:
    async def last_error(answer: Answer) -> type[errors.DOImagesError]:
        retry = RetryPolicy(attempts=4, base=60, cap=60)
        async with Server().running() as server, ImagesAPI(TOKEN, base_url=server.url, retry=retry) as api:
            server.answer_with(lambda _: answer)
            server.script(BEGUN)
            with pytest.raises(errors.WaitTimeoutError) as caught:
                await wait(api, 1.0)
        assert caught.value.last_error is not None
        assert str(caught.value.last_error) in str(caught.value)
        return type(caught.value.last_error)

    kinds = await asyncio.gather(
        *(last_error(answer) for answer, _ in CUT_OFF.values())
    )  # each waits a second
    assert dict(zip(CUT_OFF, kinds, strict=True)) == {name: kind for name, (_, kind) in CUT_OFF.items()}


@waits
async def test_an_attempt_whose_retry_succeeded_is_no_last_error(
    server: Server, api: ImagesAPI, wait: Wait
) -> None:
    server.answer_with(lambda _: BEGUN)
    server.script(refusal(503))
    waiting: Any = wait(api, 0.5)
    with pytest.raises(errors.WaitTimeoutError) as caught:
        await waiting
    # The last poll, begun just before the time is up, may be cut off.
    assert not isinstance(caught.value.last_error, errors.ServerError)


class MyStatus(StrEnum):
    NEW = "NEW"
    READY = "available"
    GONE = "deleted"
    DONE = "completed"
    FAILED = "errored"


@pytest.mark.parametrize("kind", [str, MyStatus])
async def test_a_status_that_a_hook_makes_ends_the_wait(server: Server, kind: Callable[[str], str]) -> None:
    mapper = converter.copy()
    mapper.register_structure_hook(ImageStatus, lambda value, _: kind(value))
    mapper.register_structure_hook(ActionStatus, lambda value, _: kind(value))
    async with ImagesAPI(TOKEN, base_url=server.url, retry=ONCE, converter=mapper) as api:
        for wait in WAITS:
            server.script(DONE)
            assert type((await wait(api, 5)).status) is kind
            server.script(state("deleted", action="errored"))
            with pytest.raises((errors.ImportFailedError, errors.ActionFailedError)):
                await wait(api, 5)


async def test_a_status_that_is_not_known_is_said_so() -> None:
    async def image() -> Image:
        return Image(id=42)

    async def action() -> Action:
        return Action(id=5)

    with pytest.raises(errors.WaitTimeoutError, match=r"after 0\.01 s: its status is not known$"):
        await until_available(image, 42, timeout=0.01, poll_interval=0.01)
    with pytest.raises(errors.WaitTimeoutError, match=r"after 0\.01 s: its status is not known$"):
        await until_completed(action, 42, 5, timeout=0.01, poll_interval=0.01)


def test_an_action_that_failed_and_tells_no_type() -> None:
    error = errors.ActionFailedError(Action(id=5, status=ActionStatus.ERRORED))
    assert str(error) == "action 5 ended as errored"
