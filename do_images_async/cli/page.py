"""A report as one self-contained HTML page, which loads nothing and in which no name becomes markup."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files

from do_images_async.audit import AuditReport, Comparison, Finding, Group, Severity
from do_images_async.audit.report import in_utc
from do_images_async.cli.basis import basis, without_size
from do_images_async.cli.charts import Bar, bars
from do_images_async.cli.text import counted, printable

__all__ = ["report_page"]

_LINES = 1000
_OF_EACH = 250
_GROUPS = 12
_REGIONS = 60
_PANEL = "https://cloud.digitalocean.com/images/"
_PLACES = {"snapshot": "snapshots/droplets", "custom": "custom_images", "backup": "backups"}


def report_page(
    report: AuditReport,
    source: str,
    parts: Mapping[str, AuditReport] | None = None,
    top: int | None = None,
) -> str:
    """Return the report as HTML.

    Args:
        report: the report.
        source: the account in words.
        parts: the reports of the accounts, if there are several.
        top: how many findings are shown, the worst first; None for the worst of each rule.
    """
    style, script = _resource("page.css"), _resource("page.js")
    # Only this script may run, and nothing may be loaded, even if a name became markup.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    title = f"Images of {_safe(source)}"
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}; form-action \'none\'">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{title}</title><style>{style}</style></head><body><main>",
            f"<header><h1>{title}</h1><p>Audit of {in_utc(report.created_at)}</p></header>",
            *_warning(report),
            *_cards(report),
            *_without_size(report),
            *_charts(report),
            *_accounts(parts or {}),
            *(_comparison(report.comparison) if report.comparison else ()),
            *_rules(report),
            *_findings(report, top, accounts=bool(parts)),
            f"<footer>{' '.join(_basis(report))}</footer></main><script>{script}</script></body></html>\n",
        ]
    )


def _resource(name: str) -> str:
    return files("do_images_async.cli").joinpath(name).read_text(encoding="utf-8")


def _safe(text: str) -> str:
    return escape(printable(text))


def _warning(report: AuditReport) -> Iterator[str]:
    if not report.complete:
        yield (
            '<p class="warning" role="alert"><strong>This report is incomplete:</strong> '
            f"{_safe(report.why_incomplete or '')}.</p>"
        )


def _cards(report: AuditReport) -> Iterator[str]:
    looked_up = f", price of {report.price_date}" if report.price_date else ""
    backups = report.backups
    note = (
        f"{counted(backups.images, 'backup')}: {backups.gigabytes:,.0f} GB"
        if backups.images
        else "no backups"
    )
    public = f"{report.private.images:,} private, {report.public.images:,} public"
    stale = f"{counted(report.stale.images, 'stale image')} deleted"
    high = sum(each.findings for each in report.findings_by_rule if each.severity is Severity.HIGH)
    yield '<section class="cards" aria-label="Totals">'
    yield _card("Images", f"{report.images:,}", public)
    yield _card("Stored", f"{report.gigabytes:,.0f} GB", note)
    yield _card("Cost a month", f"${report.monthly_cost:,.2f}", f"${report.price:g} per GB{looked_up}")
    yield _card("Would be saved", f"${report.savings:,.2f}", f"a month, with {stale}", "good")
    yield _card("Findings", f"{report.findings_total:,}", f"{high:,} of high severity")
    yield "</section>"


def _without_size(report: AuditReport) -> Iterator[str]:
    if report.unsized:
        yield (
            f'<p class="warning">{without_size(report)}: '
            "sizes, costs and savings are at least what this page says.</p>"
        )


def _card(label: str, value: str, note: str, kind: str = "") -> str:
    return (
        f'<div class="card {kind}"><span class="label">{label}</span>'
        f'<strong>{value}</strong><span class="note">{note}</span></div>'
    )


def _charts(report: AuditReport) -> Iterator[str]:
    """Yield the charts in pairs: images, and beside them their cost."""
    if not report.images:
        return
    yield '<section class="charts">'
    yield _figure("Images by age", bars([_images(each) for each in report.by_age], **_AGES))
    yield _figure("USD a month by age", bars([_dollars(each) for each in report.by_age], **_AGES))
    for title, groups in (
        ("by region", _largest(report.by_region, _REGIONS)),
        ("by type", _largest(report.by_type, _GROUPS)),
    ):
        yield _figure(f"Gigabytes {title}", bars([_gigabytes(each) for each in groups]))
        yield _figure(f"USD a month {title}", bars([_dollars(each) for each in groups]))
    yield "</section>"


_AGES = {"label": 38, "characters": 20}


def _images(group: Group) -> Bar:
    return Bar(printable(group.key), float(group.images), f"{group.images:,}")


def _gigabytes(group: Group) -> Bar:
    return Bar(printable(group.key), group.gigabytes, f"{group.gigabytes:,.0f}")


def _dollars(group: Group) -> Bar:
    return Bar(printable(group.key), group.monthly_cost, f"{group.monthly_cost:,.2f}")


def _largest(groups: Sequence[Group], most: int) -> Sequence[Group]:
    if len(groups) <= most:
        return groups
    rest = groups[most - 1 :]
    others = Group(
        f"{len(rest):,} others",
        sum(each.images for each in rest),
        sum(each.gigabytes for each in rest),
        sum(each.monthly_cost for each in rest),
    )
    return (*groups[: most - 1], others)


def _figure(title: str, chart: str) -> str:
    return f"<figure><figcaption>{title}</figcaption>{chart}</figure>"


def _accounts(parts: Mapping[str, AuditReport]) -> Iterator[str]:
    if not parts:
        return
    heads = ("Account", "Images", "GB", "USD a month", "Would be saved", "Findings", "")
    rows = (
        (
            _bdi(name),
            f"{part.images:,}",
            f"{part.gigabytes:,.1f}",
            f"{part.monthly_cost:,.2f}",
            f"{part.savings:,.2f}",
            f"{part.findings_total:,}",
            "" if part.complete else f"<strong>incomplete: {_safe(part.why_incomplete or '')}</strong>",
        )
        for name, part in parts.items()
    )
    yield from _table("Accounts", heads, rows)


def _rules(report: AuditReport) -> Iterator[str]:
    if not report.findings_by_rule:
        return
    heads = ("Rule", "Worst", "Images", "GB", "USD a month", "What to do")
    rows = (
        (
            _bdi(each.rule),
            _badge(each.severity),
            f"{each.findings:,}",
            f"{each.gigabytes:,.1f}",
            f"{each.monthly_cost:,.2f}",
            _safe(each.action),
        )
        for each in report.findings_by_rule
    )
    yield from _table("What was found", heads, rows)


def _comparison(comparison: Comparison) -> Iterator[str]:
    total = comparison.total
    yield f"<section><h2>Since {in_utc(comparison.since)}</h2>"
    yield (
        f"<p>{total.images:+,} images, {total.gigabytes:+,.1f} GB, {total.monthly_cost:+,.2f} USD a month. "
        f"{counted(len(comparison.new), 'new finding')}, {len(comparison.gone):,} gone.</p>"
    )
    if comparison.differences:
        yield "<p>Made differently; findings of these rules and accounts are not compared:</p><ul>"
        yield from (f"<li>{_safe(each)}</li>" for each in comparison.differences)
        yield "</ul>"
    if not comparison.exact:
        yield '<p class="note">A report does not hold all its findings: new and gone are those it holds.</p>'
    for title, lines in (
        ("New", [f"{each.rule} {each.image_id} {each.name}" for each in comparison.new]),
        ("Gone", [f"{each.rule} {each.image_id} {each.name}" for each in comparison.gone]),
        ("Grown", [f"{each.group} {each.key} {each.gigabytes:+,.1f} GB" for each in comparison.grown]),
    ):
        if lines:
            items = "".join(f"<li>{_bdi(line)}</li>" for line in lines[:_LINES])
            yield f"<details><summary>{title}: {len(lines):,}</summary><ul>{items}</ul></details>"
    yield "</section>"


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f'<section><h2>{title}</h2><div class="scroll"><table class="stack"><thead><tr>'
    yield from (f'<th scope="col"{_kind(head)}>{head}</th>' for head in heads)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{''.join(_cell(head, value) for head, value in zip(heads, row, strict=True))}</tr>"
    yield "</tbody></table></div></section>"


def _cell(head: str, value: str) -> str:
    return f'<td data-label="{head}"{_kind(head)}>{value}</td>'


def _kind(head: str) -> str:
    return ' class="number"' if head in _NUMERIC else ""


_NUMERIC = frozenset({"Images", "GB", "USD a month", "Would be saved", "Findings", "ID"})


def _findings(report: AuditReport, top: int | None, *, accounts: bool) -> Iterator[str]:
    shown = _worst_of_each(report.findings) if top is None else report.findings[:top]
    heads = ["Severity", *(["Account"] if accounts else []), "Rule", "ID", "Image", "Finding"]
    heads += ["GB", "USD a month", "What to do"]
    yield '<section id="findings"><h2>Findings</h2>'
    if not report.findings_total:
        yield "<p>No rule found anything.</p></section>"
        return
    whole = len(shown) == report.findings_total
    searched = f"all {len(shown):,}" if whole else f"{len(shown):,} of {report.findings_total:,}"
    yield from _filters(shown, f"Search {searched} findings: name, id, region, tag…")
    yield f'<p class="note" id="count" aria-live="polite" data-total="{report.findings_total}">'
    yield f"{len(shown):,} of {report.findings_total:,} findings</p>"
    yield '<div class="scroll"><table id="table" class="stack"><thead><tr>'
    for place, head in enumerate(heads):
        yield (
            f'<th scope="col" aria-sort="none"{_kind(head)}>'
            f'<button type="button" data-column="{place}">{head}</button></th>'
        )
    yield "</tr></thead><tbody>"
    for finding in shown:
        yield _finding_row(finding, heads, accounts=accounts)
    yield '</tbody></table></div><p id="nothing" hidden>Nothing on this page fits these filters.</p>'
    if not whole:
        held = f"the worst {_OF_EACH} of each rule" if top is None else f"the worst {top:,}, as --top says"
        yield (
            f'<p class="note" id="left-out">This page, and so the search, leaves out '
            f"{report.findings_total - len(shown):,} findings: it holds {held}. "
            "<code>do-images audit -o csv</code> has them all.</p>"
        )
    yield "</section>"


def _worst_of_each(findings: Iterable[Finding]) -> list[Finding]:
    """Return the worst findings of each rule, so that a frequent rule does not hide the others."""
    seen = Counter[str]()
    shown: list[Finding] = []
    for finding in findings:
        seen[finding.rule] += 1
        if seen[finding.rule] <= _OF_EACH:
            shown.append(finding)
    return shown


def _filters(shown: Sequence[Finding], search: str) -> Iterator[str]:
    present = {finding.severity for finding in shown}
    yield f'<form class="filters"><input type="search" id="search" placeholder="{search}" '
    yield f'aria-label="{search}">'
    yield from _select("rule", "All rules", {finding.rule for finding in shown})
    yield from _select("region", "All regions", {each for finding in shown for each in finding.regions})
    yield '<span class="chips" role="group" aria-label="Severity">'
    for severity in sorted(present, reverse=True):
        name = severity.name.lower()
        yield (
            f'<button type="button" class="chip {name}" data-severity="{name}" '
            f'aria-pressed="true">{name}</button>'
        )
    yield '</span><button type="button" id="copy">Copy ids</button></form>'
    yield '<p class="note" id="copied" role="status" hidden></p>'
    yield '<textarea id="ids" aria-label="Ids" rows="4" readonly hidden></textarea>'


def _select(name: str, everything: str, values: Iterable[str]) -> Iterator[str]:
    yield f'<select id="{name}" aria-label="{name.capitalize()}"><option value="">{everything}</option>'
    yield from (f'<option value="{_safe(value)}">{_safe(value)}</option>' for value in sorted(values))
    yield "</select>"


def _finding_row(finding: Finding, heads: Sequence[str], *, accounts: bool) -> str:
    name = finding.severity.name.lower()
    values = [
        (str(int(finding.severity)), _badge(finding.severity)),
        *([(_safe(finding.account or ""), _bdi(finding.account or ""))] if accounts else []),
        (_safe(finding.rule), _bdi(finding.rule)),
        (str(finding.image_id), _link(finding)),
        (_safe(finding.name), f"<div>{_bdi(finding.name)}{_where(finding)}</div>"),
        (_safe(finding.detail), _bdi(finding.detail)),
        (f"{finding.gigabytes}", f"{finding.gigabytes:,.1f}"),
        (f"{finding.monthly_cost}", f"{finding.monthly_cost:,.2f}"),
        (_safe(finding.action), _safe(finding.action)),
    ]
    cells = "".join(
        f'<td data-label="{head}" data-value="{key}"{_kind(head)}>{shown}</td>'
        for head, (key, shown) in zip(heads, values, strict=True)
    )
    regions = _safe(" ".join(finding.regions))
    return (
        f'<tr data-id="{finding.image_id}" data-severity="{name}" data-rule="{_safe(finding.rule)}" '
        f'data-regions="{regions}">{cells}</tr>'
    )


def _link(finding: Finding) -> str:
    """Return the id with a link to the list in the control panel that shows the image."""
    place = _PLACES.get(finding.type or "")
    if place is None:
        return str(finding.image_id)
    title = "Find it in the control panel"
    return (
        f'<a href="{_PANEL}{place}" title="{title}" target="_blank" rel="noreferrer">{finding.image_id}</a>'
    )


def _where(finding: Finding) -> str:
    """Return the regions and tags as a line below the name."""
    regions = "".join(f'<bdi class="region">{_safe(each)}</bdi> ' for each in finding.regions)
    tags = "".join(f'<bdi class="tag">{_safe(each)}</bdi> ' for each in finding.tags)
    return f'<div class="where">{regions}{tags}</div>' if regions or tags else ""


def _badge(severity: Severity) -> str:
    name = severity.name.lower()
    return f'<span class="badge {name}">{name}</span>'


def _bdi(text: str) -> str:
    return f"<bdi>{_safe(text)}</bdi>"


def _basis(report: AuditReport) -> Iterator[str]:
    yield "Complete." if report.complete else "INCOMPLETE."
    yield from map(escape, basis(report))
