"""Copy an image to regions.

That is: start a transfer to each region that lacks it, unless one is running, and wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

import attrs

from do_images_async._api.actions import ImageActions
from do_images_async._api.bulk import Outcome, fan_out
from do_images_async._api.identity import region_of
from do_images_async._api.waits import until_completed
from do_images_async._quota.protocols import Limiter
from do_images_async.errors import (
    ActionFailedError,
    ConflictError,
    DOImagesError,
    QuotaWaitError,
    UnprocessableEntityError,
    WaitTimeoutError,
)
from do_images_async.models import Action, ActionStatus, Image

__all__ = ["LONGEST_LAG", "RegionCopies", "Turn", "Turns"]

_SHORTEST_TURN: Final = 0.1
"""Seconds that a call waits for its turn before it looks whether it waits for quota."""

LONGEST_LAG: Final = 60.0
"""Seconds in which the actions may not yet show a transfer that was started, nor the image its end."""


@attrs.define(eq=False)
class Turn:
    """What the calls of a client for one image share.

    Attributes:
        lock: held by the call that looks, and starts transfers.
        started: the transfers that were started lately, by region.
    """

    lock: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    started: dict[str, Action] = attrs.field(factory=dict[str, Action])

    def remember(self, region: str, action: Action) -> None:
        """Remember a transfer for a minute, and this object as long."""
        self.started[region] = action
        asyncio.get_running_loop().call_later(LONGEST_LAG, self.forget, region, action)

    def forget(self, region: str, action: Action) -> None:
        """Forget a transfer, unless another one was started since."""
        if self.started.get(region) is action:
            del self.started[region]


Turns = WeakValueDictionary[int, Turn]
"""The turns of all images whose regions are being looked at, or were lately."""


@attrs.frozen
class _Seen:
    """What an image and its actions show.

    Attributes:
        present: the regions that hold the image.
        begun: the transfers that are running, or have just ended, by the region that they go to.
        later: returns the regions that hold the image when those have ended that may be to any other region;
            None if there are none.
    """

    present: Collection[str]
    begun: Mapping[str, Action] = attrs.field(factory=dict[str, Action])
    later: asyncio.Task[Collection[str]] | None = None


@attrs.frozen(kw_only=True)
class RegionCopies:
    """Copies one image to regions; see `ImagesAPI.ensure_regions`.

    Args:
        image_id: the image's id.
        read: reads the image.
        actions: lists and polls transfers.
        start: starts the transfer to a region.
        turns: the client's: calls for one image look and start transfers one after the other.
        limiter: returns the client's limiter.
        max_wait: the longest wait for quota, in seconds, also for that of the call whose turn it is.
        timeout: seconds to poll each transfer, from when it was started or found.
        poll_interval: seconds between the first two polls of a transfer.
        progress: called with the region and its action after each poll.
    """

    image_id: int
    read: Callable[[], Awaitable[Image]]
    actions: ImageActions
    start: Callable[[str], Awaitable[Action]]
    turns: Turns
    limiter: Callable[[], Limiter]
    max_wait: float | None
    timeout: float
    poll_interval: float
    progress: Callable[[str, Action], object] | None

    async def ensure(self, regions: Collection[str]) -> AsyncGenerator[Outcome[str, Action | None], None]:
        """Yield an outcome for each region; None is the value of one that holds the image already."""
        turn = self.turns.setdefault(self.image_id, Turn())
        await self._take(turn.lock)
        with ExitStack() as until_begun:
            until_begun.callback(turn.lock.release)
            seen = await self._look(regions, turn)
            if seen.later is not None:
                until_begun.callback(seen.later.cancel)
            unsettled = set(regions)

            async def ensure_one(region: str) -> Action | None:
                try:
                    action = await self._begin(region, seen, turn)
                finally:
                    unsettled.discard(region)
                    if not unsettled:  # others see now what was started; they need not wait until it ends
                        until_begun.close()
                return None if action is None else await self._wait(region, action, turn)

            # All at once: a region that had to wait for another one's outcome would hold up other calls.
            outcomes = fan_out(ensure_one, regions, concurrency=len(regions) or 1)
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    yield outcome

    async def _take(self, lock: asyncio.Lock) -> None:
        """Wait for this call's turn.

        Raises:
            QuotaWaitError: `max_wait` has passed while the call whose turn it is waits for quota.
        """
        if self.max_wait is None:
            await lock.acquire()
            return
        patience = max(self.max_wait, _SHORTEST_TURN)
        while True:
            try:
                async with asyncio.timeout(patience):
                    await lock.acquire()
            except TimeoutError:
                limiter = self.limiter()
                rest = limiter.next_permit_in()
                if rest > 0 and limiter.stats().waiting:  # else it is the server that takes so long
                    raise QuotaWaitError(wait=patience + rest, max_wait=self.max_wait) from None
            else:
                return

    async def _look(self, regions: Collection[str], turn: Turn) -> _Seen:
        """Return the regions that hold the image, and the transfers that are running."""
        present = frozenset((await self.read()).regions)
        if present.issuperset(regions):
            return _Seen(present)
        running, completed = await self._transfers()
        if completed:  # one may have been completed after the image was read
            present = frozenset((await self.read()).regions)
        just_ended = filter(_has_just_ended, completed)
        begun = turn.started | {
            region_of(action) or "": action for action in (*just_ended, *reversed(running))
        }
        # An action may name the region that the image comes from, and no other: see `ImageActions.transfer`.
        unclear = [action for action in running if region_of(action) in {None, *present}]
        if not unclear or present.union(begun).issuperset(regions):
            return _Seen(present, begun)
        return _Seen(present, begun, asyncio.create_task(self._look_later(unclear)))

    async def _begin(self, region: str, seen: _Seen, turn: Turn) -> Action | None:
        """Return the transfer to a region, started if none is running; None if the image is there."""
        if region in seen.present:
            return None
        if region in seen.begun:
            return seen.begun[region]
        if seen.later is not None and region in await seen.later:
            return None
        action = await self._start(region)
        if action is not None:
            turn.remember(region, action)
        return action

    async def _look_later(self, unclear: Sequence[Action]) -> Collection[str]:
        """Return the regions that hold the image when these transfers have ended.

        Raises:
            WaitTimeoutError: one has not.
        """
        for action in unclear:
            try:
                await until_completed(
                    partial(self.actions.get, self.image_id, action.id),
                    self.image_id,
                    action.id,
                    timeout=self.timeout,
                    poll_interval=self.poll_interval,
                )
            except ActionFailedError:
                continue
            except WaitTimeoutError as error:
                message = f"nothing was begun, since a transfer that is may be to the same region: {error}"
                raise WaitTimeoutError(message, last_error=error.last_error) from None
        return (await self.read()).regions

    async def _start(self, region: str) -> Action | None:
        """Return the transfer that was started, by this call or another; None if the image is there."""
        try:
            return await self.start(region)
        except DOImagesError as error:
            # The transfer may exist although we got an error, or somebody else started one: look again.
            if not (error.outcome_unknown or isinstance(error, ConflictError | UnprocessableEntityError)):
                raise
            try:
                running, _ = await self._transfers()
                found = next((action for action in running if region_of(action) == region), None)
                if found is not None or region in (await self.read()).regions:
                    return found
            except DOImagesError as unseen:
                error.add_note(f"whether it was started all the same could not be seen: {unseen}")
            raise

    async def _wait(self, region: str, begun: Action, turn: Turn) -> Action:
        try:
            return await until_completed(
                partial(self.actions.get_transfer, self.image_id, begun.id, region),
                self.image_id,
                begun.id,
                timeout=self.timeout,
                poll_interval=self.poll_interval,
                begun=begun,
                report=None if self.progress is None else partial(self.progress, region),
            )
        except ActionFailedError:
            turn.forget(region, begun)
            raise

    async def _transfers(self) -> tuple[list[Action], list[Action]]:
        """Return the transfers that are running, and those that are completed.

        A status that this version doesn't know counts as running, so nothing is started twice.
        """
        running: list[Action] = []
        completed: list[Action] = []
        async with aclosing(self.actions.list(self.image_id)) as actions:
            async for action in actions:
                if action.type != "transfer":
                    continue
                if not _has_ended(action):
                    running.append(action)
                elif action.status != ActionStatus.ERRORED:
                    completed.append(action)
        return running, completed


def _has_ended(action: Action) -> bool:
    return action.status in (ActionStatus.COMPLETED, ActionStatus.ERRORED) or action.completed_at is not None


def _has_just_ended(action: Action) -> bool:
    """Return whether the image may not yet show the region of a completed transfer."""
    ended = action.completed_at
    return ended is not None and (datetime.now(UTC) - ended).total_seconds() < LONGEST_LAG
