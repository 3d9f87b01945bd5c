"""The output of `audit`: a report as text, JSON, CSV or a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from do_images_async.audit import AuditReport, Finding, Severity
from do_images_async.cli.csv_text import csv_text

__all__ = ["FORMATS", "report_as"]

FORMATS = ("text", "json", "csv", "html")
"""The formats of a report."""


def report_as(
    form: str,
    report: AuditReport,
    parts: Mapping[str, AuditReport],
    shown: int | None,
    label: str,
    *,
    to_file: bool = False,
) -> str:
    """Return the report in a format.

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

        return report_page(report, label, parts, shown)
    report = attrs.evolve(report, findings=report.findings[:shown])
    if form == "csv":
        return _findings_csv(report)
    if form == "json":
        accounts = [{"account": name, **_brief(part)} for name, part in parts.items()]
        return json.dumps(report.to_dict() | ({"accounts": accounts} if parts else {}), indent=2) + "\n"
    from do_images_async.cli.render import report_text  # rich is slow to import

    return report_text(report, label, parts, to_file=to_file)


def _brief(part: AuditReport) -> dict[str, Any]:
    """Return an account's report without its findings, which are in the combined report."""
    return {key: value for key, value in part.to_dict().items() if key not in ("findings", "comparison")}


def _findings_csv(report: AuditReport) -> str:
    """Return the findings; the first row of an incomplete report says so, as a finding without an image."""
    names = [field.name for field in attrs.fields(Finding)]
    rows = [[_csv_value(getattr(finding, name)) for name in names] for finding in report.findings]
    if not report.complete:
        warning = {"rule": "incomplete", "severity": "high", "detail": f"INCOMPLETE: {report.why_incomplete}"}
        rows.insert(0, [warning.get(name, "") for name in names])
    return csv_text([names, *rows])


def _csv_value(value: object) -> object:
    return value.name.lower() if isinstance(value, Severity) else value
