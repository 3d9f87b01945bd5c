"""The output of `audit`: a report as text, JSON, CSV or a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from textwrap import indent
from typing import Any, Final

import attrs

from do_images_async.audit import AuditReport, Finding, Severity
from do_images_async.audit.context import as_data
from do_images_async.cli.csv_text import csv_text

__all__ = ["FORMATS", "report_as"]

FORMATS = ("text", "json", "csv", "html")
"""The formats of a report."""

_AT_ONCE: Final = 100
"""The findings whose text is in memory at once."""


def report_as(
    form: str,
    report: AuditReport,
    parts: Mapping[str, AuditReport],
    shown: int | None,
    label: str,
    *,
    to_file: bool = False,
) -> Iterator[str]:
    """Yield the report in a format; as data in parts, since the text takes more memory than the findings.

    Args:
        form: one of `FORMATS`.
        report: the report.
        parts: the reports of the accounts, if there are several.
        shown: how many findings are written at most; None for all, of which a page shows the
            worst of each rule.
        label: the account in words.
        to_file: whether it is written to a file, where text has no colours.
    """
    if form == "html":
        from do_images_async.cli.page import report_page

        yield report_page(report, label, parts, shown)
        return
    report = attrs.evolve(report, findings=report.findings[:shown])
    if form == "csv":
        yield from _findings_csv(report)
    elif form == "json":
        yield from _json(report, parts)
    else:
        from do_images_async.cli.render import report_text  # rich is slow to import

        yield report_text(report, label, parts, to_file=to_file)


def _json(report: AuditReport, parts: Mapping[str, AuditReport]) -> Iterator[str]:
    data = attrs.evolve(report, findings=()).to_dict()
    if parts:
        data["accounts"] = [{"account": name, **_brief(part)} for name, part in parts.items()]
    # A quotation mark within a string is escaped, so this is found once.
    before, after = json.dumps(data, indent=2).split('"findings": []')
    yield f'{before}"findings": ['
    comma = ""
    for findings in _batches(report.findings):
        items = json.dumps([as_data(each) for each in findings], indent=2)[1:-2]  # without the brackets
        yield comma + indent(items, "  ")
        comma = ","
    yield f"\n  ]{after}\n" if report.findings else f"]{after}\n"


def _brief(part: AuditReport) -> dict[str, Any]:
    """Return an account's report without its findings, which are in the combined report."""
    return {key: value for key, value in part.to_dict().items() if key not in ("findings", "comparison")}


def _findings_csv(report: AuditReport) -> Iterator[str]:
    """Yield the findings; the first row of an incomplete report says so, as a finding without an image."""
    names = [field.name for field in attrs.fields(Finding)]
    yield csv_text([names])
    if not report.complete:
        warning = {"rule": "incomplete", "severity": "high", "detail": f"INCOMPLETE: {report.why_incomplete}"}
        yield csv_text([[warning.get(name, "") for name in names]])
    for findings in _batches(report.findings):
        yield csv_text([_csv_value(getattr(each, name)) for name in names] for each in findings)


def _batches(findings: Sequence[Finding]) -> Iterator[Sequence[Finding]]:
    return (findings[start : start + _AT_ONCE] for start in range(0, len(findings), _AT_ONCE))


def _csv_value(value: object) -> object:
    return value.name.lower() if isinstance(value, Severity) else value
