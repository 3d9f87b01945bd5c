"""Check that an answer is about the image or action that was asked for.

A proxy, a cache or a connection out of step can give the answer to another request. It must not pass for
this one's: an image would be deleted because another one is private.
"""

from __future__ import annotations

import unicodedata

from do_images_async.errors import WrongResourceError
from do_images_async.models import Action, Image

__all__ = ["check_action", "check_created", "check_image"]


def check_image(image: Image, key: int | str, *, write: bool = False) -> Image:
    """Return the image if it has this id or slug; an answer without a slug is believed.

    Raises:
        WrongResourceError: it is another one; with `outcome_unknown` after a `write`.
    """
    answered = image.id if isinstance(key, int) else image.slug
    if answered and answered != key:
        raise _mismatch("image", key, answered, write=write)
    return image


def check_created(image: Image, name: str) -> Image:
    """Return the image if it has the name that was given to it; an answer without a name is believed.

    Raises:
        WrongResourceError: it has another name; `outcome_unknown` is True.
    """
    if image.name and _comparable(image.name) != _comparable(name):
        raise _mismatch("image", name, image.name, write=True)
    return image


def check_action(action: Action, image_id: int, action_id: int | None = None) -> Action:
    """Return the action if it is the image's and, where one is given, has this id.

    Raises:
        WrongResourceError: it is another one; with `outcome_unknown` when no `action_id` was asked for, since
            then it is the answer to a write.
    """
    write = action_id is None
    if action.resource_id not in (None, image_id):
        raise _mismatch("an action of image", image_id, action.resource_id, write=write)
    if action_id is not None and action.id != action_id:
        raise _mismatch("action", action_id, action.id, write=write)
    return action


def _mismatch(kind: str, asked: int | str, answered: int | str, *, write: bool) -> WrongResourceError:
    error = WrongResourceError(kind=kind, asked=asked, answered=answered)
    error.outcome_unknown = write
    return error


def _comparable(name: str) -> str:
    """Return a name without what a server may change when it stores it: spaces and Unicode's form."""
    return " ".join(unicodedata.normalize("NFC", name).split())
