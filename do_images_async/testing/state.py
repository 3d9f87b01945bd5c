"""The account's images, and the imports that are in progress."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import attrs

from do_images_async.testing.arguments import duration
from do_images_async.testing.catalogue import DISTRIBUTIONS, Record, timestamp
from do_images_async.testing.state_document import State, check_image

__all__ = ["Filter", "ImageStore"]

_FORMATS = frozenset({"img", "raw", "qcow2", "vhdx", "vdi", "vmdk"})
_EXTENSION = re.compile(r"\.([a-z0-9]*[a-z][a-z0-9]*)")  # a version such as 24.04 ends in none
_LONGEST_NUMBER = 20  # digits: more than any id has, and fewer than Python refuses to read
_BEFORE_FIRST = 200_000_000
_FIELDS = 14  # of an image that has all
_NOT_AN_IMAGE = "The image could not be imported. Its format is none of raw, qcow2, vhdx, vdi and vmdk."
_COMPRESSED = (".gz", ".bz2")


@attrs.frozen
class Filter:
    """The filters of a listing; None filters nothing."""

    kind: str | None = None
    private: bool | None = None
    tag_name: str | None = None

    def admits(self, image: Record) -> bool:
        if self.private is not None and self.private == bool(image["public"]):
            return False
        if self.tag_name is not None and self.tag_name not in (image.get("tags") or ()):
            return False
        if self.kind is None:
            return True
        wanted = "base" if self.kind == "distribution" else "snapshot"
        return bool(image["public"]) and image.get("type") == wanted


@attrs.frozen
class _Import:
    started: float
    region: str
    works: bool


@attrs.define(init=False, eq=False, repr=False, slots=False)  # only for the check of what is set
class ImageStore:
    """The images in the order of a listing. The next response shows every change that a test makes.

    An import is NEW for the first half of its time, then pending, then available. It ends as deleted if the
    path of its URL ends in another extension than those of images: raw, img, qcow2, vhdx, vdi and vmdk, also
    with .gz or .bz2, in any case.

    Args:
        images: the first images.
        clock: Unix time, in seconds.
        import_seconds: how long an import takes.

    Attributes:
        import_seconds: as given; it can be changed at any time, also for imports that have begun.
        on_look: called before anything is read, to apply changes that have become due.
    """

    import_seconds: float = attrs.field(validator=duration)

    def __init__(
        self, images: Iterable[Record], *, clock: Callable[[], float], import_seconds: float
    ) -> None:
        self._images: dict[int, Record] = {image["id"]: image for image in images}
        self._slugs = {image["slug"]: image["id"] for image in self._images.values() if image.get("slug")}
        self._imports: dict[int, _Import] = {}
        self._listings: dict[Filter, list[int]] = {}
        self._numbers = itertools.count(max(self._images, default=_BEFORE_FIRST) + 1)
        self._clock = clock
        self.import_seconds = import_seconds
        self.on_look: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Record]:
        self._advance()
        return iter(list(self._images.values()))

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._images

    def __getitem__(self, image_id: int) -> Record:
        self._advance()
        return self._images[image_id]

    def find(self, key: str) -> Record | None:
        """Return an image by its id, or a public one by its slug; None if there is none."""
        self._advance()
        if key.isascii() and key.isdigit():
            return self._images.get(int(key)) if len(key) < _LONGEST_NUMBER else None
        number = self._slugs.get(key)
        return None if number is None else self._images.get(number)

    def add(self, *, at: int | None = None, **fields: Any) -> int:
        """Add an available private snapshot, changed by `fields`; return its id.

        Args:
            at: its index in the listing, from 0; by default it is the last.
            fields: fields that replace the defaults, with values that `ImagesEmulator.load` takes; `update`
                takes any.

        Raises:
            ValueError: there is no such field, its value is wrong, or there is an image with this id or slug.
        """
        if fields.get("id") is None:
            fields["id"] = next(number for number in self._numbers if number not in self._images)
        image = self._record({name: _as_json(value) for name, value in fields.items()})
        check_image(image)
        if image["id"] in self._images:
            raise ValueError(f"id must be new: there is an image {image['id']} already")
        if self._slugs.get(image["slug"]) in self._images:
            raise ValueError(f"slug must be new: there is an image {image['slug']!r} already")
        behind = [] if at is None else list(self._images.values())[at:]
        for other in behind:
            del self._images[other["id"]]
        self._put(image)
        self._images.update({other["id"]: other for other in behind})
        self._listings.clear()
        return int(image["id"])

    def _record(self, fields: Record) -> Record:
        number = fields.get("id")
        if number is None:
            number = next(self._numbers)
        image: Record = {
            "id": number,
            "name": f"image-{number}",
            "type": "snapshot",
            "distribution": "Ubuntu",
            "slug": None,
            "public": False,
            "regions": ["nyc3"],
            "created_at": timestamp(self._clock()),
            "min_disk_size": 25,
            "size_gigabytes": 2.5,
            "description": "",
            "tags": [],
            "status": "available",
            "error_message": "",
        }
        unknown = fields.keys() - image.keys()
        if unknown:
            raise ValueError(f"an image has no {', '.join(sorted(unknown))}; it has {', '.join(image)}")
        return image | fields | {"id": number}

    def _put(self, image: Record) -> None:
        self._images[image["id"]] = image
        if image.get("slug"):
            self._slugs[image["slug"]] = image["id"]

    def update(self, image_id: int, **fields: Any) -> Record:
        """Change fields of an image and return it.

        Values are not checked: a test may want what the API should not send. `ImagesEmulator.load` refuses a
        state that has such values.
        """
        self._images[image_id].update(fields)
        self._listings.clear()
        return self._images[image_id]

    def remove(self, image_id: int) -> None:
        """Remove an image."""
        del self._images[image_id]
        self._imports.pop(image_id, None)
        self._listings.clear()

    def listing(self, narrowed: Filter) -> list[int]:
        """Return the ids of the images in a listing, in order."""
        self._advance()
        found = self._listings.get(narrowed)
        if found is None:
            found = [number for number, image in list(self._images.items()) if narrowed.admits(image)]
            self._listings[narrowed] = found
        return found

    def start_import(
        self, *, name: str, url: str, region: str, distribution: str, description: str, tags: list[str]
    ) -> Record:
        """Start an import and return the image."""
        number = self.add(
            name=name,
            type="custom",
            distribution=distribution if distribution in DISTRIBUTIONS else "Unknown",
            regions=[],
            description=description,
            tags=tags,
            status="NEW",
            size_gigabytes=None,
            min_disk_size=None,
        )
        self._imports[number] = _Import(self._clock(), region, _may_be_an_image(url))
        return dict(self._images[number])

    def dump(self) -> Record:
        """Return as JSON data the images, the imports in progress, and which images lack fields."""
        now = self._clock()
        return {
            "images": [dict(image) for image in self],
            "imports": [
                {"image_id": number, "elapsed": now - job.started, "region": job.region, "works": job.works}
                for number, job in self._imports.items()
            ],
            "incomplete": [image["id"] for image in self._images.values() if len(image) < _FIELDS],
        }

    def load(self, state: State) -> None:
        """Replace everything by a checked state; fields that a complete image lacks are those of `add`."""
        given = [image["id"] for image in state.images if "id" in image]
        self._numbers = itertools.count(max(given, default=_BEFORE_FIRST) + 1)
        records = [
            image if image.get("id") in state.incomplete else self._record(image) for image in state.images
        ]
        jobs = {
            job["image_id"]: _Import(self._clock() - job["elapsed"], job["region"], job["works"])
            for job in state.imports
        }
        self._images, self._slugs, self._imports = {}, {}, jobs
        for record in records:
            self._put(record)
        self._listings.clear()

    def _advance(self) -> None:
        for number, job in list(self._imports.items()):
            age = self._clock() - job.started
            if age >= self.import_seconds:
                del self._imports[number]
                self.update(number, **_ending(job))
            elif age >= self.import_seconds / 2:
                self._images[number]["status"] = "pending"
        for look in self.on_look:
            look()


def _as_json(value: Any) -> Any:
    """Return a tuple as the list that JSON would make of it."""
    return list(value) if isinstance(value, tuple) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _ending(job: _Import) -> Record:
    if not job.works:
        return {"status": "deleted", "error_message": _NOT_AN_IMAGE}
    return {"status": "available", "regions": [job.region], "size_gigabytes": 2.34, "min_disk_size": 20}


def _may_be_an_image(url: str) -> bool:
    """Return whether the URL's path ends in an image's extension, or in none, which says nothing."""
    path = PurePosixPath(urlsplit(url.lower()).path)
    if path.suffix in _COMPRESSED:
        path = path.with_suffix("")
    extension = _EXTENSION.fullmatch(path.suffix)
    return extension is None or extension[1] in _FORMATS
