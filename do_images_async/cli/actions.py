"""The commands `transfer`, `convert` and `actions`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import click

from do_images_async import Action, ActionStatus, ImagesAPI
from do_images_async.cli.checked import CheckedCommand
from do_images_async.cli.columns import ACTION_COLUMNS
from do_images_async.cli.completion import complete_regions
from do_images_async.cli.connection import Connection, connection_of
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
from do_images_async.cli.running import run_interruptibly
from do_images_async.cli.status import Exit, Stopped, complain, message_with_notes
from do_images_async.cli.text import counted
from do_images_async.errors import ActionFailedError, IncompleteListingError

__all__ = ["actions_command", "convert_command", "transfer_command"]


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

    A region whose transfer could not be begun has no row: stderr names it, and says whether the transfer may
    have been begun all the same.

    Costs one request for each region; with --wait one more for each poll.

    \b
    Examples:
      do-images transfer 7938391 --region nyc3
      do-images transfer 7938391 --region ams3,sgp1 --wait
    """
    rows = Rows.of(options)
    rows.check(ACTION_COLUMNS)
    check_wait_options(wait=wait)
    slugs = region_slugs(regions, "--region")
    waiting = (wait_timeout, poll_interval) if wait else None
    changes: list[str] = []
    with told_if_lost(changes), rows.destination() as target:
        return run_interruptibly(
            _transfer(connection_of(options), image_id, slugs, waiting, rows, target, changes, watch(options))
        )


async def _transfer(
    connection: Connection,
    image_id: int,
    regions: Sequence[str],
    waiting: tuple[float, float] | None,
    rows: Rows,
    target: Target,
    changes: list[str],
    shown: Watch,
) -> int:
    last: dict[str, Action] = {}
    errors: list[tuple[str, BaseException]] = []

    def words() -> str:
        states = (f"{region} {last[region].status if region in last else 'asked'}" for region in regions)
        return f"image {image_id}: {', '.join(states)}"

    async def begin(api: ImagesAPI, region: str) -> None:
        try:
            last[region] = action = await api.actions.transfer(image_id, region)
            _check_not_errored(action)
        except Exception as error:  # noqa: BLE001  (reported below, each with its region)
            errors.append((region, error))

    interrupted = False
    async with connection.open() as api, show_words(api.limiter, shown, words):
        try:
            if waiting is None:
                await asyncio.gather(*(begin(api, region) for region in regions))
            else:
                errors += await _arrive(api, image_id, regions, waiting, last)
        except asyncio.CancelledError:
            interrupted = True
    changes += [f"action {action.id} copies it to {region}" for region, action in last.items()]
    rows.write(target, [last[region] for region in regions if region in last], ACTION_COLUMNS)
    for _, error in errors:
        connection.explain(error)
    messages = [f"{region}: {message_with_notes(error)}" for region, error in errors]
    if interrupted:
        messages.append("interrupted: transfers that are under way go on; see `actions`")
    for message in messages[:-1]:
        complain(message)
    if messages:
        raise Stopped(Exit.INTERRUPTED if interrupted else Exit.API_ERROR, messages[-1], partial=True)
    return Exit.OK


async def _arrive(
    api: ImagesAPI,
    image_id: int,
    regions: Sequence[str],
    waiting: tuple[float, float],
    last: dict[str, Action],
) -> list[tuple[str, BaseException]]:
    timeout, poll_interval = waiting
    outcomes = api.actions.transfer_to_regions(
        image_id, regions, timeout=timeout, poll_interval=poll_interval, progress=last.__setitem__
    )
    async with aclosing(outcomes):
        return [(outcome.key, outcome.error) async for outcome in outcomes if outcome.error is not None]


def _check_not_errored(action: Action) -> None:
    """Raise the error of --wait for an action that was answered as errored already."""
    if action.status is ActionStatus.ERRORED:
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

    changes: list[str] = []

    async def convert() -> Action:
        async with (
            connection_of(options).open() as api,
            show_words(api.limiter, watch(options), lambda: f"converting image {image_id}"),
        ):
            begun = await api.actions.convert(image_id)
            changes.append(f"action {begun.id} converts it")
            if not wait:
                return begun
            return await api.actions.wait(
                image_id, begun.id, timeout=wait_timeout, poll_interval=poll_interval
            )

    with told_if_lost(changes), rows.destination() as target:
        action = run_interruptibly(convert())
        rows.write(target, [action], ACTION_COLUMNS)
        try:
            _check_not_errored(action)
        except ActionFailedError as error:
            raise Stopped(Exit.API_ERROR, str(error), partial=True) from None
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
    rows.write(target, found, ACTION_COLUMNS)
    if stopped is not None:
        raise stopped
    return Exit.OK
