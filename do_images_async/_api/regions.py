"""Copy an image to regions.

That is: start a transfer to each region that lacks it, unless one is running, and wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import ExitStack, aclosing
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

import attrs

from do_images_async._api.actions import ImageActions
from do_images_async._api.bulk import Outcome, fan_out
from do_images_async._api.identity import region_of
from do_images_async._api.waits import until_completed
from do_images_async._quota.protocols import Limiter
from do_images_async.errors import ConflictError, DOImagesError, QuotaWaitError, UnprocessableEntityError
from do_images_async.models import Action, ActionStatus, Image

__all__ = ["RegionCopies", "Turns"]

Turns = WeakValueDictionary[int, asyncio.Lock]
"""A lock for each image whose regions are being looked at; it is gone when nobody uses it."""

_SHORTEST_TURN: Final = 0.1
"""Seconds that a call waits for its turn before it looks whether it waits for quota."""


@attrs.frozen(kw_only=True)
class RegionCopies:
    """Copies one image to regions; see `ImagesAPI.ensure_regions`.

    Args:
        image_id: the image's id.
        read: reads the image.
        actions: starts and polls transfers.
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
            present, begun = await self._look(regions)
            unsettled = set(regions)

            async def ensure_one(region: str) -> Action | None:
                try:
                    action = None if region in present else await self._begin(region, begun.get(region))
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

    async def _look(self, regions: Collection[str]) -> tuple[Collection[str], dict[str, Action]]:
        """Return the regions that hold the image, and the transfers that are running, by region."""
        present = frozenset((await self.read()).regions)
        missing = frozenset(regions) - present
        if not missing:
            return present, {}
        begun, done = await self._transfers()
        if not missing.isdisjoint(done):  # one may have been completed after the image was read
            present = frozenset((await self.read()).regions)
        return present, begun

    async def _begin(self, region: str, begun: Action | None) -> Action | None:
        """Return the transfer to a region: `begun` if one is running; None if the image is there."""
        if begun is not None:
            return begun
        try:
            return await self.actions.transfer(self.image_id, region)
        except DOImagesError as error:
            # The transfer may exist although we got an error, or somebody else started one: look again.
            if not (error.outcome_unknown or isinstance(error, ConflictError | UnprocessableEntityError)):
                raise
            begun = (await self._transfers())[0].get(region)
            if begun is None and region not in (await self.read()).regions:
                raise
            return begun

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

    async def _transfers(self) -> tuple[dict[str, Action], set[str]]:
        """Return the transfers that are running, by region, and the regions of those that are completed.

        A status that this version doesn't know counts as running, so nothing is started twice.
        """
        running: dict[str, Action] = {}
        completed: set[str] = set()
        async with aclosing(self.actions.list(self.image_id)) as actions:
            async for action in actions:
                region = region_of(action)
                if action.type != "transfer" or not region:
                    continue
                if not _has_ended(action):
                    running.setdefault(region, action)
                elif action.status != ActionStatus.ERRORED:
                    completed.add(region)
        return running, completed


def _has_ended(action: Action) -> bool:
    return action.status in (ActionStatus.COMPLETED, ActionStatus.ERRORED) or action.completed_at is not None
