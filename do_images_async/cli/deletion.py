"""The work of `delete`: read the images, delete them, and report each."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final

import attrs
import click

from do_images_async import Image, ImagesAPI, fan_out
from do_images_async.cli.columns import as_record
from do_images_async.cli.connection import Connection
from do_images_async.cli.in_flight import Interruption, NotSentError, UnfinishedError
from do_images_async.cli.lookup import Lookup
from do_images_async.cli.options import image_id
from do_images_async.cli.output import Target
from do_images_async.cli.progress import Watch, show_words
from do_images_async.cli.text import counted, printable
from do_images_async.errors import DOImagesError

__all__ = ["Deletion", "named", "read_ids"]

_AT_ONCE: Final = 8


def read_ids(words: Sequence[str]) -> list[int]:
    """Return the ids, each once; "-" stands for the ids in stdin, separated by white space or commas.

    Raises:
        BadParameter: an id is no number.
        UsageError: stdin can't be read.
    """
    every: list[str] = []
    for word in words:
        every += _words_of_stdin() if word == "-" else [word]
    return list(dict.fromkeys(map(image_id, every)))


def _words_of_stdin() -> list[str]:
    try:
        return sys.stdin.read().replace(",", " ").split()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise click.UsageError(f"the ids can't be read from stdin: {reason}") from None


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
        outcomes: whether each image was deleted, by its id, once its deletion has ended; None if that is
            unknown.
        interruption: the interruption of the deletion.
        errors: why images were not deleted, or perhaps not.
    """

    connection: Connection
    target: Target
    as_json: bool = attrs.field(kw_only=True)
    allow_public: bool = attrs.field(kw_only=True)
    found: list[Image] = attrs.field(factory=list[Image], init=False)
    outcomes: dict[int, bool | None] = attrs.field(factory=dict[int, bool | None], init=False)
    errors: list[BaseException] = attrs.field(factory=list[BaseException], init=False)
    interruption: Interruption = attrs.field(factory=Interruption, init=False)
    _asked: int = attrs.field(default=0, init=False)
    _look_up_interrupted: bool = attrs.field(default=False, init=False)
    _unwritten: deque[Image] = attrs.field(factory=deque[Image], init=False)

    @property
    def interrupted(self) -> bool:
        """Return whether it was interrupted, while it read the images or while it deleted them."""
        return self._look_up_interrupted or self.interruption.begun

    @property
    def summary(self) -> str:
        """Return the outcome in a sentence."""
        total = self._asked if self._look_up_interrupted else len(self.found)
        parts = [f"{self._deleted:,} of {counted(total, 'image')} deleted"]
        unknown = [str(image.id) for image in self.found if self.outcomes.get(image.id, False) is None]
        if unknown:
            parts.append(f"{len(unknown):,} perhaps deleted: {', '.join(unknown)}")
        return ", ".join(parts)

    @property
    def _deleted(self) -> int:
        return sum(outcome is True for outcome in self.outcomes.values())

    async def look_up(self, ids: Sequence[int], shown: Watch) -> None:
        """Read the images, until it is interrupted, and keep those that may be deleted."""
        lookup = Lookup(ids)

        def words() -> str:
            return f"{len(lookup.found):,}/{counted(len(ids), 'image')} looked up"

        async with self.connection.open() as api, show_words(api.limiter, shown, words):
            await lookup.read(api.delete_many(ids, dry_run=True, allow_public=self.allow_public))
        self.found, self.errors = lookup.found, lookup.errors
        self._look_up_interrupted = lookup.interrupted
        self._asked = len(ids)

    async def delete(self, shown: Watch) -> None:
        """Delete the images that were found, and write a line for each.

        If it is interrupted, or can't write, it sends nothing more and waits for deletions in flight.

        Raises:
            Stopped: a line could not be written.
        """
        self._unwritten.extend(self.found)
        async with (
            self.connection.open() as api,
            show_words(
                api.limiter,
                shown,
                lambda: f"{self._deleted:,}/{counted(len(self.found), 'image')} deleted",
            ),
            aclosing(
                fan_out(
                    lambda image: self._delete(api, image),
                    self.found,
                    concurrency=_AT_ONCE,
                )
            ) as outcomes,
        ):
            async for outcome in outcomes:
                outcome.result()
                self._write_ended()

    async def _delete(self, api: ImagesAPI, image: Image) -> None:
        try:
            await self.interruption.to_its_end(lambda: api.delete(image.id), "deletion")
        except NotSentError:
            self.outcomes[image.id] = False
        except UnfinishedError:
            self.outcomes[image.id] = None
        except Exception as error:  # noqa: BLE001  (a defect, too, must not hide what was deleted before)
            self.errors.append(error)
            unknown = isinstance(error, DOImagesError) and error.outcome_unknown
            self.outcomes[image.id] = None if unknown else False
        else:
            self.outcomes[image.id] = True

    def finish(self, *, dry_run: bool) -> None:
        """Write the rest of the report: the JSON of all images, or the lines that are not written yet."""
        if self.as_json:
            self.target.write(json.dumps(self._records(), indent=2) + "\n")
            return
        if dry_run:
            for image in self.found:
                self.target.write(f"would delete {named(image)}\n")
        while self._unwritten:
            self._write_line(self._unwritten.popleft())

    def _write_ended(self) -> None:
        """Write the lines of images that have ended, in the order in which they were given."""
        while not self.as_json and self._unwritten and self._unwritten[0].id in self.outcomes:
            self._write_line(self._unwritten.popleft())

    def _write_line(self, image: Image) -> None:
        """Write that an image was deleted, or perhaps was."""
        outcome = self.outcomes.get(image.id, False)
        if outcome is not False:
            self.target.write(f"{'deleted' if outcome else 'perhaps deleted'} {named(image)}\n")

    def _records(self) -> list[dict[str, Any]]:
        """Return the images that were found, each with whether it was deleted: None if that is unknown."""
        return [as_record(image) | {"deleted": self.outcomes.get(image.id, False)} for image in self.found]
