"""The account's image actions, which take time, and its transfers to other accounts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from do_images_async.testing.arguments import duration, function, one_of
from do_images_async.testing.catalogue import REGION_NAMES, Record, timestamp
from do_images_async.testing.state import ImageStore
from do_images_async.testing.state_document import TransferState

__all__ = ["ActionStore", "Transfer", "TransferStore"]

_FIRST_ACTION = 36_805_527
_FIRST_TRANSFER = 3_164_444
_FEATURES = ("backups", "ipv6", "metadata", "install_agent", "storage", "image_transfer")
_SIZES = ("s-1vcpu-1gb", "s-1vcpu-2gb", "s-2vcpu-2gb", "s-2vcpu-4gb", "s-4vcpu-8gb")


@attrs.define(init=False, eq=False, repr=False, slots=False)  # only for the checks of what is set
class ActionStore:
    """The account's image actions. Each is in progress for `seconds`, then completed or errored.

    A completed transfer adds its region to the image; a completed conversion makes the image a
    snapshot. An action on an image that is deleted meanwhile errors.

    Args:
        images: the account's images.
        clock: Unix time, in seconds.
        seconds: how long an action takes.

    Attributes:
        seconds: as given; counts for actions that begin from then on.
        fails: called with an action when its time is over; returns whether it ends as errored. By default
            none does.
    """

    seconds: float = attrs.field(validator=duration)
    fails: Callable[[Record], bool] = attrs.field(validator=function)

    def __init__(self, images: ImageStore, *, clock: Callable[[], float], seconds: float) -> None:
        self.seconds = seconds
        self.fails = lambda _: False
        self._images = images
        self._clock = clock
        self._actions: dict[int, Record] = {}
        self._ends: dict[int, float] = {}
        self._numbers = itertools.count(_FIRST_ACTION)
        images.on_look.append(self._advance)

    def __len__(self) -> int:
        return len(self._actions)

    def __iter__(self) -> Iterator[Record]:
        self._advance()
        return iter(list(self._actions.values()))

    def of(self, image_id: int) -> list[Record]:
        """Return an image's actions, the latest first."""
        return [action for action in self if action["resource_id"] == image_id][::-1]

    def find(self, image_id: int, action_id: int) -> Record | None:
        """Return one of an image's actions, or None."""
        self._advance()
        action = self._actions.get(action_id)
        return action if action and action["resource_id"] == image_id else None

    def in_progress(self, image_id: int, kind: str, region: str | None) -> bool:
        """Return whether the same action is in progress already."""
        return any(
            (action["type"], action["region_slug"], action["status"]) == (kind, region, "in-progress")
            for action in self.of(image_id)
        )

    def start(self, image_id: int, kind: str, region: str | None = None) -> Record:
        """Start an action and return it."""
        now = self._clock()
        action: Record = {
            "id": next(self._numbers),
            "status": "in-progress",
            "type": kind,
            "started_at": timestamp(now),
            "completed_at": None,
            "resource_id": image_id,
            "resource_type": "image",
            **({} if region is None else {"region": _region(region)}),
            "region_slug": region,
        }
        self._actions[action["id"]] = action
        self._ends[action["id"]] = now + self.seconds
        return dict(action)

    def add(self, action: Record) -> None:
        """Add an action as it is; one in progress stays in progress."""
        self._actions[action["id"]] = dict(action)

    def dump(self) -> list[Record]:
        """Return all actions as JSON data; those in progress say in how many seconds they end."""
        now = self._clock()
        ends = {number: {"ends_in": end - now} for number, end in self._ends.items()}
        return [action | ends.get(action["id"], {}) for action in self]

    def load(self, actions: Iterable[Record]) -> None:
        """Replace all actions by those of a checked state."""
        now = self._clock()
        loaded = {action["id"]: dict(action) for action in actions}
        self._ends = {
            number: now + action.pop("ends_in") for number, action in loaded.items() if "ends_in" in action
        }
        self._actions = loaded
        self._numbers = itertools.count(max((*loaded, _FIRST_ACTION - 1)) + 1)

    def _advance(self) -> None:
        now = self._clock()
        due = [number for number, end in self._ends.items() if end <= now]
        # Remove all of them first: `_finish` reads the images, which calls `_advance` again.
        for number, end in [(number, self._ends.pop(number)) for number in due]:
            self._finish(self._actions[number], end)

    def _finish(self, action: Record, end: float) -> None:
        works = action["resource_id"] in self._images and not self.fails(action)
        action |= {"status": "completed" if works else "errored", "completed_at": timestamp(end)}
        if not works:
            return
        image = self._images[action["resource_id"]]
        if action["type"] == "convert":
            self._images.update(image["id"], type="snapshot")
        elif action["region_slug"] not in image["regions"]:
            self._images.update(image["id"], regions=[*image["regions"], action["region_slug"]])


