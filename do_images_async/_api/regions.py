"""Copy an image to regions.

That is: start a transfer to each region that lacks it, unless one is running, and wait.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing
from functools import partial
from typing import Final

import attrs

from do_images_async._api.actions import ImageActions
from do_images_async._api.bulk import Outcome, fan_out
from do_images_async._api.identity import region_of
from do_images_async._api.waits import until_completed
from do_images_async.errors import ConflictError, DOImagesError, UnprocessableEntityError
from do_images_async.models import Action, ActionStatus, Image

__all__ = ["RegionCopies"]

_REGIONS_AT_ONCE: Final = 32


@attrs.frozen(kw_only=True)
class RegionCopies:
    """Copies one image to regions; see `ImagesAPI.ensure_regions`.

    Args:
        image_id: the image's id.
        read: reads the image.
        actions: starts and polls transfers.
        timeout: seconds to poll each transfer, from when it was started or found.
        poll_interval: seconds between the first two polls of a transfer.
        progress: called with the region and its action after each poll.
    """

    image_id: int
    read: Callable[[], Awaitable[Image]]
    actions: ImageActions
    timeout: float
    poll_interval: float
    progress: Callable[[str, Action], object] | None

    async def ensure(self, regions: Collection[str]) -> AsyncGenerator[Outcome[str, Action | None], None]:
        """Yield an outcome for each region; None is the value of one that holds the image already."""
        present = frozenset((await self.read()).regions)
        begun: dict[str, Action] = {}
        if missing := frozenset(regions) - present:
            begun, done = await self._transfers()
            if not missing.isdisjoint(done):  # one may have been completed after the image was read
                present = frozenset((await self.read()).regions)

        async def ensure_one(region: str) -> Action | None:
            return None if region in present else await self._copy(region, begun.get(region))

        outcomes = fan_out(ensure_one, regions, concurrency=_REGIONS_AT_ONCE)
        async with aclosing(outcomes):
            async for outcome in outcomes:
                yield outcome

    async def _copy(self, region: str, begun: Action | None) -> Action | None:
        """Wait for the transfer to a region; start one unless `begun` is one that is running."""
        if begun is None:
            try:
                begun = await self.actions.transfer(self.image_id, region)
            except DOImagesError as error:
                # The transfer may exist although we got an error, or somebody else started one: look again.
                if not (error.outcome_unknown or isinstance(error, ConflictError | UnprocessableEntityError)):
                    raise
                begun = (await self._transfers())[0].get(region)
                if begun is None:
                    if region in (await self.read()).regions:
                        return None
                    raise
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
