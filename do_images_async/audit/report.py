"""The report of an audit: the numbers and findings, also as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, Final

import attrs

from do_images_async._notebook import html_table
from do_images_async.audit.comparison import Comparison
from do_images_async.audit.context import Finding, Severity, as_data
from do_images_async.audit.settings import RuleSettings

__all__ = ["NOTHING", "SCHEMA", "AuditReport", "Group", "QuotaLeft", "RuleSummary", "in_utc"]

SCHEMA: Final = 1
"""The version of what `AuditReport.to_dict` returns; a change other than a new key raises it."""

NOTHING = "(none)"
"""The key of the images that do not have what a group is formed by."""


@attrs.frozen
class Group:
    """The images that have a property in common.

    Attributes:
        key: the value of that property; "(none)" for images without one.
        images: how many.
        gigabytes: what they occupy, in GB.
        monthly_cost: what they cost, in USD a month.
    """

    key: str
    images: int
    gigabytes: float
    monthly_cost: float


@attrs.frozen(kw_only=True)
class RuleSummary:
    """All findings of one rule, including those that were not kept.

    Attributes:
        rule: the rule's name.
        severity, action: those of its worst finding.
        findings: how many.
        gigabytes: what their images occupy, in GB.
        monthly_cost: what their images cost, in USD a month.
    """

    rule: str
    severity: Severity
    action: str
    findings: int
    gigabytes: float
    monthly_cost: float


@attrs.frozen
class QuotaLeft:
    """The rest of one quota limit after the listing was read.

    Attributes:
        limit: requests that are allowed in any window.
        per: the window, in seconds.
        left: the number of requests that could have followed at once.
    """

    limit: int
    per: float
    left: int


@attrs.frozen(kw_only=True, repr=False)
class AuditReport:
    """The result of an audit.

    Every image counts in the totals and groups, public ones included; those cost nothing. Groups partition
    the images, except `by_region`: an image in three regions is counted whole in each, with its size and its
    cost, so that a region's line says what is there. The provider charges it once, and so do the totals.

    Attributes:
        created_at: the moment that ages are counted to.
        price: USD per GB and month that snapshots and custom images were counted with.
        price_date: the date of that price; None if the caller gave the price.
        backup_price: the same for backups.
        rules: the rules, with their limits.
        ignored_rules: rules whose findings were left out.
        ignored_tags: tags, or patterns of tags, of images that no rule was applied to.
        ignored: those images.
        in_use: the account's images that a Droplet uses, which are never stale; None if the caller did not
            say.
        total: all images that were read.
        private: the account's images.
        public: the provider's.
        backups: the account's backups, which are paid for with their Droplets.
        stale: images with a finding whose remedy is to delete them, each once; `stale.monthly_cost` would be
            saved.
        unsized: the account's images whose size is missing or impossible, except those that are deleted or
            being imported. They count as 0 GB, so that the true sizes, costs and savings may be higher.
        by_type, by_region, by_distribution: the largest first.
        by_age: the youngest first.
        findings: the worst first, as many as were kept.
        findings_total: how many there were.
        findings_by_rule: exact counts, the worst first.
        reported_total: the number of images by the server's count; None if the caller did not say.
        requests, pages: the requests and pages of the listing; None if the caller did not say.
        elapsed: the seconds that the listing took; None if the caller did not say.
        quota: the rest of each quota limit at the end; empty if the caller did not say, or if several
            accounts are combined, since each has its own.
        incomplete: why not all images were read, if the caller knows a reason.
        comparison: the comparison with an earlier report, if the caller had one.
        accounts: the names of the accounts that a combined report is of; empty for a report of one listing.
    """

    created_at: datetime
    price: float
    price_date: date | None
    backup_price: float
    total: Group
    private: Group
    public: Group
    backups: Group
    stale: Group
    by_type: tuple[Group, ...]
    by_region: tuple[Group, ...]
    by_distribution: tuple[Group, ...]
    by_age: tuple[Group, ...]
    findings: tuple[Finding, ...]
    findings_total: int
    findings_by_rule: tuple[RuleSummary, ...]
    reported_total: int | None = None
    requests: int | None = None
    pages: int | None = None
    elapsed: float | None = None
    quota: tuple[QuotaLeft, ...] = ()
    incomplete: str | None = None
    comparison: Comparison | None = None
    rules: tuple[RuleSettings, ...] = ()
    ignored_rules: tuple[str, ...] = ()
    ignored_tags: tuple[str, ...] = ()
    ignored: Group = attrs.field(factory=lambda: Group("ignored", 0, 0.0, 0.0))
    in_use: Group | None = None
    accounts: tuple[str, ...] = ()
    unsized: int = 0

    def __repr__(self) -> str:
        """Return the numbers without the groups and findings, which can be long."""
        unsized = f", {self.unsized:,} without a size" if self.unsized else ""
        missing = "" if self.complete else f", INCOMPLETE: {self.why_incomplete}"
        return (
            f"<AuditReport of {in_utc(self.created_at)}: {self.images:,} images{unsized}, "
            f"{self.gigabytes:,.1f} GB, {self.monthly_cost:,.2f} USD a month, "
            f"{self.findings_total:,} findings{missing}>"
        )

    def _repr_html_(self) -> str:
        """Return the numbers and a table of the findings as HTML for a notebook."""
        head = ("severity", "rule", "image", "name", "finding", "action")
        rows = [
            (each.severity.name.lower(), each.rule, each.image_id, each.name, each.detail, each.action)
            for each in self.findings
        ]
        return html_table(repr(self)[1:-1], head, rows)

    @property
    def images(self) -> int:
        """Return the number of images that were read."""
        return self.total.images

    @property
    def gigabytes(self) -> float:
        """Return the size of all images, in GB."""
        return self.total.gigabytes

    @property
    def monthly_cost(self) -> float:
        """Return the cost of all images, in USD a month."""
        return self.total.monthly_cost

    @property
    def savings(self) -> float:
        """Return the savings from deleting the stale images, in USD a month."""
        return self.stale.monthly_cost

    @property
    def complete(self) -> bool:
        """Return whether all images were read by the server's count, as far as is known."""
        return self.why_incomplete is None

    @property
    def why_incomplete(self) -> str | None:
        """Return why the report covers only a part of the images; None if it is complete."""
        if self.incomplete is not None:
            return self.incomplete
        if self.reported_total is None or self.images >= self.reported_total:
            return None
        return f"{self.images:,} images read of {self.reported_total:,}"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON data; `do-images schema report` prints its JSON Schema.

        `schema` is the version; keys may be added without a new one. Sizes are in GB, money is in USD a
        month, times are in seconds. A severity is its name in lower case.
        """
        return {
            "schema": SCHEMA,
            "created_at": self.created_at.isoformat(),
            "complete": self.complete,
            "incomplete": self.why_incomplete,
            "images": self.images,
            "reported_total": self.reported_total,
            "gigabytes": self.gigabytes,
            "monthly_cost": self.monthly_cost,
            "savings": self.savings,
            "price": self.price,
            "price_date": self.price_date.isoformat() if self.price_date else None,
            "backup_price": self.backup_price,
            "rules": [{"rule": each.rule, "settings": _plain(each)} for each in self.rules],
            "ignored_rules": list(self.ignored_rules),
            "ignored_tags": list(self.ignored_tags),
            "account_names": list(self.accounts),
            "private": _amounts(self.private),
            "public": _amounts(self.public),
            "backups": _amounts(self.backups),
            "stale": _amounts(self.stale),
            "unsized": self.unsized,
            "ignored": _amounts(self.ignored),
            "in_use": _amounts(self.in_use) if self.in_use else None,
            "by_type": _keyed(self.by_type),
            "by_region": _keyed(self.by_region),
            "by_distribution": _keyed(self.by_distribution),
            "by_age": _keyed(self.by_age),
            "findings_total": self.findings_total,
            "findings_by_rule": [as_data(summary) for summary in self.findings_by_rule],
            "findings": [as_data(finding) for finding in self.findings],
            "requests": self.requests,
            "pages": self.pages,
            "elapsed": self.elapsed,
            "quota": [attrs.asdict(each) for each in self.quota],
            "comparison": self.comparison.to_dict() if self.comparison else None,
        }


def in_utc(moment: datetime) -> str:
    """Return a datetime to the minute for people: "2026-11-27 08:41 UTC"."""
    try:
        return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except OverflowError:  # at an end of the calendar, where the day does not exist in another zone
        return f"{moment:%Y-%m-%d %H:%M %Z}"


def _plain(rule: RuleSettings) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str | int | float) else list(value)
        for key, value in rule.settings.items()
    }


def _amounts(group: Group) -> dict[str, Any]:
    return {"images": group.images, "gigabytes": group.gigabytes, "monthly_cost": group.monthly_cost}


def _keyed(groups: Iterable[Group]) -> list[dict[str, Any]]:
    return [attrs.asdict(group) for group in groups]
