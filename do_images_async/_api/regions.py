"""Copy an image to regions.

That is: start a transfer to each region that lacks it, unless one is running, and wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, aclosing, suppress
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
)
from do_images_async.models import Action, ActionStatus, Image

__all__ = ["RegionCopies", "Turns"]

Turns = WeakValueDictionary[int, asyncio.Lock]
"""A lock for each image whose regions are being looked at; it is gone when nobody uses it."""

_SHORTEST_TURN: Final = 0.1
"""Seconds that a call waits for its turn before it looks whether it waits for quota."""


@attrs.frozen
class _Seen:
    """What an image and its actions show.

    Attributes:
        present: the regions that hold the image.
        begun: the transfers that are running, by the region that they name.
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
        turns: the client's locks: calls for one image look and start transfers one after the other.
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
        lock = self.turns.setdefault(self.image_id, asyncio.Lock())
        await self._take(lock)
        with ExitStack() as turn:
            turn.callback(lock.release)
            seen = await self._look(regions)
            if seen.later is not None:
                turn.callback(seen.later.cancel)
            unsettled = set(regions)

            async def ensure_one(region: str) -> Action | None:
                try:
                    action = await self._begin(region, seen)
                finally:
                    unsettled.discard(region)
                    if not unsettled:  # others see now what was started; they need not wait until it ends
                        turn.close()
                return None if action is None else await self._wait(region, action)

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

    async def _look(self, regions: Collection[str]) -> _Seen:
        """Return the regions that hold the image, and the transfers that are running."""
        present = frozenset((await self.read()).regions)
        missing = frozenset(regions) - present
        if not missing:
            return _Seen(present)
        running, done = await self._transfers()
        if not missing.isdisjoint(done):  # one may have been completed after the image was read
            present = frozenset((await self.read()).regions)
        begun = {region: action for action in reversed(running) if (region := region_of(action))}
        # An action may name the region that the image comes from, and no other: see `ImageActions.transfer`.
        unclear = [action for action in running if region_of(action) in {None, *present}]
        if not unclear or not missing.difference(present, begun):
            return _Seen(present, begun)
        return _Seen(present, begun, asyncio.create_task(self._look_later(unclear)))

    async def _begin(self, region: str, seen: _Seen) -> Action | None:
        """Return the transfer to a region, started if none is running; None if the image is there."""
        if region in seen.present:
            return None
        if region in seen.begun:
            return seen.begun[region]
        if seen.later is not None and region in await seen.later:
            return None
        return await self._start(region)

    async def _look_later(self, unclear: Sequence[Action]) -> Collection[str]:
        """Return the regions that hold the image when these transfers have ended."""
        for action in unclear:
            with suppress(ActionFailedError):
                await until_completed(
                    partial(self.actions.get, self.image_id, action.id),
                    self.image_id,
                    action.id,
                    timeout=self.timeout,
                    poll_interval=self.poll_interval,
                )
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

    async def _wait(self, region: str, begun: Action) -> Action:
        return await until_completed(
            partial(self.actions.get_transfer, self.image_id, begun.id, region),
            self.image_id,
            begun.id,
            timeout=self.timeout,
            poll_interval=self.poll_interval,
            begun=begun,
            report=None if self.progress is None else partial(self.progress, region),
        )

    async def _transfers(self) -> tuple[list[Action], set[str]]:
        """Return the transfers that are running, and the regions of those that are completed.

        A status that this version doesn't know counts as running, so nothing is started twice.
        """
        running: list[Action] = []
        completed: set[str] = set()
        async with aclosing(self.actions.list(self.image_id)) as actions:
            async for action in actions:
                if action.type != "transfer":
                    continue
                region = region_of(action)
                if not _has_ended(action):
                    running.append(action)
                elif action.status != ActionStatus.ERRORED and region:
                    completed.add(region)
        return running, completed


def _has_ended(action: Action) -> bool:
    return action.status in (ActionStatus.COMPLETED, ActionStatus.ERRORED) or action.completed_at is not None
