"""The commands `list` and `latest`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

import attrs
import click

from do_images_async import Image, ImagesAPI
from do_images_async._arguments import check_text
from do_images_async.cli.checked import CheckedCommand
from do_images_async.cli.columns import IMAGE_COLUMNS, Column, choose
from do_images_async.cli.completion import complete_regions, complete_sort
from do_images_async.cli.connection import Connection, connection_of
from do_images_async.cli.options import client_options, output_options, region_slugs, watch
from do_images_async.cli.output import Target
from do_images_async.cli.progress import Progress, Watch, show_progress, show_words
from do_images_async.cli.rows import Rows
from do_images_async.cli.running import run_interruptibly
from do_images_async.cli.status import Exit, Stopped, complain, message_with_notes
from do_images_async.errors import DOImagesError, IncompleteListingError

__all__ = ["latest_command", "list_command"]

LatestType = Literal["distribution", "application", "snapshot", "backup", "custom"]

_PUBLIC_TYPES = ("distribution", "application")
_TYPES = (*_PUBLIC_TYPES, "snapshot", "backup", "custom")
_OWN_COLUMNS = ("ID", "Name", "Type", "Regions", "Size", "Created")
_PUBLIC_COLUMNS = ("ID", "Slug", "Name", "Distribution", "Size")


@attrs.frozen(kw_only=True)
class _Query:
    """The requested images: the filters of the API, and those that are applied here.

    Attributes:
        public: whether the provider's images are read as well.
        kind: the type; the API filters the two public ones.
        tag: a tag that images must have; the API filters it.
        regions: the image must be in one of these.
        name: a pattern for the name.
        sort: the column that orders the rows; None for the API's order.
        descending: whether the largest comes first.
        limit: the most rows.
    """

    public: bool
    kind: str | None
    tag: str | None
    regions: frozenset[str]
    name: str | None
    sort: Column[Image] | None
    descending: bool
    limit: int | None

    @property
    def listing(self) -> dict[str, Any]:
        """Return the arguments of `list_pages`."""
        public_type = self.kind if self.kind in _PUBLIC_TYPES else None
        private = None if self.public or public_type else True
        return {"type": public_type, "private": private, "tag_name": self.tag}

    @property
    def own(self) -> bool:
        return bool(self.listing["private"])

    @property
    def filters(self) -> bool:
        """Return whether some images of the listing are filtered out here."""
        return bool(self.regions or self.name is not None or (self.kind and self.listing["type"] is None))

    def matching(self, images: Iterable[Image]) -> Iterator[Image]:
        return (image for image in images if self._matches(image))

    def ordered(self, images: list[Image]) -> list[Image]:
        """Return the rows in their order, at most `limit`; rows without a value come last."""
        column = self.sort
        if column is not None:
            known = [image for image in images if column.value(image) is not None]
            unknown = [image for image in images if column.value(image) is None]
            known.sort(key=lambda image: _sort_key(column.value(image)), reverse=self.descending)
            images = known + unknown
        return images[: self.limit]

    def _matches(self, image: Image) -> bool:
        if self.regions and not self.regions.intersection(image.regions):
            return False
        if self.name is not None and not fnmatchcase(image.name, self.name):
            return False
        return self.kind is None or self.kind in _PUBLIC_TYPES or image.type == self.kind


def _sort_key(value: object) -> Any:
    if isinstance(value, str):
        return value.casefold()
    return ",".join(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value


def _sorting(value: str | None) -> tuple[Column[Image] | None, bool]:
    if value is None:
        return None, False
    column, *_ = choose(IMAGE_COLUMNS, [value.removeprefix("-")], "--sort")
    return column, value.startswith("-")


@click.command("list", cls=CheckedCommand)
@click.option("--public", is_flag=True, help="The provider's public images, too.")
@click.option("--type", "kind", type=click.Choice(_TYPES), help="Only images of this type.")
@click.option("--tag", "tag", metavar="TAG", help="Only images with this tag.")
@click.option(
    "--region",
    "regions",
    multiple=True,
    metavar="SLUG",
    shell_complete=complete_regions,
    help="Only images in this region; repeat it for any of several.",
)
@click.option("--name", metavar="GLOB", help="Only images with this name, or pattern, such as 'web-*'.")
@click.option(
    "--sort",
    metavar="COLUMN",
    shell_complete=complete_sort,
    help="Order the rows by a column; -COLUMN begins with the largest.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Show no more than N images.")
@output_options
@client_options
def list_command(
    *,
    public: bool,
    kind: str | None,
    tag: str | None,
    regions: tuple[str, ...],
    name: str | None,
    sort: str | None,
    limit: int | None,
    **options: Any,
) -> int:
    """List images: yours, or the provider's as well.

    Costs one request for every 200 images, and at least two. The API filters by --tag, --public and the types
    distribution and application; it has no filter for other types, --region and --name, so that all images
    are read then, at the same cost. --limit without --sort stops reading when it has found enough.

    A table has a few columns that fit 80 characters; --columns all shows every one. A terminal gets what fits
    it, a pipe uncut rows. JSON and CSV have all. In CSV a text that a spreadsheet might run, such as one that
    begins with =, +, -, @ or a tab, gets a ' in front, and so does one that begins with a '.

    \b
    Examples:
      do-images list
      do-images list --type snapshot --region nyc3 --sort=-size --limit 10
      do-images list --name 'web-*' --sort=-created -o json
      do-images list --public --type distribution --columns Slug,Name,Regions
      do-images list -o ndjson | jq -r 'select(.size_gigabytes > 50) | .id'
    """
    column, descending = _sorting(sort)
    if name is not None:
        check_text(name, "name")
    query = _Query(
        public=public,
        kind=kind,
        tag=tag,
        regions=frozenset(region_slugs(regions, "--region")),
        name=name,
        sort=column,
        descending=descending,
        limit=limit,
    )
    rows = Rows.of(options, short=_OWN_COLUMNS if query.own else _PUBLIC_COLUMNS)
    rows.check(IMAGE_COLUMNS)
    with rows.destination() as target:
        return run_interruptibly(_list(connection_of(options), query, rows, target, watch(options)))


async def _list(connection: Connection, query: _Query, rows: Rows, target: Target, shown: Watch) -> int:
    found = 0
    kept: list[Image] = []
    streams = rows.streams and query.sort is None
    async with connection.open() as api, show_progress(api.limiter, shown) as progress:
        async for images in _found(connection, api, query, progress):
            if streams:
                rows.write(target, images, IMAGE_COLUMNS, header=progress.pages == 1)
            else:
                kept.extend(images)
            found += len(images)
    if not streams or not progress.pages:
        rows.write(target, query.ordered(kept), IMAGE_COLUMNS)
    if why := progress.why_partial():
        raise Stopped(_status(progress), f"INCOMPLETE: {why}", partial=True)
    if rows.form == "table" and progress.pages and not found:
        complain(_nothing(query, progress))
    return Exit.OK


def _status(progress: Progress) -> Exit:
    """Return the exit status of a listing that is a part."""
    if progress.interrupted:
        return Exit.INTERRUPTED
    return Exit.API_ERROR if progress.failure is not None else Exit.INCOMPLETE


async def _found(
    connection: Connection, api: ImagesAPI, query: _Query, progress: Progress
) -> AsyncGenerator[list[Image], None]:
    """Yield the matching images of each page; without a sort, stop reading when the limit is reached."""
    left = query.limit if query.sort is None else None
    try:
        async with aclosing(api.list_pages(**query.listing, strict=True)) as pages:
            async for page in pages:
                progress.advance(len(page), page.total)
                images = list(query.matching(page.images))[:left]
                yield images
                if left is not None:
                    left -= len(images)
                    if not left:
                        return
    except asyncio.CancelledError:
        progress.interrupted = True
    except IncompleteListingError as error:
        progress.shortfall = str(error)
    except DOImagesError as error:
        if not progress.pages:
            raise
        connection.explain(error)
        progress.failure = message_with_notes(error)


def _nothing(query: _Query, progress: Progress) -> str:
    if progress.images and query.filters:
        return f"none of {progress.images:,} images matches"
    if query.tag is not None or query.kind is not None:
        named = {"the tag": query.tag, "the type": query.kind}
        wanted = " and ".join(f"{what} {value!r}" for what, value in named.items() if value is not None)
        return f"no {'private ' * query.own}image has {wanted}"
    if query.own:
        return "no private image is there; --public lists the provider's, too"
    return "no image is there"


@click.command("latest", cls=CheckedCommand)
@click.option("--name", metavar="GLOB", help="The name, or a pattern, such as 'web-*'.")
@click.option("--tag", "tag_name", metavar="TAG", help="A tag that it has.")
@click.option("--distribution", metavar="NAME", help="Its operating system, such as Ubuntu.")
@click.option("--type", "kind", type=click.Choice(_TYPES), help="Its type.")
@click.option("--public", is_flag=True, help="Look among the provider's public images, too.")
@output_options
@client_options
def latest_command(
    *,
    name: str | None,
    tag_name: str | None,
    distribution: str | None,
    kind: LatestType | None,
    public: bool,
    **options: Any,
) -> int:
    """Show the newest image of a name, tag or distribution.

    Only available images count. Costs what `list` does: the API has no order, so that all are read.

    Ends with 3 if there is none.

    \b
    Examples:
      do-images latest --name 'web-*' --columns ID --no-header
      do-images latest --tag prod --type snapshot
      do-images latest --type distribution --distribution Ubuntu
    """
    rows = Rows.of(options)
    rows.check(IMAGE_COLUMNS)
    private = not (public or kind in _PUBLIC_TYPES)

    async def find(connection: Connection, shown: Watch) -> Image | None:
        async with connection.open() as api, show_words(api.limiter, shown, lambda: "reading the images"):
            return await api.latest(
                name=name, tag_name=tag_name, distribution=distribution, type=kind, private=private
            )

    with rows.destination() as target:
        image = run_interruptibly(find(connection_of(options), watch(options)))
        if image is None:
            raise Stopped(Exit.API_ERROR, "no available image matches")
        rows.write(target, [image], IMAGE_COLUMNS)
    return Exit.OK
