"""The audit itself: one pass over a stream of images, of which it keeps the ids alone."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Collection,
    Container,
    Iterable,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

import attrs

from do_images_async._api.bulk import Outcome
from do_images_async._api.idset import IdSet
from do_images_async._api.read_once import ReadOnce
from do_images_async._arguments import check_callable, check_choice, check_range, check_unread, ids_of, shown
from do_images_async.audit.context import (
    PRICE,
    PRICE_DATE,
    Context,
    Finding,
    Rule,
    Severity,
    is_backup,
    is_own,
    is_public,
    lacks_size,
    worst,
    worst_first,
)
from do_images_async.audit.report import NOTHING, AuditReport, Group, RuleSummary
from do_images_async.audit.rules import DEFAULT_RULES, RULE_NAMES
from do_images_async.audit.settings import NamedRule, checked_names, checked_number, matches_tag, settings_of
from do_images_async.models import Image, ImagePage

__all__ = ["audit"]

_UNIT: Final = 1_000_000_000
_FUTURE: Final = "in the future"
_AGES: Final = (
    (30, "under 30 days"),
    (90, "30 to 90 days"),
    (180, "90 to 180 days"),
    (365, "180 days to 1 year"),
    (730, "1 to 2 years"),
    (math.inf, "over 2 years"),
)
_SLICE: Final = 1000
_DEAREST: Final = 1e6


async def audit(
    images: AsyncIterable[Image] | Iterable[Image],
    *,
    rules: Iterable[Rule] = DEFAULT_RULES,
    now: datetime | None = None,
    price: float | Decimal = PRICE,
    price_date: date | None = None,
    backup_price: float | Decimal = 0.0,
    keep: int | None = 1000,
    ignore_rules: Collection[str] = (),
    ignore_tags: Collection[str] = (),
    in_use: Container[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> AuditReport:
    """Read images to the end and report totals, costs and findings; costs the requests that `images` costs.

    An image that comes again, as from a listing that moved, counts once, as it came first. Of an image only
    its id is kept, in a few bytes; else memory grows with the number of regions and distributions alone.
    An async generator is closed when the audit ends, also if it fails: the next audit needs a new one.

    Args:
        images: the images to audit, such as `api.list(strict=True)`, called anew for each audit. An iterator
            that is no generator, such as a `filter`, passes for an empty one when it has been used up.
        rules: the rules to apply.
        now: the moment that ages are counted to; aware. By default the present.
        price: USD per GB and month of a snapshot or custom image.
        price_date: the date of that price; by default `PRICE_DATE`, unless you give another `price`.
        backup_price: the same for backups; 0 by default, since the Droplet's plan pays for them. Give a
            price if that plan is usage-based.
        keep: the most findings that the report holds, the worst ones; None for all, which take about 500
            bytes each. Counts are exact in any case.
        ignore_rules: names of rules whose findings are left out: of `rules`, or of any rule of this package.
        ignore_tags: tags, or patterns such as "keep-*", of images that no rule is applied to; they still
            count in the totals.
        in_use: ids of the images that a Droplet was made from or lists. They are never stale: a finding that
            would have one deleted says that a Droplet uses it, with a severity of at most LOW.
        progress: called after each image with the number of different images so far.

    Raises:
        ValueError: a number is out of its range, `now` has no time zone, `ignore_rules` names no rule, or
            `images` is a listing that was read already, in part or whole, or another generator that was read
            to its end or closed.
        TypeError: an argument is of another type, `ignore_rules` or `ignore_tags` a single string, one of
            `images` no `Image`, one of `in_use` no number, or what a rule returned neither a finding nor
            None.
        DOImagesError: `images` failed; there is no report of the images read until then.
    """
    _check_images(images)
    rules = _checked_rules(rules)
    context = Context(
        now=_aware(now), price=_money(price, "price"), backup_price=_money(backup_price, "backup_price")
    )
    if keep is not None:
        check_range(keep, "keep", 0)
    if price_date is None and context.price == PRICE:
        price_date = PRICE_DATE
    exceptions = _Exceptions(
        rules=_rule_names(ignore_rules, rules),
        tags=checked_names(ignore_tags, "ignore_tags"),
        in_use=None if in_use is None else ids_of(in_use, "in_use"),
    )
    collector = _Collector(context, rules, keep, exceptions)
    seen = IdSet()
    async with aclosing(_each(images)) as stream:
        async for image in stream:
            if not isinstance(image, Image):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise _not_an_image(image)
            if not seen.absorb((image.id,)):
                collector.add(image)
            if progress is not None:
                progress(collector.total.images)
    return attrs.evolve(collector.report(), price_date=price_date)


def _check_images(images: object) -> None:
    """Raise TypeError for no iterable of images, and ValueError for a listing of which a part was read."""
    if not _is_iterable(images):
        raise TypeError(f"images must be an iterable or async iterable of images, not {shown(images)}")
    check_unread(images, "images")
    if isinstance(images, ReadOnce) and images.has_begun:
        raise ValueError(f"images is a {images.kind} that was read already, in part or whole: make a new one")


def _is_iterable(images: object) -> bool:
    # An empty string or dict would pass for an empty account, and a dict is read by its keys.
    return isinstance(images, AsyncIterable | Iterable) and not isinstance(images, str | bytes | Mapping)


def _not_an_image(value: object) -> TypeError:
    return TypeError(f"each of images must be an Image, not {shown(value)}{_instead(value)}")


def _instead(value: object) -> str:
    if isinstance(value, ImagePage):
        return ": use list() instead of list_pages()"
    return ": pass what its result() returns" if isinstance(value, Outcome) else ""


def _checked_rules(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    if not isinstance(rules, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"rules must be an iterable of rules, not {shown(rules)}")
    check_unread(rules, "rules")
    checked = tuple(rules)
    for rule in checked:
        check_callable(rule, "each of rules")
    return checked


def _rule_names(ignored: Collection[str], rules: tuple[Rule, ...]) -> tuple[str, ...]:
    """Return the names of ignored rules; raise ValueError for one that no rule has."""
    names = checked_names(ignored, "ignore_rules")
    known = [*RULE_NAMES, *(each.name for each in rules if isinstance(each, NamedRule))]
    # The findings of a plain function may have any name.
    if all(isinstance(each, NamedRule) for each in rules):
        for name in names:
            check_choice(name, "each of ignore_rules", tuple(dict.fromkeys(known)))
    return names


@asynccontextmanager
async def _closing(images: AsyncIterable[Image]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        if isinstance(images, AsyncGenerator):
            await images.aclose()


async def _each(images: AsyncIterable[Image] | Iterable[Image]) -> AsyncGenerator[Image, None]:
    if isinstance(images, AsyncIterable):
        async with _closing(images):
            async for image in images:
                yield image
    else:
        for number, image in enumerate(images, 1):
            yield image
            if number % _SLICE == 0:
                await asyncio.sleep(0)  # a long list must not stall the other tasks


@attrs.define
class _Tally:
    """Sums in integers, bytes and billionths of a dollar, so that they do not depend on the order."""

    images: int = 0
    size: int = 0
    cost: int = 0

    def add(self, gigabytes: float, monthly_cost: float) -> None:
        self.images += 1
        self.size += round(gigabytes * _UNIT)
        self.cost += round(monthly_cost * _UNIT)

    def group(self, key: str) -> Group:
        return Group(key, self.images, self.size / _UNIT, self.cost / _UNIT)


class _Worst:
    """The worst findings, up to a number; all if it is None."""

    def __init__(self, keep: int | None) -> None:
        self._keep = keep
        self._findings: list[Finding] = []

    def add(self, finding: Finding) -> None:
        self._findings.append(finding)
        if self._keep is not None and len(self._findings) > 2 * self._keep + 100:
            self._findings = list(self.in_order())

    def in_order(self) -> tuple[Finding, ...]:
        return worst(self._findings, self._keep)


class _RuleTally:
    """The sums over one rule's findings, and the worst of them."""

    def __init__(self, first: Finding) -> None:
        self.worst = first
        self.sums = _Tally()

    def add(self, finding: Finding) -> None:
        self.worst = min(self.worst, finding, key=worst_first)
        self.sums.add(finding.gigabytes, finding.monthly_cost)

    def summary(self) -> RuleSummary:
        sums = self.sums.group(self.worst.rule)
        return RuleSummary(
            rule=sums.key,
            severity=self.worst.severity,
            action=self.worst.action,
            findings=sums.images,
            gigabytes=sums.gigabytes,
            monthly_cost=sums.monthly_cost,
        )


