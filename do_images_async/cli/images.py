"""The commands `get`, `create`, `update`, `delete` and `wait`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import click

from do_images_async import Image, ImagesAPI, ImageStatus
from do_images_async.cli.change import Change
from do_images_async.cli.checked import CheckedCommand
from do_images_async.cli.columns import IMAGE_COLUMNS
from do_images_async.cli.completion import complete_regions
from do_images_async.cli.confirmation import check_somebody_is_there, confirm
from do_images_async.cli.connection import Connection, connection_of
from do_images_async.cli.deletion import Deletion, named, read_ids
from do_images_async.cli.lookup import Lookup
from do_images_async.cli.options import (
    IMAGE_ID,
    check_wait_options,
    client_options,
    file_option,
    image_key,
    output_options,
    region_slugs,
    split_given,
    wait_options,
    watch,
)
from do_images_async.cli.output import Target, destination, told_if_lost
from do_images_async.cli.progress import Watch, show_words
from do_images_async.cli.rows import Rows
from do_images_async.cli.running import run_interruptibly, run_to_report
from do_images_async.cli.status import Exit, Stopped, complain, message_with_notes
from do_images_async.cli.text import counted, printable
from do_images_async.errors import ImportFailedError

__all__ = [
    "create_command",
    "delete_command",
    "get_command",
    "update_command",
    "wait_command",
]


@click.command("get", cls=CheckedCommand)
@click.argument("images", nargs=-1, required=True, type=image_key, metavar="ID_OR_SLUG...")
@output_options
@client_options
def get_command(*, images: tuple[int | str, ...], **options: Any) -> int:
    """Show images by their ids, or public ones by their slugs.

    Costs one request for each.

    \b
    Examples:
      do-images get ubuntu-24-04-x64
      do-images get 7938391 7938392 -o json
    """
    rows = Rows.of(options)
    rows.check(IMAGE_COLUMNS)
    with rows.destination() as target:
        return run_interruptibly(_get(connection_of(options), images, rows, target, watch(options)))


async def _get(
    connection: Connection, keys: Sequence[int | str], rows: Rows, target: Target, shown: Watch
) -> int:
    lookup = Lookup(keys)

    def words() -> str:
        return f"{len(lookup.found):,}/{counted(len(keys), 'image')}"

    async with connection.open() as api, show_words(api.limiter, shown, words):
        await lookup.read(api.get_many(keys))
    if lookup.found or rows.form == "json":
        rows.write(target, lookup.found, IMAGE_COLUMNS)
    if lookup.interrupted:
        _complain_of(lookup.errors, connection)
        raise Stopped(Exit.INTERRUPTED, f"INCOMPLETE: interrupted after {words()}", partial=True)
    _raise_last(lookup.errors, connection)
    return Exit.OK


@click.command("create", cls=CheckedCommand)
@click.argument("name")
@click.option("--image-url", "--url", "url", required=True, help="Where the provider finds the image.")
@click.option(
    "--region",
    required=True,
    metavar="SLUG",
    shell_complete=complete_regions,
    help="The region that will hold it.",
)
@click.option("--image-distribution", "--distribution", "distribution", help="Its operating system.")
@click.option("--image-description", "--description", "description", help="Free text.")
@click.option("--tag-names", "--tag", "tags", multiple=True, metavar="TAGS", help="Tags, with commas.")
@click.option("--wait", is_flag=True, help="Wait until it is available.")
@wait_options()
@output_options
@client_options
def create_command(
    *,
    name: str,
    url: str,
    region: str,
    distribution: str | None,
    description: str | None,
    tags: tuple[str, ...],
    wait: bool,
    wait_timeout: float,
    poll_interval: float,
    **options: Any,
) -> int:
    """Import a custom image from a URL.

    Costs one request; with --wait one more for each poll.

    \b
    Example:
      do-images create golden --image-url https://example.com/golden.qcow2 --region nyc3 --wait
    """
    rows = Rows.of(options)
    rows.check(IMAGE_COLUMNS)
    check_wait_options(wait=wait)
    tag_names = split_given(tags, "--tag", "tag")

    region_slugs((region,), "--region")
    change = Change[Image](rows, IMAGE_COLUMNS)

    async def create(api: ImagesAPI) -> Image:
        image = await change.make(
            lambda: api.create_custom(
                name=name,
                url=url,
                region=region,
                distribution=distribution,
                description=description,
                tags=tag_names or None,
            ),
            lambda image: f"image {image.id} was created",
        )
        if not wait or change.interruption.begun:
            return image
        complain(f"image {image.id} is being imported")
        return await api.wait_until_available(image.id, timeout=wait_timeout, poll_interval=poll_interval)

    words = f"importing {printable(name)} to {printable(region)}"
    image = change.report(lambda: _opened(create, options, words))
    if image.status == ImageStatus.DELETED:  # the import has failed already, as --wait would say
        raise ImportFailedError(image)
    return Exit.OK


@click.command("update", cls=CheckedCommand)
@click.argument("image_id", type=IMAGE_ID, metavar="ID")
@click.option("--image-name", "--name", "name", help="The new name.")
@click.option("--image-description", "--description", "description", help="The new description.")
@click.option("--image-distribution", "--distribution", "distribution", help="The new operating system.")
@output_options
@client_options
def update_command(
    *, image_id: int, name: str | None, description: str | None, distribution: str | None, **options: Any
) -> int:
    """Change an image's name, description or distribution.

    What is not given stays as it is. Costs one request.

    \b
    Example:
      do-images update 7938391 --image-name golden-v2
    """
    rows = Rows.of(options)
    rows.check(IMAGE_COLUMNS)
    given = {"name": name, "description": description, "distribution": distribution}
    changes = {key: value for key, value in given.items() if value is not None}
    if not changes:
        raise click.UsageError("give at least one of --image-name, --image-description, --image-distribution")

    change = Change[Image](rows, IMAGE_COLUMNS)

    async def update(api: ImagesAPI) -> Image:
        return await change.make(
            lambda: api.update(image_id, **changes), lambda _: f"image {image_id} was updated"
        )

    change.report(lambda: _opened(update, options, f"updating {image_id}"))
    return Exit.OK


@click.command("wait", cls=CheckedCommand)
@click.argument("image_id", type=IMAGE_ID, metavar="ID")
@wait_options()
@output_options
@client_options
def wait_command(*, image_id: int, wait_timeout: float, poll_interval: float, **options: Any) -> int:
    """Wait until an import is done.

    Costs one request for each poll, and its retries; the time between two grows to a minute.

    \b
    Example:
      do-images wait 7938391 --wait-timeout 1800 && echo ready
    """
    rows = Rows.of(options)
    rows.check(IMAGE_COLUMNS)

    async def wait(api: ImagesAPI) -> Image:
        return await api.wait_until_available(image_id, timeout=wait_timeout, poll_interval=poll_interval)

    with rows.destination() as target:
        rows.write(
            target,
            [run_interruptibly(_opened(wait, options, f"waiting for image {image_id}"))],
            IMAGE_COLUMNS,
        )
    return Exit.OK


@click.command("delete", cls=CheckedCommand)
@click.argument("image_ids", nargs=-1, required=True, metavar="ID...")
@click.option("-y", "--yes", "-f", "--force", "yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Show what would be deleted, and delete nothing.")
@click.option("--allow-public", is_flag=True, help="Delete public images, too, where the token may.")
@click.option("-o", "--output", "form", type=click.Choice(["text", "json"]), default="text", help="Format.")
@file_option
@client_options
def delete_command(
    *,
    image_ids: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    allow_public: bool,
    form: str,
    file: Path | None,
    **options: Any,
) -> int:
    """Delete images, after showing them and asking.

    The ids are arguments, or the words of stdin where - stands for them. Costs two requests for each image;
    with --dry-run one. When it is interrupted, it sends nothing more and waits ten seconds for deletions in
    flight; interrupted again, it leaves them. The report says which images were deleted, and which perhaps
    were ("deleted": null in JSON).

    \b
    Examples:
      do-images delete 7938391 7938392 --dry-run
      do-images delete 7938391 --yes -o json
      do-images list --tag old --columns ID --no-header | do-images delete - --yes
    """
    if "-" in image_ids and options["token_file"] == "-":  # noqa: S105  (no password)
        raise click.UsageError("the ids and --token-file can't both be read from stdin")
    ids = read_ids(image_ids)
    if not ids:
        complain("stdin has no ids: nothing to delete")
    connection = connection_of(options)
    shown = watch(options)
    changes: list[str] = []
    with told_if_lost(changes), destination(file) as target:
        deletion = Deletion(connection, target, as_json=form == "json", allow_public=allow_public)
        run_interruptibly(deletion.look_up(ids, shown))
        if not dry_run and not deletion.interrupted:
            if deletion.found and not yes:
                _ask(deletion.found)  # outside of the event loop, so that Ctrl-C ends it
            _delete(deletion, shown, changes)
        deletion.finish(dry_run=dry_run)
        if deletion.interrupted:
            _complain_of(deletion.errors, connection)
            raise Stopped(Exit.INTERRUPTED, f"interrupted: {deletion.summary}", partial=True)
        _raise_last(deletion.errors, connection)
    return Exit.OK


def _delete(deletion: Deletion, shown: Watch, changes: list[str]) -> None:
    """Delete, and add to the changes what was deleted, also if it is interrupted."""
    try:
        run_to_report(deletion.delete(shown), deletion.interruption)
    finally:
        changes.append(deletion.summary)


def _ask(images: Sequence[Image]) -> None:
    check_somebody_is_there()
    for image in images:
        click.echo(named(image), err=True)
    confirm(f"Delete {counted(len(images), 'image')}?")


def _raise_last(errors: Sequence[BaseException], connection: Connection) -> None:
    """Report all errors but the last one on stderr, and raise the last one."""
    _complain_of(errors[:-1], connection)
    if errors:
        connection.explain(errors[-1])
        raise Stopped(Exit.API_ERROR, message_with_notes(errors[-1]), partial=True)


def _complain_of(errors: Sequence[BaseException], connection: Connection) -> None:
    for error in errors:
        connection.explain(error)
        complain(message_with_notes(error))


async def _opened(
    call: Callable[[ImagesAPI], Awaitable[Image]], options: dict[str, Any], words: str
) -> Image:
    async with (
        connection_of(options).open() as api,
        show_words(api.limiter, watch(options), lambda: words),
    ):
        return await call(api)