def _region(slug: str) -> Record:
    return {
        "name": REGION_NAMES[slug],
        "slug": slug,
        "sizes": list(_SIZES),
        "features": list(_FEATURES),
        "available": True,
    }


def _teams(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, set) or not all(isinstance(team, str) for team in value):  # pyright: ignore[reportUnknownVariableType]
        raise TypeError(f"{attribute.name} must be a set of UUIDs, each a string, not {value!r}")


@attrs.define(kw_only=True)
class Transfer:
    """An offer of an image to another account.

    Attributes:
        id: the transfer's id; 0 if it was accepted at once.
        image_id: the offered image.
        email, team: who it is offered to, one of the two.
        state: the transfer's status; also "cancelled" once its image is deleted.
    """

    id: int
    image_id: int
    email: str | None = None
    team: str | None = None
    state: TransferState = attrs.field(default="pending", validator=one_of(TransferState))


@attrs.define(init=False, eq=False, repr=False, slots=False)  # only for the check of what is set
class TransferStore:
    """The account's transfers to others. An image whose transfer is accepted leaves the account.

    The emulator has one account, which makes the offers. Any client that answers one counts as the recipient.

    Args:
        images: the account's images.

    Attributes:
        own_teams: UUIDs of teams that accept at once, since the account may act for them.
    """

    own_teams: set[str] = attrs.field(validator=_teams)

    def __init__(self, images: ImageStore) -> None:
        self.own_teams = set()
        self._images = images
        self._transfers: list[Transfer] = []
        self._numbers = itertools.count(_FIRST_TRANSFER)

    def __len__(self) -> int:
        return len(self._transfers)

    def __iter__(self) -> Iterator[Transfer]:
        for transfer in tuple(self._transfers):
            if transfer.state == "pending" and self.is_void(transfer):
                transfer.state = "cancelled"
            yield transfer

    def is_void(self, transfer: Transfer) -> bool:
        """Return whether the image was deleted; one whose transfer was accepted is in another account."""
        return transfer.state != "accepted" and transfer.image_id not in self._images

    def find(self, image_id: int, transfer_id: int) -> Transfer | None:
        """Return one of an image's transfers by its id, or None."""
        wanted = (image_id, transfer_id)
        return next((each for each in self if (each.image_id, each.id) == wanted and each.id), None)

    def pending(self, image_id: int) -> bool:
        """Return whether the image has a pending transfer."""
        return any((each.image_id, each.state) == (image_id, "pending") for each in self)

    def create(self, image_id: int, **recipient: Any) -> Transfer:
        """Create a transfer to an `email` or a `team`."""
        at_once = recipient.get("team") in self.own_teams
        transfer = Transfer(id=0 if at_once else next(self._numbers), image_id=image_id, **recipient)
        self._transfers.append(transfer)
        if at_once:
            self.accept(transfer)
        return transfer

    def dump(self) -> list[Record]:
        """Return all transfers as JSON data."""
        return [attrs.asdict(transfer) for transfer in self]

    def load(self, transfers: Iterable[Record]) -> None:
        """Replace all transfers by those of a checked state."""
        self._transfers = [Transfer(**transfer) for transfer in transfers]
        latest = max((transfer.id for transfer in self), default=0)
        self._numbers = itertools.count(max(latest + 1, _FIRST_TRANSFER))

    def accept(self, transfer: Transfer) -> None:
        """Move the image to its recipient."""
        transfer.state = "accepted"
        if transfer.image_id in self._images:
            self._images.remove(transfer.image_id)