@attrs.frozen(kw_only=True)
class _Exceptions:
    """Images and rules that are left out of the findings, or of the savings."""

    rules: tuple[str, ...]
    tags: tuple[str, ...]
    in_use: Container[int] | None

    def ignores(self, image: Image) -> bool:
        return bool(self.tags) and matches_tag(image.tags or (), self.tags)

    def uses(self, image: Image) -> bool:
        return self.in_use is not None and is_own(image) and image.id in self.in_use


class _Collector:
    """The state of an audit after the images so far."""

    def __init__(
        self, context: Context, rules: tuple[Rule, ...], keep: int | None, exceptions: _Exceptions
    ) -> None:
        self.total = _Tally()
        self._context = context
        self._rules = rules
        self._exceptions = exceptions
        self._unsized = 0
        self._ignored = _Tally()
        self._in_use = _Tally()
        self._private = _Tally()
        self._public = _Tally()
        self._backups = _Tally()
        self._stale = _Tally()
        self._types = defaultdict[str, _Tally](_Tally)
        self._regions = defaultdict[str, _Tally](_Tally)
        self._distributions = defaultdict[str, _Tally](_Tally)
        self._ages = {label: _Tally() for _, label in _AGES}
        self._by_rule: dict[str, _RuleTally] = {}
        self._worst = _Worst(keep)

    def add(self, image: Image) -> None:
        size = self._context.gigabytes(image)
        cost = self._context.monthly_cost(image)
        for tally in self._tallies(image):
            tally.add(size, cost)
        self._unsized += lacks_size(image)
        if self._exceptions.uses(image):
            self._in_use.add(size, cost)
        if self._exceptions.ignores(image):
            self._ignored.add(size, cost)
            return
        findings = list(self._found(image))
        for finding in findings:
            self._note(finding)
        if any(finding.stale for finding in findings):
            self._stale.add(size, cost)

    def _found(self, image: Image) -> Iterable[Finding]:
        used = self._exceptions.uses(image)
        for rule in self._rules:
            finding = rule(image, self._context)
            if finding is None:
                continue
            if not isinstance(finding, Finding):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"a rule must return a Finding or None, not {shown(finding)}")
            if finding.rule in self._exceptions.rules:
                continue
            yield _kept(finding) if used and finding.stale else finding

    def _tallies(self, image: Image) -> list[_Tally]:
        """Return the tallies that the image counts in: one for each region, even if the server repeats it."""
        public = is_public(image)
        tallies = [
            self.total,
            self._public if public else self._private,
            self._types[image.type or NOTHING],
            self._distributions[image.distribution or NOTHING],
            self._ages.setdefault(_age_label(image, self._context), _Tally()),
            *(self._regions[region] for region in set(image.regions or (NOTHING,))),
        ]
        if is_backup(image) and not public:
            tallies.append(self._backups)
        return tallies

    def _note(self, finding: Finding) -> None:
        if finding.rule not in self._by_rule:
            self._by_rule[finding.rule] = _RuleTally(finding)
        self._by_rule[finding.rule].add(finding)
        self._worst.add(finding)

    def report(self) -> AuditReport:
        summaries = (tally.summary() for tally in self._by_rule.values())
        return AuditReport(
            created_at=self._context.now,
            price=self._context.price,
            price_date=None,
            backup_price=self._context.backup_price,
            rules=settings_of(self._rules),
            ignored_rules=self._exceptions.rules,
            ignored_tags=self._exceptions.tags,
            ignored=self._ignored.group("ignored"),
            in_use=None if self._exceptions.in_use is None else self._in_use.group("in use"),
            total=self.total.group("total"),
            private=self._private.group("private"),
            public=self._public.group("public"),
            backups=self._backups.group("backups"),
            stale=self._stale.group("stale"),
            unsized=self._unsized,
            by_type=_largest_first(self._types),
            by_region=_largest_first(self._regions),
            by_distribution=_largest_first(self._distributions),
            by_age=_youngest_first(self._ages),
            findings=self._worst.in_order(),
            findings_total=sum(tally.sums.images for tally in self._by_rule.values()),
            findings_by_rule=tuple(
                sorted(summaries, key=lambda each: (-each.severity, -each.monthly_cost, each.rule))
            ),
        )


