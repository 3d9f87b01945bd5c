"""The reports of several accounts combined into one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

import attrs

from do_images_async._arguments import check_range, shown
from do_images_async.audit.context import Finding, worst
from do_images_async.audit.report import AuditReport, Group, RuleSummary
from do_images_async.audit.settings import limits_of

__all__ = ["combined"]

Number = TypeVar("Number", int, float)

_SETTINGS: Final = ("price", "backup_price", "rules", "ignored_rules", "ignored_tags")


def combined(reports: Mapping[str, AuditReport], *, keep: int | None = 1000) -> AuditReport:
    """Return one report over those of several accounts; each finding names its account.

    All reports must have been made with the same prices, rules and ignored names. The provider's public
    images are counted once for each account, as they are in the accounts' reports.

    Args:
        reports: the accounts' reports by the accounts' names; at least one.
        keep: how many findings the report holds at most, the worst; None for all.

    Raises:
        TypeError, ValueError: there is no report, `keep` can't be used, or two reports were made with other
            prices, rules or ignored names; the message says which.
    """
    if not isinstance(reports, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"reports must be a mapping of names to reports, not {shown(reports)}")
    for report in reports.values():
        if not isinstance(report, AuditReport):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"each of reports must be an AuditReport, not {shown(report)}")
    if not reports:
        raise ValueError("reports must hold at least one report")
    if keep is not None:
        check_range(keep, "keep", 0)
    all_of = tuple(reports.values())
    first = all_of[0]
    _check_settings(reports)
    in_use = [each.in_use for each in all_of if each.in_use is not None]
    return AuditReport(
        created_at=max(each.created_at for each in all_of),
        price=first.price,
        price_date=first.price_date,
        backup_price=first.backup_price,
        rules=first.rules,
        ignored_rules=first.ignored_rules,
        ignored_tags=first.ignored_tags,
        ignored=_sum("ignored", (each.ignored for each in all_of)),
        in_use=_sum("in use", in_use) if len(in_use) == len(all_of) else None,
        total=_sum("total", (each.total for each in all_of)),
        private=_sum("private", (each.private for each in all_of)),
        public=_sum("public", (each.public for each in all_of)),
        backups=_sum("backups", (each.backups for each in all_of)),
        stale=_sum("stale", (each.stale for each in all_of)),
        by_type=_largest_first(each.by_type for each in all_of),
        by_region=_largest_first(each.by_region for each in all_of),
        by_distribution=_largest_first(each.by_distribution for each in all_of),
        by_age=_in_order(each.by_age for each in all_of),
        accounts=tuple(reports),
        unsized=sum(each.unsized for each in all_of),
        findings=_worst(reports, keep),
        findings_total=sum(each.findings_total for each in all_of),
        findings_by_rule=_rules(each.findings_by_rule for each in all_of),
        incomplete=_reasons(reports),
        reported_total=_known(sum, [each.reported_total for each in all_of]),
        requests=_known(sum, [each.requests for each in all_of]),
        pages=_known(sum, [each.pages for each in all_of]),
        elapsed=_known(max, [each.elapsed for each in all_of]),
    )


def _check_settings(reports: Mapping[str, AuditReport]) -> None:
    """Raise ValueError unless all reports were made with the same settings, which the whole report states."""
    (name, first), *others = reports.items()
    for other, report in others:
        for setting in _SETTINGS:
            one, another = getattr(first, setting), getattr(report, setting)
            same = limits_of(one) == limits_of(another) if setting == "rules" else one == another
            if not same:
                raise ValueError(
                    f"reports must have the same {setting}, and {shown(name)} and {shown(other)} have not: "
                    f"{shown(one)} and {shown(another)}"
                )


def _sum(key: str, groups: Iterable[Group]) -> Group:
    parts = tuple(groups)
    return Group(
        key,
        sum(each.images for each in parts),
        round(sum(each.gigabytes for each in parts), 9),
        round(sum(each.monthly_cost for each in parts), 9),
    )


def _in_order(lists: Iterable[Iterable[Group]]) -> tuple[Group, ...]:
    by_key: dict[str, list[Group]] = {}
    for groups in lists:
        for group in groups:
            by_key.setdefault(group.key, []).append(group)
    return tuple(_sum(key, parts) for key, parts in by_key.items())


def _largest_first(lists: Iterable[Iterable[Group]]) -> tuple[Group, ...]:
    return tuple(sorted(_in_order(lists), key=lambda group: (-group.gigabytes, -group.images, group.key)))


def _worst(reports: Mapping[str, AuditReport], keep: int | None) -> tuple[Finding, ...]:
    findings = (
        attrs.evolve(finding, account=account)
        for account, report in reports.items()
        for finding in report.findings
    )
    return worst(findings, keep)


def _rules(lists: Iterable[Iterable[RuleSummary]]) -> tuple[RuleSummary, ...]:
    by_rule: dict[str, list[RuleSummary]] = {}
    for summaries in lists:
        for summary in summaries:
            by_rule.setdefault(summary.rule, []).append(summary)
    merged = (
        attrs.evolve(
            max(parts, key=lambda each: each.severity),
            findings=sum(each.findings for each in parts),
            gigabytes=round(sum(each.gigabytes for each in parts), 9),
            monthly_cost=round(sum(each.monthly_cost for each in parts), 9),
        )
        for parts in by_rule.values()
    )
    return tuple(sorted(merged, key=lambda each: (-each.severity, -each.monthly_cost, each.rule)))


def _reasons(reports: Mapping[str, AuditReport]) -> str | None:
    reasons = (f"{account}: {report.why_incomplete}" for account, report in reports.items())
    return (
        "; ".join(
            reason for reason, report in zip(reasons, reports.values(), strict=True) if not report.complete
        )
        or None
    )


def _known(merge: Callable[[Iterable[Number]], Number], values: list[Number | None]) -> Number | None:
    known = [value for value in values if value is not None]
    return merge(known) if len(known) == len(values) else None
