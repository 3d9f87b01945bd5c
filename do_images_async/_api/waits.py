"""The two waits: for an image to become available, and for an action to be completed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from do_images_async._api.identity import NotThereError
from do_images_async._api.polling import poll
from do_images_async.errors import ActionFailedError, ImportFailedError, WaitTimeoutError
from do_images_async.models import Action, ActionStatus, Image, ImageStatus

__all__ = ["until_available", "until_completed"]


async def until_available(
    read: Callable[[], Awaitable[Image]],
    image_id: int,
    *,
    timeout: float,
    poll_interval: float,
    redact: Callable[[str], str] = str,
) -> Image:
    """Poll an image until it is available; see `ImagesAPI.wait_until_available`.

    `redact` takes out of the server's reason what must not be shown.
    """

    def is_final(image: Image) -> bool:
        if image.status in (ImageStatus.DELETED, ImageStatus.RETIRED):
            raise ImportFailedError(attrs.evolve(image, error_message=redact(image.error_message or "")))
        return image.status == ImageStatus.AVAILABLE

    polled = await poll(read, is_final, timeout=timeout, poll_interval=poll_interval)
    if polled.final is not None:
        return polled.final
    image = polled.last
    goal = f"image {image_id} is not available"
    message = polled.timeout_message(goal, timeout, None if image is None else image.status)
    raise WaitTimeoutError(message, image=image, last_error=polled.error)


async def until_completed(
    read: Callable[[], Awaitable[Action]],
    image_id: int,
    action_id: int,
    *,
    timeout: float,
    poll_interval: float,
    begun: Action | None = None,
    report: Callable[[Action], object] | None = None,
) -> Action:
    """Poll an action until it is completed; see `ImageActions.wait`.

    Args:
        read: reads the action, with one request.
        image_id, action_id: for messages.
        timeout, poll_interval: seconds.
        begun: the action as it was begun, if that is known.
        report: called with the action after each poll, and before the first one with `begun`.
    """
    if begun is not None and report is not None:
        report(begun)

    missing: NotThereError | None = None

    async def read_next() -> Action:
        nonlocal missing
        try:
            return await read()
        except NotThereError as error:
            missing = error
            raise

    def is_final(action: Action) -> bool:
        if report is not None:
            report(action)
        if action.status == ActionStatus.ERRORED:
            raise ActionFailedError(action)
        return action.status == ActionStatus.COMPLETED

    polled = await poll(read_next, is_final, timeout=timeout, poll_interval=poll_interval, last=begun)
    if polled.final is not None:
        return polled.final
    if missing is not None:  # it is completed, whatever became of the polls after that
        message = f"{missing} after {timeout:g} s"
        raise WaitTimeoutError(message, action=missing.action, last_error=polled.error)
    action = polled.last
    goal = f"action {action_id} of image {image_id} is not completed"
    message = polled.timeout_message(goal, timeout, None if action is None else action.status)
    raise WaitTimeoutError(message, action=action, last_error=polled.error)