def _kept(finding: Finding) -> Finding:
    """Return the finding changed for an image that must not be deleted, since a Droplet uses it."""
    severity = min(finding.severity, Severity.LOW)
    return attrs.evolve(finding, severity=severity, action="keep it: a Droplet uses it", stale=False)


def _age_label(image: Image, context: Context) -> str:
    age = context.age(image)
    if age is None:
        return NOTHING
    if age.total_seconds() < 0:
        return _FUTURE
    return next(label for days, label in _AGES if age.days < days)


def _largest_first(tallies: dict[str, _Tally]) -> tuple[Group, ...]:
    groups = (tally.group(str(key)) for key, tally in tallies.items())
    return tuple(sorted(groups, key=lambda group: (-group.gigabytes, -group.images, group.key)))


def _youngest_first(tallies: dict[str, _Tally]) -> tuple[Group, ...]:
    labels = (_FUTURE, *(label for _, label in _AGES), NOTHING)
    return tuple(tallies[label].group(label) for label in labels if label in tallies)


def _aware(now: datetime | None) -> datetime:
    if now is None:
        return datetime.now(UTC)
    if not isinstance(now, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"now must be a datetime, not {shown(now)}")
    if now.utcoffset() is None:
        raise ValueError("now must be an aware datetime")
    return now


def _money(value: object, name: str) -> float:
    number = checked_number(value, name)
    if not 0 <= number <= _DEAREST:
        raise ValueError(f"{name} must be a number of USD from 0 to {_DEAREST:,.0f}, not {shown(value)}")
    return number
