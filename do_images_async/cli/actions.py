"""The commands `transfer`, `convert` and `actions`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Any, Final, cast

import attrs
import click

from do_images_async import Action, ActionStatus, ImagesAPI, fan_out
from do_images_async._api.waits import until_completed
from do_images_async.cli.change import Change
from do_images_async.cli.checked import CheckedCommand
from do_images_async.cli.columns import ACTION_COLUMNS, Column
from do_images_async.cli.completion import complete_regions
from do_images_async.cli.connection import Connection, connection_of
from do_images_async.cli.in_flight import NOT_TRIED, Interruption, NotSentError
from do_images_async.cli.options import (
    IMAGE_ID,
    check_wait_options,
    client_options,
    output_options,
    region_slugs,
    wait_options,
    watch,
)
from do_images_async.cli.output import Target, told_if_lost
from do_images_async.cli.progress import Watch, show_words
from do_images_async.cli.rows import Rows
from do_images_async.cli.running import run_interruptibly, run_to_report
from do_images_async.cli.status import Exit, Stopped, complain, message_with_notes
from do_images_async.cli.text import counted, masked
from do_images_async.errors import ActionFailedError, DOImagesError, IncompleteListingError
from do_images_async.models import Region

__all__ = ["actions_command", "convert_command", "transfer_command"]

_AT_ONCE: Final = 32


@click.command("transfer", cls=CheckedCommand)
@click.argument("image_id", type=IMAGE_ID, metavar="ID")
@click.option(
    "--region",
    "regions",
    required=True,
    multiple=True,
    metavar="SLUGS",
    shell_complete=complete_regions,
    help="Where it goes, too.",
)
@click.option("--wait", is_flag=True, help="Wait until it is there.")
@wait_options(timeout=7200.0, longest="The longest wait for each.")
@output_options
@client_options
def transfer_command(
    *,
    image_id: int,
    regions: tuple[str, ...],
    wait: bool,
    wait_timeout: float,
    poll_interval: float,
    **options: Any,
) -> int:
    """Copy an image to other regions; it stays where it is, too.

    Each region has a row, also one whose transfer could not be begun: its status is "failed", "unknown" if
    the transfer may have been begun all the same, or "not tried" if the command was interrupted before. What
    went wrong is on stderr, and "error" in JSON and CSV; "region_slug" is always the region that you named.

    Costs one request for each region; with --wait one more for each poll.

    \b
    Examples:
      do-images transfer 7938391 --region nyc3
      do-images transfer 7938391 --region ams3,sgp1 --wait
    """
    rows = Rows.of(options)
    rows.check(_TRANSFER_COLUMNS)
    check_wait_options(wait=wait)
    slugs = region_slugs(regions, "--region")
    waiting = (wait_timeout, poll_interval) if wait else None
    transfers = _Transfers(connection_of(options), image_id, slugs, waiting)
    changes: list[str] = []
    with told_if_lost(changes), rows.destination() as target:
        run_to_report(transfers.run(watch(options)), transfers.interruption)
        changes += transfers.changes
        rows.write(target, transfers.rows, _TRANSFER_COLUMNS)
        transfers.raise_errors()
    return Exit.OK


@attrs.frozen(kw_only=True)
class _Transfer:
    """The outcome in one region: its action's fields, some of them None if there is none, and the error.

    The region is the one that was asked for; the action may name the one that the image comes from.
    """

    id: int | None = None
    status: str | None
    type: str | None = "transfer"
    started_at: datetime | None = None
    completed_at: datetime | None = None
    resource_id: int | None
    resource_type: str | None = "image"
    region: Region | None = None
    region_slug: str | None
    error: str | None = None


_TRANSFER_COLUMNS: Final[tuple[Column[_Transfer], ...]] = (
    *cast("tuple[Column[_Transfer], ...]", ACTION_COLUMNS),
    Column("Error", "error", lambda transfer: transfer.error, min_width=16, in_table=False),
)


@attrs.define
class _Transfers:
    """The transfers of an image to regions.

    Attributes:
        connection: the account.
        image_id: the image.
        regions: the regions.
        waiting: the longest wait for each, and the seconds between the first two polls; None for no wait.
        last: the transfers as last seen, by region.
        errors: the errors, each with its region.
        interruption: the interruption of the command.
    """

    connection: Connection
    image_id: int
    regions: Sequence[str]
    waiting: tuple[float, float] | None
    last: dict[str, Action] = attrs.field(factory=dict[str, Action], init=False)
    errors: list[tuple[str, BaseException]] = attrs.field(factory=list[tuple[str, BaseException]], init=False)
    interruption: Interruption = attrs.field(factory=Interruption, init=False)

    @property
    def rows(self) -> list[_Transfer]:
        """Return the outcomes, in the order of the regions."""
        errors = dict(self.errors)
        return [self._row(region, errors.get(region)) for region in self.regions]

    def _row(self, region: str, error: BaseException | None) -> _Transfer:
        action = self.last.get(region)
        if action is None and error is None:  # interrupted before its turn
            error = NotSentError()
        message = None if error is None else masked(message_with_notes(error))
        if action is not None:
            asked = attrs.evolve(action, region_slug=region)
            return _Transfer(**attrs.asdict(asked, recurse=False), error=message)
        return _Transfer(
            status=_status_without_action(error),
            resource_id=self.image_id,
            region_slug=region,
            error=message,
        )

    @property
    def changes(self) -> list[str]:
        """Return what was begun, in words."""
        return [f"action {action.id} copies it to {region}" for region, action in self.last.items()]

    async def run(self, shown: Watch) -> None:
        """Begin the transfers, and wait for them; failures are added to `errors`."""
        async with self.connection.open() as api, show_words(api.limiter, shown, self._in_words):
            calls = fan_out(lambda region: self._transfer(api, region), self.regions, concurrency=_AT_ONCE)
            async with aclosing(calls):
                async for call in calls:
                    call.result()

    def raise_errors(self) -> None:
        """Report the errors on stderr, and the interruption.

        Raises:
            Stopped: there was one.
        """
        for _, error in self.errors:
            self.connection.explain(error)
        messages = [f"{region}: {message_with_notes(error)}" for region, error in self.errors]
        interrupted = self.interruption.begun
        if interrupted:
            messages.append("interrupted: transfers that are under way go on; see `actions`")
        for message in messages[:-1]:
            complain(message)
        if messages:
            raise Stopped(Exit.INTERRUPTED if interrupted else Exit.API_ERROR, messages[-1], partial=True)

    def _in_words(self) -> str:
        states = (
            f"{region} {(self.last[region].status or 'begun') if region in self.last else 'asked'}"
            for region in self.regions
        )
        return f"image {self.image_id}: {', '.join(states)}"

    async def _transfer(self, api: ImagesAPI, region: str) -> None:
        try:
            begun = await self.interruption.to_its_end(
                lambda: api.actions.transfer(self.image_id, region), "transfer"
            )
            self.last[region] = begun
            if self.waiting is None or self.interruption.begun:
                _check_not_errored(begun)
                return
            await self._wait(api, region, begun, self.waiting)
        except Exception as error:  # noqa: BLE001  (reported later, each with its region)
            self.errors.append((region, error))

    async def _wait(self, api: ImagesAPI, region: str, begun: Action, waiting: tuple[float, float]) -> None:
        timeout, poll_interval = waiting
        await until_completed(
            partial(api.actions.get_transfer, self.image_id, begun.id, region),
            self.image_id,
            begun.id,
            timeout=timeout,
            poll_interval=poll_interval,
            begun=begun,
            report=partial(self.last.__setitem__, region),
        )


def _status_without_action(error: BaseException | None) -> str:
    if isinstance(error, NotSentError):
        return NOT_TRIED
    return "unknown" if isinstance(error, DOImagesError) and error.outcome_unknown else "failed"


def _check_not_errored(action: Action) -> None:
    """Raise the error of --wait for an action that was answered as errored already."""
    if action.status == ActionStatus.ERRORED:
        raise ActionFailedError(action)


@click.command("convert", cls=CheckedCommand)
@click.argument("image_id", type=IMAGE_ID, metavar="ID")
@click.option("--wait", is_flag=True, help="Wait until it is a snapshot.")
@wait_options()
@output_options
@client_options
def convert_command(
    *, image_id: int, wait: bool, wait_timeout: float, poll_interval: float, **options: Any
) -> int:
    """Turn an image, such as a backup, into a snapshot.

    Costs one request; with --wait one more for each poll.

    \b
    Example:
      do-images convert 7938391 --wait
    """
    rows = Rows.of(options)
    rows.check(ACTION_COLUMNS)
    check_wait_options(wait=wait)

    change = Change[Action](rows, ACTION_COLUMNS)

    async def convert() -> Action:
        async with (
            connection_of(options).open() as api,
            show_words(api.limiter, watch(options), lambda: f"converting image {image_id}"),
        ):
            begun = await change.make(
                lambda: api.actions.convert(image_id), lambda action: f"action {action.id} converts it"
            )
            if not wait or change.interruption.begun:
                return begun
            return await api.actions.wait(
                image_id, begun.id, timeout=wait_timeout, poll_interval=poll_interval
            )

    _check_not_errored(change.report(convert))
    return Exit.OK


@click.command("actions", cls=CheckedCommand)
@click.argument("image_id", type=IMAGE_ID, metavar="ID")
@click.option("--action-id", type=IMAGE_ID, help="Only this one.")
@output_options
@client_options
def actions_command(*, image_id: int, action_id: int | None, **options: Any) -> int:
    """List what was done to an image, or is being done.

    Costs one request for every 200 actions, and at least two; with --action-id one.

    \b
    Examples:
      do-images actions 7938391
      do-images actions 7938391 --action-id 36805527 -o json
    """
    rows = Rows.of(options)
    rows.check(ACTION_COLUMNS)
    with rows.destination() as target:
        return run_interruptibly(
            _actions(connection_of(options), image_id, action_id, rows, target, watch(options))
        )


async def _actions(
    connection: Connection, image_id: int, action_id: int | None, rows: Rows, target: Target, shown: Watch
) -> int:
    found: list[Action] = []
    stopped: Stopped | None = None
    async with (
        connection.open() as api,
        show_words(api.limiter, shown, lambda: counted(len(found), "action")),
    ):
        try:
            if action_id is not None:
                found.append(await api.actions.get(image_id, action_id))
            else:
                async with aclosing(api.actions.list(image_id, strict=True)) as actions:
                    async for action in actions:
                        found.append(action)  # noqa: PERF401  (an interruption keeps the actions read before it)
        except asyncio.CancelledError:
            message = f"INCOMPLETE: interrupted after {counted(len(found), 'action')}"
            stopped = Stopped(Exit.INTERRUPTED, message, partial=True)
        except IncompleteListingError as error:
            stopped = Stopped(Exit.INCOMPLETE, f"INCOMPLETE: {error}", partial=True)
        except DOImagesError as error:
            if not found:
                raise
            connection.explain(error)
            message = f"INCOMPLETE: failed after {counted(len(found), 'action')}: {message_with_notes(error)}"
            stopped = Stopped(Exit.API_ERROR, message, partial=True)
    rows.write(target, found, ACTION_COLUMNS)
    if stopped is not None:
        raise stopped
    return Exit.OK
