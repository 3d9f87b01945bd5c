"""The output of `prune`: the plan as a table, JSON or CSV, and the outcomes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any, Final

import attrs

from do_images_async.audit.context import is_size, valid_gigabytes
from do_images_async.cli.columns import Column
from do_images_async.cli.csv_text import csv_text
from do_images_async.cli.in_flight import NOT_TRIED
from do_images_async.cli.journal import DELETED
from do_images_async.cli.prune_apply import CHANGED, FAILED, GONE, UNKNOWN, Removed
from do_images_async.cli.prune_plan import AccountPlan, PlannedImage, PrunePlan
from do_images_async.cli.text import counted, in_gigabytes, printable

__all__ = [
    "FORMATS",
    "outcomes_as_text",
    "plan_as_csv",
    "plan_as_json",
    "plan_as_text",
    "sizes",
    "summary",
]

FORMATS: Final = ("text", "json", "csv")

_SECONDS_A_DAY: Final = 86_400


@attrs.frozen(kw_only=True)
class _Row:
    """An image of a plan, with the values that depend on the whole plan."""

    account: str | None
    image: PlannedImage
    keep: bool
    age_days: float | None
    savings: float | None

    @property
    def plan(self) -> str:
        return "keep" if self.keep else "remove"


def _size(row: _Row) -> float | None:
    return row.image.size_gigabytes


def _age(row: _Row) -> str:
    return "" if row.age_days is None else f"{row.age_days:.0f} d"


def _savings(row: _Row) -> str:
    if row.keep:
        return ""
    return "?" if row.savings is None else f"${row.savings:.2f}"


_COLUMNS: Final[tuple[Column[_Row], ...]] = (
    Column("Plan", "plan", lambda row: row.plan),
    Column("ID", "id", lambda row: row.image.id, numeric=True),
    Column("Name", "name", lambda row: row.image.name, min_width=16),
    Column("Age", "age", _age, rank=1, numeric=True),
    Column("GB", "gb", _size, rank=3, numeric=True),
    Column("Saves", "saves", _savings, rank=4, numeric=True),
    Column("Because", "because", lambda row: ", ".join(row.image.reasons), min_width=12, rank=2),
)

_CSV: Final[tuple[Column[_Row], ...]] = (
    Column("", "account", lambda row: row.account),
    Column("", "group", lambda row: row.image.group),
    Column("", "plan", lambda row: row.plan),
    Column("", "id", lambda row: row.image.id),
    Column("", "name", lambda row: row.image.name),
    Column("", "type", lambda row: row.image.type),
    Column("", "created_at", lambda row: row.image.created_at),
    Column("", "age_days", lambda row: row.age_days),
    Column("", "size_gigabytes", _size),
    Column("", "monthly_savings", lambda row: row.savings),
    Column("", "reasons", lambda row: "; ".join(row.image.reasons)),
)


def plan_as_text(plan: PrunePlan, *, to_file: bool = False) -> str:
    """Return the plan as a table for each group, and a summary for each account; a file gets it uncut."""
    from do_images_async.cli.table import table_text  # rich is slow to import
    from do_images_async.cli.terminal import wrapped

    rows = [row for account in plan.accounts for row in _rows(plan, account) if row.image.group is not None]
    cells = [[column.text(row) for column in _COLUMNS] for row in rows]
    table = table_text(_COLUMNS, cells, header=True, droppable=True, to_file=to_file, advice="")
    header, *lines = table.splitlines()
    shown: list[str] = [header] if rows else []
    place = 0
    for (account, _), members in groupby(rows, key=lambda row: (row.account, row.image.group)):
        group = list(members)
        shown += ["", *wrapped(_headline(account, group)), *lines[place : place + len(group)]]
        place += len(group)
    shown += [""] if rows else []
    shown += [line for each in plan.accounts for line in wrapped(_account_summary(plan, each))]
    return "".join(f"{line}\n" for line in shown)


def plan_as_json(plan: PrunePlan, outcomes: Sequence[Removed] | None = None) -> str:
    """Return the plan as JSON, with the outcomes if it was carried out."""
    record: dict[str, Any] = plan.to_dict()
    if outcomes is not None:
        record["outcomes"] = [attrs.asdict(each) for each in outcomes]
    return json.dumps(record, indent=2) + "\n"


def plan_as_csv(plan: PrunePlan, outcomes: Sequence[Removed] | None = None) -> str:
    """Return the plan as CSV, with a column of outcomes if it was carried out."""
    found = {(each.account, each.id): each for each in outcomes or ()}
    more = [] if outcomes is None else ["outcome", "message"]
    lines: list[Sequence[object]] = [[*(column.name for column in _CSV), *more]]
    for account in plan.accounts:
        for row in _rows(plan, account):
            outcome = found.get((row.account, row.image.id))
            results = [outcome.outcome, outcome.message] if outcome else [None, None]
            lines.append([*(column.value(row) for column in _CSV), *results[: len(more)]])
    return csv_text(lines)


def outcomes_as_text(outcomes: Iterable[Removed]) -> str:
    """Return a line for each image that the plan removes."""
    return "".join(f"{each.outcome} {_named(each)}\n" for each in outcomes)


def summary(plan: PrunePlan, outcomes: Sequence[Removed], strange: Sequence[str | None] = ()) -> str:
    """Return the outcome in a sentence.

    Args:
        plan: the plan.
        outcomes: what became of its images.
        strange: the accounts in which not one image of the plan was found.
    """
    earlier = sum(each.earlier for each in outcomes)
    counts = Counter(each.outcome for each in outcomes if not each.earlier)
    deleted = [each for each in outcomes if each.outcome == DELETED and not each.earlier]
    parts = [f"{len(deleted):,} of {counted(plan.removed, 'image')} deleted ({sizes(deleted)})"]
    parts += [f"{earlier:,} by an earlier run"] if earlier else []
    words = {
        GONE: "already gone",
        CHANGED: "changed since the plan, so not deleted",
        FAILED: "failed",
        UNKNOWN: "perhaps deleted",
        NOT_TRIED: "not tried",
    }
    parts += [f"{counts[outcome]:,} {text}" for outcome, text in words.items() if counts[outcome]]
    for account in strange:
        where = f" in {printable(account)}" if account else ""
        parts.append(f"not one image of the plan was there{where}: the token may be another account's")
    return ", ".join(parts)


def sizes(images: Iterable[PlannedImage | Removed]) -> str:
    """Return the sum of the images' sizes, as the least where one is missing or impossible."""
    each = [image.size_gigabytes for image in images]
    least = "" if all(map(is_size, each)) else "at least "
    return f"{least}{in_gigabytes(sum(map(valid_gigabytes, each)))}"


