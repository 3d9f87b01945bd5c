"""The files that `audit` reads: an earlier report, and a list of Droplets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import attrs
import click

from do_images_async.audit import Baseline
from do_images_async.audit.report import in_utc
from do_images_async.cli.json_text import parsed

__all__ = ["DropletImages", "read_baseline", "read_droplets"]

_SKEW: Final = timedelta(hours=1)
"""How far the clock of the machine that made a report may be ahead of this one's."""


@attrs.frozen
class DropletImages:
    """The images that Droplets use.

    Attributes:
        sources: images that a Droplet was made from.
        backups, snapshots: the images that a Droplet lists as its own.
    """

    sources: frozenset[int]
    backups: frozenset[int]
    snapshots: frozenset[int]

    @property
    def all(self) -> frozenset[int]:
        """Return every image that is in use."""
        return self.sources | self.backups | self.snapshots


def read_baseline(path: Path) -> Baseline:
    """Return the earlier report in a file.

    Raises:
        ClickException: it is no report, one of another version or of the future, a partial one, or one that
            does not hold all of its findings; the message says where.
    """
    data = _read_json(path, "--baseline")
    try:
        baseline = Baseline.from_dict(data)
    except ValueError as error:
        raise _unusable("--baseline", path, f"is {error}") from None
    if baseline.created_at > datetime.now(UTC) + _SKEW:
        raise _unusable("--baseline", path, f"is of {in_utc(baseline.created_at)}, which is in the future")
    if baseline.incomplete is not None:
        why = f"is a partial report, which can't be compared with: {baseline.incomplete}"
        raise _unusable("--baseline", path, why)
    held, found = len(baseline.findings), baseline.findings_total
    if held != found:
        why = f"holds {held:,} of its {found:,} findings, so that nobody knows which of today's are new"
        raise _unusable("--baseline", path, f"{why}; make it without --top")
    return baseline


def read_droplets(path: Path) -> DropletImages:
    """Return the images that the Droplets in a file use: doctl's list in JSON, or a page of the API.

    Raises:
        ClickException: it is no such list, or the API says that there are more Droplets.
    """
    droplets = list(_droplets(path, _read_json(path, "--droplets")))
    try:
        return DropletImages(
            sources=frozenset(int(each["image"]["id"]) for each in droplets if each.get("image")),
            backups=_ids(droplets, "backup_ids"),
            snapshots=_ids(droplets, "snapshot_ids"),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _unusable("--droplets", path, "is not a list of Droplets in JSON") from None


def _droplets(path: Path, data: Any) -> Iterator[dict[str, Any]]:
    total = None
    if isinstance(data, dict):
        answer = cast("dict[str, Any]", data)
        total = answer["meta"].get("total") if isinstance(answer.get("meta"), dict) else None
        data = answer.get("droplets")
    if not isinstance(data, list) or not all(_is_droplet(each) for each in cast("list[object]", data)):
        raise _unusable("--droplets", path, "is not a list of Droplets in JSON")
    droplets = cast("list[dict[str, Any]]", data)
    if isinstance(total, int) and total > len(droplets):
        why = f"holds {len(droplets):,} Droplets of {total:,}: images of the others would seem unused"
        raise _unusable("--droplets", path, why)
    yield from droplets


def _is_droplet(value: object) -> bool:
    """Return whether it says which images it uses: a list of something else would protect none."""
    return isinstance(value, dict) and not {"image", "snapshot_ids"}.isdisjoint(cast("dict[str, Any]", value))


def _ids(droplets: Iterable[dict[str, Any]], name: str) -> frozenset[int]:
    return frozenset(int(number) for each in droplets for number in each.get(name) or ())


def _read_json(path: Path, option: str) -> Any:
    try:
        return parsed(path.read_bytes())
    except OSError as error:
        raise _unusable(option, path, f"can't be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeError, RecursionError):
        raise _unusable(option, path, "is not JSON") from None
    except ValueError as error:
        raise _unusable(option, path, f"can't be used: {error}") from None


def _unusable(option: str, path: Path, why: str) -> click.ClickException:
    return click.ClickException(f"{option}: {path} {why}")
