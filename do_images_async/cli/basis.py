"""The basis of a report's numbers, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from do_images_async.audit import AuditReport, QuotaLeft, RuleSettings
from do_images_async.audit.report import in_utc
from do_images_async.audit.settings import setting_text
from do_images_async.cli.text import counted, printable

__all__ = ["basis", "without_size"]

_WINDOWS = {60.0: "a minute", 3600.0: "an hour"}


def basis(report: AuditReport) -> Iterator[str]:
    """Yield sentences on the images read, the limits and the cost, as far as they are known."""
    if report.requests is not None:
        pages = f" for {counted(report.pages, 'page')}" if report.pages is not None else ""
        elapsed = f" in {report.elapsed:,.2f} s" if report.elapsed is not None else ""
        yield f"{counted(report.requests, 'request')}{pages}{elapsed}."
    if report.reported_total is not None:
        yield f"{report.images:,} images read of {report.reported_total:,} that the server reports."
    if report.quota:
        yield f"Requests left of the quota: {', '.join(map(_left, report.quota))}."
    limits = [_limits(each) for each in report.rules if each.settings]
    if limits:
        yield f"Limits: {'; '.join(limits)}."
    if report.ignored_rules:
        yield f"Findings left out: {', '.join(report.ignored_rules)}."
    if report.ignored_tags:
        tags = printable(", ".join(report.ignored_tags))
        yield f"No rule is applied to {counted(report.ignored.images, 'image')} tagged {tags}."
    if report.in_use is not None:
        yield f"{counted(report.in_use.images, 'image')} in use by Droplets: not counted as savings."
    yield f"Ages are counted to {in_utc(report.created_at)}."
    yield "An image in several regions is in each one's line, and once in the totals."


def without_size(report: AuditReport) -> str:
    """Return in words how many images have no valid size, so that the true sums may be higher."""
    one = report.unsized == 1
    return f"{counted(report.unsized, 'image')} without a valid size {'counts' if one else 'count'} as 0 GB"


def _limits(rule: RuleSettings) -> str:
    values = (f"{key} {printable(setting_text(value))}" for key, value in rule.settings.items())
    return f"{rule.rule} {', '.join(values)}"


def _left(quota: QuotaLeft) -> str:
    window = _WINDOWS.get(quota.per, f"in {quota.per:g} s")
    return f"{quota.left:,} of {quota.limit:,} {window}"
