"""Images and an action in the forms that the service returns for old ones: fields are missing or unusual."""

from __future__ import annotations

from collections.abc import Iterator

from do_images_async.testing.catalogue import Record

__all__ = ["old_action", "old_images"]

_FIRST = 6_376_601  # ids of those years were small


def old_images() -> Iterator[Record]:
    """Yield one image of each form, the public ones first, with consecutive ids."""
    forms = (
        # A public distribution that is called a snapshot, from before imports and tags.
        _without("description", "tags", "status", "error_message", "size_gigabytes")
        | {"name": "14.04 x64", "slug": "ubuntu-14-04-x64", "public": True},
        # A retired distribution that has lost its slug, and is not public any more.
        _without("tags", "status", "error_message") | {"name": "12.04.5 x64"},
        _without() | {"name": "empty slug", "slug": ""},
        _without() | {"name": "region twice", "regions": ["nyc2", "nyc3", "nyc2"]},
        _without("status") | {"name": "no status"},
        _without("size_gigabytes") | {"name": "no size", "min_disk_size": None},
        _without("tags", "error_message") | {"name": "no tags"},
        _without("description", "error_message") | {"name": "no description"},
        _without("slug") | {"name": "no slug", "type": "backup", "tags": None},
    )
    for number, form in enumerate(forms, _FIRST):
        yield {"id": number, **{name: value for name, value in form.items() if name != "id"}}


def old_action(image_id: int) -> Record:
    """Return a completed action without a completion time."""
    return {
        "id": 24_138_500,
        "status": "completed",
        "type": "transfer",
        "started_at": "2014-05-04T22:23:02Z",
        "completed_at": None,
        "resource_id": image_id,
        "resource_type": "image",
        "region_slug": "nyc2",
    }


def _without(*missing: str) -> Record:
    image: Record = {
        "name": "",
        "type": "snapshot",
        "distribution": "Ubuntu",
        "slug": None,
        "public": False,
        "regions": ["nyc2"],
        "created_at": "2014-05-04T22:23:02Z",
        "min_disk_size": 20,
        "size_gigabytes": 1.31,
        "description": "",
        "tags": [],
        "status": "available",
        "error_message": "",
    }
    return {name: value for name, value in image.items() if name not in missing}
