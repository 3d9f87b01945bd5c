"""The command `replicate`, which copies images to the regions that lack them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final

import attrs
import click

from do_images_async import Action, ActionStatus, Image, ImagesAPI, ImageStatus, fan_out
from do_images_async._api.polling import poll
from do_images_async._api.regions import LONGEST_LAG, RegionCopies, Turns
from do_images_async._arguments import check_text
from do_images_async.cli.checked import CheckedCommand
from do_images_async.cli.columns import Column
from do_images_async.cli.completion import complete_regions
from do_images_async.cli.connection import Connection, connection_of
from do_images_async.cli.in_flight import NOT_TRIED, Interruption, NotSentError
from do_images_async.cli.options import (
    IMAGE_ID,
    client_options,
    output_options,
    region_slugs,
    wait_options,
    watch,
)
from do_images_async.cli.output import Target, told_if_lost
from do_images_async.cli.progress import Watch, show_words
from do_images_async.cli.rows import Rows
from do_images_async.cli.running import run_to_report
from do_images_async.cli.status import Exit, Stopped, complain, message_with_notes
from do_images_async.errors import ActionFailedError, DOImagesError, WaitTimeoutError

__all__ = ["replicate_command"]

_IMAGES_AT_ONCE: Final = 8
_DONE: Final = ("present", "copied")


@attrs.frozen(kw_only=True)
class _Copy:
    """The outcome of one image in one region."""

    image_id: int
    name: str
    region: str
    status: str
    action_id: int | None = None
    message: str = ""


_COLUMNS: Final[tuple[Column[_Copy], ...]] = (
    Column("Image ID", "image_id", lambda copy: copy.image_id, numeric=True, rank=1),
    Column("Name", "name", lambda copy: copy.name, min_width=16, rank=2),
    Column("Region", "region", lambda copy: copy.region),
    Column("Status", "status", lambda copy: copy.status),
    Column("Action ID", "action_id", lambda copy: copy.action_id, numeric=True, rank=4),
    Column("Message", "message", lambda copy: copy.message, min_width=8, rank=3),
)


@click.command("replicate", cls=CheckedCommand)
@click.argument("image_ids", nargs=-1, type=IMAGE_ID, metavar="[ID...]")
@click.option("--tag", "tag_name", metavar="TAG", help="All your images with this tag.")
@click.option("--name", "names", multiple=True, metavar="GLOB", help="All your images with such a name.")
@click.option(
    "--to",
    "regions",
    required=True,
    multiple=True,
    metavar="SLUGS",
    shell_complete=complete_regions,
    help="The regions that must hold them.",
)
@wait_options(timeout=7200.0, longest="The longest wait for each region.")
@output_options
@client_options
def replicate_command(
    *,
    image_ids: tuple[int, ...],
    tag_name: str | None,
    names: tuple[str, ...],
    regions: tuple[str, ...],
    wait_timeout: float,
    poll_interval: float,
    **options: Any,
) -> int:
    """Copy images to the regions that lack them.

    It waits until they are there.

    Run it as often as you like: what a region holds, or is being copied there, is not copied again. Two
    runs that look at the same moment may both copy, if the server accepts it. The images are those with
    the ids, or those of yours that have the tag and such a name.

    The status of each image in each region is "present", "copied" or "failed"; "in-progress" if the
    wait for it ended before, by --wait-timeout, an error or an interruption; "unknown" if a transfer may
    have been begun; "not tried" if the command was interrupted before.

    Costs one request for each image that lacks nothing, and one more if ids are given; otherwise also
    those of `actions`, one for each transfer, one for each poll, and one to see that the image is there.
    With --tag or --name also two for every 200 images of the list.

    \b
    Examples:
      do-images replicate --tag golden --to fra1,sgp1
      do-images replicate --name 'golden-*' --to nyc3 -o json
      do-images replicate 7938391 7938392 --to ams3
    """
    if bool(image_ids) == (tag_name is not None or bool(names)):
        raise click.UsageError("which images? Give either ids, or --tag or --name")
    for name in names:
        check_text(name, "names")
    rows = Rows.of(options)
    rows.check(_COLUMNS)
    slugs = region_slugs(regions, "--to")
    replication = _Replication(
        connection=connection_of(options),
        regions=slugs,
        wait_timeout=wait_timeout,
        poll_interval=poll_interval,
    )
    with told_if_lost(replication.changes), rows.destination() as target:
        work = _replicate(replication, image_ids, tag_name, names, watch(options))
        run_to_report(work, replication.interruption)
        return _report(replication, rows, target)


@attrs.define(kw_only=True)
class _Replication:
    """The copying of images to regions.

    Attributes:
        connection: the account.
        regions: the regions in which the images must be.
        wait_timeout, poll_interval: seconds, for each region.
        copies: the outcomes of images and regions so far.
        begun: the transfers that were started, or found in progress, by image and region.
        doubts: the errors after which a transfer may have been started, likewise.
        changes: the same in words.
        images: the images.
        interruption: the interruption of the command.
        errors: how many copies are not done.
    """

    connection: Connection
    regions: Sequence[str]
    wait_timeout: float
    poll_interval: float
    copies: list[_Copy] = attrs.field(factory=list[_Copy], init=False)
    begun: dict[tuple[int, str], Action] = attrs.field(factory=dict[tuple[int, str], Action], init=False)
    doubts: dict[tuple[int, str], DOImagesError] = attrs.field(
        factory=dict[tuple[int, str], DOImagesError], init=False
    )
    changes: list[str] = attrs.field(factory=list[str], init=False)
    errors: int = attrs.field(default=0, init=False)
    images: list[Image] = attrs.field(factory=list[Image], init=False)
    interruption: Interruption = attrs.field(factory=Interruption, init=False)

    async def ensure_id(self, api: ImagesAPI, image: Image) -> None:
        """Read an image, for its name and status, and copy it to the regions that lack it."""
        try:
            read = await api.get(image.id)
        except Exception as error:  # noqa: BLE001  (it is this image's, and reported with it)
            self._fail_all(image, error)
        else:
            self.images[self.images.index(image)] = read
            await self.ensure(api, read)

    async def ensure(self, api: ImagesAPI, image: Image) -> None:
        """Copy an image to the regions that lack it, and record each outcome."""
        if image.status is not None and image.status != ImageStatus.AVAILABLE:
            for region in self.regions:
                self._add(image, region, "failed", message=f"the image is {image.status}, not available")
            return
        try:
            completed = await self._ensure(api, image)
        except Exception as error:  # noqa: BLE001  (it is this image's, and reported with it)
            self._fail_all(image, error)
        else:
            await self._verify(api, image, completed)

    async def _ensure(self, api: ImagesAPI, image: Image) -> dict[str, Action]:
        """Return the completed transfers by region; record the other outcomes."""
        copies = RegionCopies(
            image_id=image.id,
            read=partial(api.get, image.id),
            actions=api.actions,
            start=partial(self._start, api, image),
            turns=Turns(),
            limiter=lambda: api.limiter,
            max_wait=None,
            timeout=self.wait_timeout,
            poll_interval=self.poll_interval,
            progress=partial(self._note_begun, image),
        )
        completed: dict[str, Action] = {}
        async with aclosing(copies.ensure(self.regions)) as outcomes:
            async for outcome in outcomes:
                if outcome.error is not None:
                    self._fail(image, outcome.key, outcome.error)
                elif outcome.value is None:
                    self._add(image, outcome.key, "present")
                else:
                    completed[outcome.key] = outcome.value
        return completed

    async def _start(self, api: ImagesAPI, image: Image, region: str) -> Action:
        """Start a transfer. If the command is interrupted, it ends when it is known what was started."""
        try:
            action = await self.interruption.to_its_end(
                lambda: api.actions.transfer(image.id, region), "transfer"
            )
        except NotSentError:
            raise asyncio.CancelledError from None
        except DOImagesError as error:
            if error.outcome_unknown:
                self.doubts[image.id, region] = error
            if not self.interruption.begun:
                raise
            self._fail(image, region, error)
        else:
            self._note_begun(image, region, action)
            if not self.interruption.begun:
                return action
        raise asyncio.CancelledError

    async def _verify(self, api: ImagesAPI, image: Image, completed: Mapping[str, Action]) -> None:
        """Read the image until it is in these regions, and record their outcomes."""
        if not completed:
            return
        present: Collection[str] = ()
        timeout = min(self.wait_timeout, LONGEST_LAG)
        reason = f"the image is not there after {timeout:g} s"
        try:
            polled = await poll(
                partial(api.get, image.id),
                lambda read: completed.keys() <= set(read.regions),
                timeout=timeout,
                poll_interval=self.poll_interval,
            )
        except DOImagesError as error:
            self.connection.explain(error)
            reason = f"the image could not be read: {message_with_notes(error)}"
        else:
            present = () if polled.last is None else polled.last.regions
        for region, action in completed.items():
            if region in present:
                self._add(image, region, "copied", action)
            else:
                message = f"action {action.id} is completed, but {reason}"
                self._add(image, region, "in-progress", action, message)

    def _note_begun(self, image: Image, region: str, action: Action) -> None:
        if (image.id, region) not in self.begun:
            self.changes.append(f"action {action.id} copies image {image.id} to {region}")
        self.begun[image.id, region] = action

    def note_unfinished(self) -> None:
        """Record what is in progress when the command is interrupted, and what it did not come to."""
        known = {(copy.image_id, copy.region) for copy in self.copies}
        for image in self.images:
            for region in self.regions:
                if (image.id, region) not in known:
                    self._add_unfinished(image, region)

    def _add_unfinished(self, image: Image, region: str) -> None:
        action, doubt = self.begun.get((image.id, region)), self.doubts.get((image.id, region))
        if action is None and doubt is not None:
            self._add(image, region, "unknown", message=message_with_notes(doubt))
        elif action is None:
            self._add(image, region, NOT_TRIED)
        elif action.status == ActionStatus.ERRORED:
            self._add(image, region, "failed", action, "its action errored")
        elif action.status == ActionStatus.COMPLETED:
            message = "its action is completed; the next run looks whether the image is there"
            self._add(image, region, "in-progress", action, message)
        else:
            self._add(image, region, "in-progress", action, "it goes on; the next run waits for it")

    def _fail_all(self, image: Image, error: BaseException) -> None:
        """Record an error of the image for each region that has no outcome."""
        known = {copy.region for copy in self.copies if copy.image_id == image.id}
        for region in self.regions:
            if region not in known:
                self._fail(image, region, error)

    def _fail(self, image: Image, region: str, error: BaseException) -> None:
        """Record the error of a copy, which may be in progress all the same."""
        if isinstance(error, asyncio.CancelledError):
            return  # interrupted; see `note_unfinished`
        self.connection.explain(error)
        action = self.begun.get((image.id, region))
        if action is not None and not isinstance(error, ActionFailedError):
            status = "in-progress"
        elif isinstance(error, WaitTimeoutError) or (
            isinstance(error, DOImagesError) and error.outcome_unknown
        ):
            status = "unknown"
        else:
            status = "failed"
        self._add(image, region, status, action, message_with_notes(error))

    def _add(
        self, image: Image, region: str, status: str, action: Action | None = None, message: str = ""
    ) -> None:
        self.errors += status not in _DONE
        copy = _Copy(
            image_id=image.id,
            name=image.name,
            region=region,
            status=status,
            action_id=None if action is None else action.id,
            message=message,
        )
        self.copies.append(copy)


async def _replicate(
    replication: _Replication,
    image_ids: Sequence[int],
    tag_name: str | None,
    names: Sequence[str],
    shown: Watch,
) -> None:
    """Find the images, and copy each to the regions that lack it."""
    images = replication.images

    def words() -> str:
        total = len(images) * len(replication.regions)
        return f"{len(replication.copies):,}/{total:,} copies looked after"

    async with replication.connection.open() as api, show_words(api.limiter, shown, words):
        if image_ids:
            images += [Image(id=image_id) for image_id in dict.fromkeys(image_ids)]
        else:
            whole = await api.list_whole(private=True, tag_name=tag_name)
            images += [each for each in whole if not names or _matches(each, names)]
        copy = replication.ensure_id if image_ids else replication.ensure
        calls = fan_out(lambda image: copy(api, image), images, concurrency=_IMAGES_AT_ONCE)
        async with aclosing(calls):
            async for call in calls:
                call.result()


def _report(replication: _Replication, rows: Rows, target: Target) -> int:
    interrupted = replication.interruption.begun
    if interrupted:
        replication.note_unfinished()
    rows.write(target, replication.copies, _COLUMNS)
    if interrupted:
        message = "interrupted: transfers that are in progress go on; the next run waits for them"
        raise Stopped(Exit.INTERRUPTED, message, partial=True)
    if replication.errors:
        message = f"{replication.errors:,} of {len(replication.copies):,} copies are not done"
        raise Stopped(Exit.API_ERROR, message, partial=True)
    if not replication.images:
        complain("no image matches")
    return Exit.OK


def _matches(image: Image, names: Sequence[str]) -> bool:
    return any(fnmatchcase(image.name, name) for name in names)
