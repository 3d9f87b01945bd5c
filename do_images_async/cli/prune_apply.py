"""The deletions of `prune`: each image is read, compared with the plan, noted in the journal and deleted."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

import attrs

from do_images_async import ImagesAPI, fan_out
from do_images_async.cli.connection import Connection
from do_images_async.cli.in_flight import NOT_TRIED, Interruption, NotSentError
from do_images_async.cli.journal import DELETED, DELETING, Journal
from do_images_async.cli.progress import Watch, show_words
from do_images_async.cli.prune_plan import AccountPlan, PlannedImage
from do_images_async.cli.status import Stopped, message_with_notes
from do_images_async.cli.text import counted
from do_images_async.errors import (
    AuthenticationError,
    DOImagesError,
    NotFoundError,
    PermissionDeniedError,
)
from do_images_async.retention import Policy

__all__ = ["CHANGED", "FAILED", "GONE", "UNKNOWN", "Removal", "Removed", "remove_all"]

GONE: Final = "gone"
"""It was not there any more, and no run of this journal had begun to delete it."""

CHANGED: Final = "changed"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"
"""It may have been deleted, or not."""

_EARLIER: Final = "by an earlier run"
_AT_ONCE: Final = 8


@attrs.frozen(kw_only=True)
class Removed:
    """The outcome for an image that the plan removes.

    Attributes:
        account, id, name, size_gigabytes: the image.
        outcome: "deleted", "gone", "changed", "failed", "unknown" or "not tried".
        message: why, unless this run deleted it.
        earlier: whether it was deleted by an earlier run of this journal.
    """

    account: str | None
    id: int
    name: str
    size_gigabytes: float | None
    outcome: str
    message: str = ""
    earlier: bool = False


@attrs.define
class Removal:
    """The removal of a plan's images from one account.

    Attributes:
        plan: the plan for the account.
        policy: the rules: an image that meanwhile has a tag to keep is not deleted.
        connection: the account.
        journal: the journal, written before and after each deletion.
        interruption: the interruption of the command.
        done: the outcomes so far.
    """

    plan: AccountPlan
    policy: Policy
    connection: Connection
    journal: Journal
    interruption: Interruption
    done: list[Removed] = attrs.field(factory=list[Removed], init=False)

    @property
    def found_none(self) -> bool:
        """Return whether not one image of the plan was there, and no run of this journal had deleted one."""
        return len(self.done) == len(self.plan.remove) > 0 and {each.outcome for each in self.done} == {GONE}

    @property
    def outcomes(self) -> list[Removed]:
        """Return the outcome of each image of the plan, also of those that this run did not come to."""
        ended = {each.id for each in self.done}
        return [*self.done, *(self._untried(each) for each in self._images if each.id not in ended)]

    @property
    def _images(self) -> list[PlannedImage]:
        return sorted(self.plan.remove, key=lambda each: (str(each.created_at), each.id))

    async def run(self, shown: Watch) -> None:
        """Remove the images, the oldest first; failures are added to `done`.

        If cancelled, it sends nothing more and waits for deletions in flight.

        Raises:
            Stopped: the journal can't be written.
            AuthenticationError, PermissionDeniedError: the token lacks the right, so the rest is not tried.
        """
        images = self._images
        account = f"{self.plan.account}: " if self.plan.account else ""

        def words() -> str:
            return f"{account}{len(self.done):,}/{counted(len(images), 'image')} removed"

        async with self.connection.open() as api, show_words(api.limiter, shown, words):
            outcomes = fan_out(lambda image: self._remove(api, image), images, concurrency=_AT_ONCE)
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    outcome.result()

    async def _remove(self, api: ImagesAPI, image: PlannedImage) -> None:
        before = self.journal.last.get((self.plan.account, image.id))
        if before == DELETED:
            self._end_earlier(image)
            return
        begun = before in (DELETING, UNKNOWN)
        try:
            now = await api.get(image.id)
        except NotFoundError:
            self._note_absent(image, begun=begun)
            return
        except DOImagesError as error:
            self._note(image, FAILED, error)
            return
        kept_tags = self.policy.kept_tags(now)
        tagged = f"it has the tag {kept_tags[0]} now" if kept_tags else None
        if why := image.difference(now) or tagged:
            self._note(image, CHANGED, why)
            return
        self.journal.write(DELETING, self.plan.account, image.id, image.name)
        await self._delete(api, image, begun=begun)

    async def _delete(self, api: ImagesAPI, image: PlannedImage, *, begun: bool) -> None:
        try:
            await self.interruption.to_its_end(lambda: api.delete(image.id), "deletion")
        except NotFoundError:
            # Another client deleted it a moment ago, unless an earlier run's request did.
            self._note_absent(image, begun=begun)
        except NotSentError:
            self._note(image, NOT_TRIED)
        except DOImagesError as error:
            if not error.outcome_unknown:
                self._note(image, FAILED, error)
            elif self.interruption.begun:
                self._note(image, UNKNOWN, error)
            else:
                await self._settle(api, image, error)
        else:
            self._note(image, DELETED)

    async def _settle(self, api: ImagesAPI, image: PlannedImage, error: DOImagesError) -> None:
        """Find out whether an image was deleted after an ambiguous outcome."""
        try:
            await api.get(image.id)
        except NotFoundError:
            self._note(image, DELETED)
        except (DOImagesError, asyncio.CancelledError) as second:
            self._note(image, UNKNOWN, error)
            if isinstance(second, asyncio.CancelledError):
                raise
        else:
            self._note(image, FAILED, error)

    def _note_absent(self, image: PlannedImage, *, begun: bool) -> None:
        """Note that an image is not there, whose deletion an earlier run may have begun."""
        if not begun:
            self._note(image, GONE)
            return
        self._end_earlier(image)
        self.journal.write(DELETED, self.plan.account, image.id, image.name)

    def _note(self, image: PlannedImage, outcome: str, why: DOImagesError | str = "") -> None:
        """Write the outcome to the journal; raise an error that would affect all images."""
        if isinstance(why, DOImagesError):
            self.connection.explain(why)
        message = message_with_notes(why) if isinstance(why, DOImagesError) else why
        self._end(image, outcome, message)
        more = {"message": message} if message else {}
        self.journal.write(outcome, self.plan.account, image.id, image.name, **more)
        if isinstance(why, AuthenticationError | PermissionDeniedError):
            raise why

    def _untried(self, image: PlannedImage) -> Removed:
        before = self.journal.last.get((self.plan.account, image.id))
        if before == DELETED:
            return self._removed(image, DELETED, _EARLIER, earlier=True)
        if before in (DELETING, UNKNOWN):
            return self._removed(image, UNKNOWN, _EARLIER)
        return self._removed(image, NOT_TRIED)

    def _end_earlier(self, image: PlannedImage) -> None:
        self._end(image, DELETED, _EARLIER, earlier=True)

    def _end(self, image: PlannedImage, outcome: str, message: str = "", *, earlier: bool = False) -> None:
        self.done.append(self._removed(image, outcome, message, earlier=earlier))

    def _removed(
        self, image: PlannedImage, outcome: str, message: str = "", *, earlier: bool = False
    ) -> Removed:
        return Removed(
            account=self.plan.account,
            id=image.id,
            name=image.name,
            size_gigabytes=image.size_gigabytes,
            outcome=outcome,
            message=message,
            earlier=earlier,
        )


async def remove_all(removals: list[Removal], shown: Watch) -> DOImagesError | Stopped | None:
    """Remove from all accounts at once; return the error that stopped it, if any.

    An account that is stopped does not stop the others, unless the journal can't be written.
    """
    tasks = [asyncio.create_task(removal.run(shown)) for removal in removals]
    try:
        return await _first_error(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _first_error(tasks: list[asyncio.Task[None]]) -> DOImagesError | Stopped | None:
    error: DOImagesError | None = None
    for task in asyncio.as_completed(tasks):
        try:
            await task
        except Stopped as stopped:
            return stopped
        except DOImagesError as refused:
            error = error or refused
    return error
