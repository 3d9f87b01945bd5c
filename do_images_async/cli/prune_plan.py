"""The plan of `prune` as data, and the file that holds it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, cast

import attrs
import click
import msgspec

from do_images_async import Image, ImageStatus
from do_images_async.audit.context import is_size, valid_gigabytes
from do_images_async.cli.json_text import parsed
from do_images_async.retention import Decision, Plan, Policy

__all__ = ["PLAN_SCHEMA", "AccountPlan", "PlannedImage", "PrunePlan", "account_plan", "read_plan"]

PLAN_SCHEMA: Final = 1
"""The version of the plan's format."""

Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
"""A datetime with a zone, which a file that somebody has changed may lack."""

_PUBLICITY: Final = {True: "public", False: "private", None: "neither public nor private"}


@attrs.frozen(kw_only=True)
class PlannedImage:
    """An image as it was when the plan was made, and the decision on it.

    Attributes:
        id, name, type, public, created_at, size_gigabytes, tags: as for `Image`.
        group: the group that it belongs to; None if it is no candidate.
        reasons: the rules that keep it; empty if it is removed.
    """

    id: int
    name: str
    type: str | None
    public: bool | None
    created_at: Moment | None
    size_gigabytes: float | None
    tags: tuple[str, ...]
    group: str | None
    reasons: tuple[str, ...]

    def difference(self, image: Image) -> str | None:
        """Return the property, relevant to the plan, that has changed since; None if none has."""
        for name in ("name", "created_at", "public", "type"):
            before, now = getattr(self, name), getattr(image, name)
            if before != now and name == "public":
                return f"it was {_PUBLICITY[before]} and is {_PUBLICITY[now]}"
            if before != now:
                return f"its {name} was {_said(before)} and is {_said(now)}"
        if image.status != ImageStatus.AVAILABLE:  # each removed image was available
            return f"its status was 'available' and is {_said(image.status)}"
        return None


@attrs.frozen(kw_only=True)
class AccountPlan:
    """The plan for one account.

    Attributes:
        account: its name; None if it is the only one.
        images: the number of images read.
        candidates: the number of them that belong to a group and might be removed.
        gigabytes: the size of the removed images.
        monthly_savings: their cost in a month.
        unsized: the removed images whose size is missing or impossible. They count as 0 GB, so that
            the true size and savings may be higher.
        remove: the removed images, group by group, the newest first.
        keep: the kept images, in the same order; images that are no candidates come last.
    """

    account: str | None
    images: int
    candidates: int
    gigabytes: float
    monthly_savings: float
    unsized: int = 0
    remove: tuple[PlannedImage, ...]
    keep: tuple[PlannedImage, ...]


@attrs.frozen(kw_only=True)
class PrunePlan:
    """The images that are removed from all accounts.

    Attributes:
        schema: the version of the format.
        made_at: the time of its making.
        policy: the rules.
        price: the price of a gigabyte for a month.
        accounts: the plan for each.
    """

    schema: int = PLAN_SCHEMA
    made_at: Moment
    policy: Policy
    price: float
    accounts: tuple[AccountPlan, ...]

    @property
    def removed(self) -> int:
        """Return the number of images that are removed."""
        return sum(len(each.remove) for each in self.accounts)

    @property
    def digest(self) -> str:
        """Return the plan's name in a journal, computed from its time and its removed images."""
        parts = [self.made_at.isoformat()]
        parts += [f"{each.account} {image.id}" for each in self.accounts for image in each.remove]
        return hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        data["policy"]["keep_tags"].sort()
        return data


def account_plan(account: str | None, plan: Plan, *, price: float) -> AccountPlan:
    """Return the plan for an account as data."""
    gigabytes, savings, unsized = _totals(plan.removed, price)
    return AccountPlan(
        account=account,
        images=len(plan.decisions),
        candidates=sum(each.group is not None for each in plan.decisions),
        gigabytes=gigabytes,
        monthly_savings=savings,
        unsized=unsized,
        remove=tuple(_planned(each for each in plan.decisions if not each.keep)),
        keep=tuple(_planned(each for each in plan.decisions if each.keep)),
    )


def _totals(removed: Iterable[Image | PlannedImage], price: float) -> tuple[float, float, int]:
    """Return the size of the removed images, their cost in a month, and the number without a valid size."""
    sizes = [image.size_gigabytes for image in removed]
    gigabytes = sum(map(valid_gigabytes, sizes))
    return round(gigabytes, 9), round(gigabytes * price, 9), sum(not is_size(size) for size in sizes)


def read_plan(path: Path) -> PrunePlan:
    """Return the plan in a file, with the totals of the images that are in it.

    Somebody who looked at it may have taken images out.

    Raises:
        ClickException: the file can't be read, or is no plan.
    """
    try:
        return _checked(parsed(path.read_bytes()))
    except OSError as error:
        raise click.ClickException(f"--apply-plan: {path} can't be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeError, RecursionError):
        raise click.ClickException(f"--apply-plan: {path} is not JSON") from None
    except (ValueError, msgspec.ValidationError) as error:  # no ValueErrors before msgspec 0.21
        raise click.ClickException(f"--apply-plan: {path} can't be used: {error}") from None


def _checked(data: object) -> PrunePlan:
    version = cast("dict[str, object]", data).get("schema") if isinstance(data, dict) else None
    if version != PLAN_SCHEMA:
        raise ValueError(f"it is no plan of version {PLAN_SCHEMA}, as `prune --plan` writes it")
    plan = msgspec.convert(data, PrunePlan)
    ids = [image.id for each in plan.accounts for image in (*each.remove, *each.keep)]
    if len(set(ids)) < len(ids) or len({each.account for each in plan.accounts}) < len(plan.accounts):
        raise ValueError("an account or an image is in it twice")
    numbers = [
        plan.price,
        *(size for each in plan.accounts for size in (each.gigabytes, each.monthly_savings)),
    ]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a price or a total in it is not finite")
    return attrs.evolve(plan, accounts=tuple(_added_up(each, plan.price) for each in plan.accounts))


def _added_up(account: AccountPlan, price: float) -> AccountPlan:
    gigabytes, savings, unsized = _totals(account.remove, price)
    return attrs.evolve(account, gigabytes=gigabytes, monthly_savings=savings, unsized=unsized)


def _planned(decisions: Iterable[Decision]) -> Iterable[PlannedImage]:
    for each in decisions:
        image = each.image
        yield PlannedImage(
            id=image.id,
            name=image.name,
            type=image.type,
            public=image.public,
            created_at=image.created_at,
            size_gigabytes=_finite(image.size_gigabytes),
            tags=tuple(image.tags or ()),
            group=each.group,
            reasons=each.reasons,
        )


def _finite(size: float | None) -> float | None:
    """Return a size that JSON can hold."""
    return size if size is None or math.isfinite(size) else None


def _said(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value if value is None else str(value))
