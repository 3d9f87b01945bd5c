"""The work of `delete`: read the images, delete them, and report each."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import attrs

from do_images_async import Image
from do_images_async.cli.columns import as_record
from do_images_async.cli.connection import Connection
from do_images_async.cli.options import image_id
from do_images_async.cli.output import Target
from do_images_async.cli.progress import Watch, show_words
from do_images_async.cli.status import Exit, Stopped
from do_images_async.cli.text import counted, printable

__all__ = ["Deletion", "named", "read_ids"]


def read_ids(words: Sequence[str]) -> list[int]:
    """Return the ids, each once; "-" stands for the ids in stdin, separated by white space or commas.

    Raises:
        BadParameter: an id is no number.
    """
    every: list[str] = []
    for word in words:
        every += sys.stdin.read().replace(",", " ").split() if word == "-" else [word]
    return list(dict.fromkeys(map(image_id, every)))


def named(image: Image) -> str:
    """Return a line that names an image."""
    size = f", {image.size_gigabytes:g} GB" if image.size_gigabytes else ""
    return f"{image.id} {printable(image.name)} ({image.type or 'image'}{size})"


@attrs.define
class Deletion:
    """The deletion of some images.

    Attributes:
        connection: the account.
        target: the output of the report.
        as_json: whether the report is JSON.
        allow_public: whether public images are deleted as well.
        found: the images that may be deleted.
        deleted: the deleted images.
        errors: the errors of the others.
    """

    connection: Connection
    target: Target
    as_json: bool = attrs.field(kw_only=True)
    allow_public: bool = attrs.field(kw_only=True)
    found: list[Image] = attrs.field(factory=list[Image], init=False)
    deleted: list[Image] = attrs.field(factory=list[Image], init=False)
    errors: list[BaseException] = attrs.field(factory=list[BaseException], init=False)

    async def look_up(self, ids: Sequence[int], shown: Watch) -> None:
        """Read the images, and keep those that may be deleted."""
        async with (
            self.connection.open() as api,
            show_words(
                api.limiter, shown, lambda: f"{len(self.found):,}/{counted(len(ids), 'image')} looked up"
            ),
            aclosing(
                api.delete_many(ids, dry_run=True, ordered=True, allow_public=self.allow_public)
            ) as outcomes,
        ):
            async for outcome in outcomes:
                if outcome.error is not None:
                    self.errors.append(outcome.error)
                elif outcome.value is not None:
                    self.found.append(outcome.value)

    async def delete(self, shown: Watch) -> None:
        """Delete the images that were found, and write a line for each.

        Raises:
            Stopped: it was interrupted.
        """
        images = {image.id: image for image in self.found}
        try:
            async with (
                self.connection.open() as api,
                show_words(
                    api.limiter,
                    shown,
                    lambda: f"{len(self.deleted):,}/{counted(len(images), 'image')} deleted",
                ),
                # `look_up` has removed the public images unless they are allowed.
                aclosing(api.delete_many(images, allow_public=True, ordered=True)) as outcomes,
            ):
                async for outcome in outcomes:
                    if outcome.error is not None:
                        self.errors.append(outcome.error)
                        continue
                    self.deleted.append(images[outcome.key])
                    if not self.as_json:
                        self.target.write(f"deleted {named(images[outcome.key])}\n")
        except asyncio.CancelledError:
            self.finish(dry_run=False)
            done = f"{len(self.deleted):,} of {counted(len(images), 'image')} reported as deleted"
            message = f"interrupted: {done}; those in flight may be gone, too"
            raise Stopped(Exit.INTERRUPTED, message, partial=True) from None

    def finish(self, *, dry_run: bool) -> None:
        """Write the end of the report: the plan of a dry run, or the JSON of all images."""
        if self.as_json:
            self.target.write(json.dumps(self._records(dry_run=dry_run), indent=2) + "\n")
        elif dry_run:
            for image in self.found:
                self.target.write(f"would delete {named(image)}\n")

    def _records(self, *, dry_run: bool) -> list[dict[str, Any]]:
        """Return the images that were found, each with whether it was deleted (false in a dry run)."""
        deleted = {image.id for image in self.deleted} if not dry_run else set[int]()
        return [as_record(image) | {"deleted": image.id in deleted} for image in self.found]
