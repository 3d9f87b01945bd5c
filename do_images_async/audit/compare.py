"""Beside an earlier report: what is new, what is gone, what has grown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from do_images_async.audit.comparison import Change, Comparison, PastFinding
from do_images_async.audit.report import AuditReport, Group

__all__ = ["compare"]

_GROUPS = ("type", "region", "distribution")


def compare(report: AuditReport, baseline: Mapping[str, Any]) -> Comparison:
    """Hold a report beside an earlier one.

    Args:
        report: the later one.
        baseline: the earlier one as data, as `AuditReport.to_dict` made it.

    Raises:
        ValueError: the baseline is no such data.
    """
    try:
        return _compare(report, baseline)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"baseline is no report of an audit: {type(error).__name__}: {error}") from None


def _compare(report: AuditReport, baseline: Mapping[str, Any]) -> Comparison:
    past = [
        PastFinding(
            rule=str(each["rule"]),
            image_id=int(each["image_id"]),
            name=str(each["name"]),
            account=each.get("account"),
        )
        for each in baseline["findings"]
    ]
    before = {(each.account, each.rule, each.image_id) for each in past}
    now = {(each.account, each.rule, each.image_id) for each in report.findings}
    return Comparison(
        since=datetime.fromisoformat(baseline["created_at"]),
        total=_change("total", report.total, baseline),
        grown=_grown(report, baseline),
        new=tuple(f for f in report.findings if (f.account, f.rule, f.image_id) not in before),
        gone=tuple(f for f in past if (f.account, f.rule, f.image_id) not in now),
        exact=_holds_all(report, baseline, len(past)),
    )


def _holds_all(report: AuditReport, baseline: Mapping[str, Any], past: int) -> bool:
    """Whether neither report left findings away, nor images unread."""
    if not report.complete or not baseline.get("complete", True):
        return False
    return past == baseline["findings_total"] and len(report.findings) == report.findings_total


def _grown(report: AuditReport, baseline: Mapping[str, Any]) -> tuple[Change, ...]:
    later: Sequence[Iterable[Group]] = (report.by_type, report.by_region, report.by_distribution)
    changes = (
        change
        for name, groups in zip(_GROUPS, later, strict=True)
        for change in _changes(name, groups, baseline[f"by_{name}"])
        if change.gigabytes > 0
    )
    return tuple(sorted(changes, key=lambda change: (-change.gigabytes, change.group, change.key)))


def _changes(name: str, groups: Iterable[Group], earlier: Iterable[Mapping[str, Any]]) -> Iterator[Change]:
    before = {each["key"]: each for each in earlier}
    nothing = {"images": 0, "gigabytes": 0.0, "monthly_cost": 0.0}
    for group in groups:
        yield _change(name, group, before.get(group.key, nothing))


def _change(name: str, group: Group, before: Mapping[str, Any]) -> Change:
    return Change(
        group=name,
        key=group.key,
        images=group.images - before["images"],
        gigabytes=round(group.gigabytes - before["gigabytes"], 9),
        monthly_cost=round(group.monthly_cost - before["monthly_cost"], 9),
    )