def _rows(plan: PrunePlan, account: AccountPlan) -> Iterator[_Row]:
    """Yield the images group by group, kept images first; images that are no candidates come last."""
    pairs = [(image, True) for image in account.keep] + [(image, False) for image in account.remove]
    pairs.sort(
        key=lambda pair: (pair[0].group is None, pair[0].group or "", not pair[1])
    )  # the sort is stable
    for image, keep in pairs:
        yield _Row(
            account=account.account,
            image=image,
            keep=keep,
            age_days=_days(image.created_at, plan.made_at),
            savings=round(image.size_gigabytes * plan.price, 9)
            if not keep and is_size(image.size_gigabytes)
            else None,
        )


def _days(created_at: datetime | None, now: datetime) -> float | None:
    return None if created_at is None else round((now - created_at).total_seconds() / _SECONDS_A_DAY, 1)


def _headline(account: str | None, rows: Sequence[_Row]) -> str:
    removed = [row for row in rows if not row.keep]
    group = printable(rows[0].image.group or "")
    saved = f", {sizes([row.image for row in removed])}" if removed else ""
    return (
        f"{printable(account) + ': ' if account else ''}{group}: {len(rows) - len(removed):,} kept, "
        f"{len(removed):,} to remove{saved}"
    )


def _account_summary(plan: PrunePlan, account: AccountPlan) -> str:
    name = f"{printable(account.account)}: " if account.account else ""
    groups = len({each.group for each in (*account.keep, *account.remove)} - {None})
    outside = Counter(each.reasons[0] for each in account.keep if each.group is None and each.reasons)
    left_out = ", ".join(f"{count:,} {printable(reason)}" for reason, count in outside.most_common())
    kept = account.candidates - len(account.remove)
    text = (
        f"{name}{counted(account.images, 'image')} read, {account.candidates:,} in "
        f"{counted(groups, 'group')}: {kept:,} kept, {len(account.remove):,} to remove, "
        f"{sizes(account.remove)}, ${account.monthly_savings:,.2f} a month at ${plan.price:g} a GB"
    )
    return f"{text}; left alone: {left_out}" if left_out else text


def _named(removed: Removed) -> str:
    account = f"{printable(removed.account)}: " if removed.account else ""
    size = f" ({removed.size_gigabytes:g} GB)" if removed.size_gigabytes else ""
    why = f": {printable(removed.message)}" if removed.message else ""
    return f"{account}{removed.id} {printable(removed.name)}{size}{why}"
