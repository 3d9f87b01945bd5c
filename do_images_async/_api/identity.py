"""Check that an answer is about the image or action that was asked for.

A proxy, a cache or a connection out of step can give the answer to another request. It must not pass for
this one's: an image would be deleted because another one is private.
"""

from __future__ import annotations

import unicodedata

from do_images_async.errors import DecodeError, WrongResourceError
from do_images_async.models import Action, Image, ImageType

__all__ = [
    "NotThereError",
    "check_action",
    "check_created",
    "check_image",
    "check_listed",
    "check_name",
    "comparable",
    "has_tag",
    "mismatch",
    "region_of",
]


def check_image(image: Image, key: int | str, *, write: bool = False, name: str | None = None) -> Image:
    """Return the image if it has this id or slug and, where one was given to it, this name.

    An answer without a slug is believed unless it is a private image, which has none.

    Raises:
        WrongResourceError: it is another one; with `outcome_unknown` after a `write`.
    """
    answered = image.id if isinstance(key, int) else image.slug
    if answered in (None, "") and image.public is False:
        answered = image.id
    if answered is None or answered in ("", key):
        return image if name is None else check_name(image, name)
    del image  # a traceback that prints local variables would show all that the server sent
    raise mismatch("image", key, answered, write=write)


def check_created(image: Image, name: str) -> Image:
    """Return the image that a request has made if it has an id, and the name that was given to it.

    Raises:
        DecodeError: its id is no image's; `outcome_unknown` is True.
        WrongResourceError: it has another name; `outcome_unknown` is True.
    """
    _check_made("image", image.id)
    return check_name(image, name)


def check_name(image: Image, name: str) -> Image:
    """Return the image if it has the name that was given to it; an answer without a name is believed.

    Raises:
        WrongResourceError: it has another name; `outcome_unknown` is True.
    """
    answered = image.name
    if not answered or comparable(answered) == comparable(name):
        return image
    del image
    raise mismatch("image", name, answered, write=True)


def check_action(
    action: Action, image_id: int, action_id: int | None = None, *, kind: str | None = None
) -> Action:
    """Return the action if it is the image's and, where they are given, has this id and is of this kind.

    What the answer does not say is believed.

    Raises:
        WrongResourceError: it is another one; with `outcome_unknown` when no `action_id` was asked for, since
            then it is the answer to a write.
        DecodeError: a new action's id is none; `outcome_unknown` is True.
    """
    write = action_id is None
    if write:
        _check_made("action", action.id)
    if action.resource_id not in (None, image_id):
        raise mismatch("an action of image", image_id, action.resource_id, write=write)
    if action_id is not None and action.id != action_id:
        raise mismatch("action", action_id, action.id, write=write)
    if kind is not None and action.type not in (None, kind):
        raise mismatch("an action of type", kind, action.type, write=write)
    return action


def _check_made(what: str, number: int) -> None:
    """Raise DecodeError if this can't be the id of what a request has just made: no call would take it."""
    if number < 1:
        error = DecodeError(f"the answer gives a new {what} the id {number}, but ids begin at 1")
        error.outcome_unknown = True
        raise error


def region_of(action: Action) -> str | None:
    """Return the region that an action names, if it does."""
    return action.region_slug or (action.region.slug if action.region else None)


def mismatch(kind: str, asked: int | str, answered: int | str, *, write: bool) -> WrongResourceError:
    """Return the error for an answer about something else."""
    error = WrongResourceError(kind=kind, asked=asked, answered=answered)
    error.outcome_unknown = write
    return error


class NotThereError(WrongResourceError):
    """A transfer is completed, and names another region, and the image is not in the one that was asked for.

    Attributes:
        action: the transfer.
    """

    def __init__(self, action: Action, image_id: int, region: str) -> None:
        self.action = action
        named = region_of(action) or ""
        message = (
            f"action {action.id} of image {image_id}, which names {named!r}, is completed, but the image is "
            f"not in {region!r}"
        )
        super().__init__(kind="a transfer to", asked=region, answered=named, message=message)


def check_listed(image: Image, *, type: str | None, private: bool | None, tag_name: str | None) -> None:  # noqa: A002
    """Check that an image belongs to the listing with these filters; what it does not say is believed.

    Only what can't be is refused. `private` lists the images of a user, which the provider's, public and with
    a slug, are not. The public types have no field of their own, and old distributions are `public: false`;
    but none is a backup or custom image.

    Raises:
        WrongResourceError: it does not.
    """
    if tag_name is not None and not has_tag(image, tag_name):
        raise _unasked("images with the tag", tag_name, image.id, "does not have it")
    if private and image.public and image.slug:
        raise _unasked("images with private", "true", image.id, "is a public one of the provider")
    if type is not None and image.public is False and image.type in (ImageType.BACKUP, ImageType.CUSTOM):
        raise _unasked("images of the type", type, image.id, f"is a private {image.type} image")


def _unasked(kind: str, asked: str, image_id: int, why: str) -> WrongResourceError:
    message = f"asked for {kind} {asked!r}, but the answer has image {image_id}, which {why}"
    return WrongResourceError(kind=kind, asked=asked, answered=image_id, message=message)


def has_tag(image: Image, tag: str) -> bool:
    """Return whether an image has a tag, in which case does not matter; or does not tell its tags."""
    return image.tags is None or _folded(tag) in map(_folded, image.tags)


def _folded(tag: str) -> str:
    return comparable(tag).casefold()


def comparable(name: str) -> str:
    """Return a name without what a server may change when it stores it: spaces and Unicode's form."""
    return " ".join(unicodedata.normalize("NFC", name).split())
