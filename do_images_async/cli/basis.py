"""What the numbers of a report stand on, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from do_images_async.audit import AuditReport, QuotaLeft
from do_images_async.cli.text import counted

__all__ = ["basis"]

_WINDOWS = {60.0: "a minute", 3600.0: "an hour"}


def basis(report: AuditReport) -> Iterator[str]:
    """Sentences on what was read, and at what cost, as far as it is known; the caller closes the list."""
    if report.requests is not None:
        pages = f" for {counted(report.pages, 'page')}" if report.pages is not None else ""
        elapsed = f" in {report.elapsed:,.2f} s" if report.elapsed is not None else ""
        yield f"{counted(report.requests, 'request')}{pages}{elapsed}."
    if report.reported_total is not None:
        yield f"{report.images:,} images read of {report.reported_total:,} that the server reports."
    if report.quota:
        yield f"Requests left of the quota: {', '.join(map(_left, report.quota))}."
    yield f"Ages are counted to {report.created_at:%Y-%m-%d %H:%M %Z}."
    yield "An image in several regions is in each one's line, and once in the totals."


def _left(quota: QuotaLeft) -> str:
    window = _WINDOWS.get(quota.per, f"in {quota.per:g} s")
    return f"{quota.left:,} of {quota.limit:,} {window}"
