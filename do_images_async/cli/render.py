"""A report as a terminal shows it: plain where it is piped, side by side where there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, RenderableType
from rich.console import Group as Lines
from rich.table import Column, Table
from rich.text import Text

from do_images_async.audit import AuditReport, Comparison, Finding, Group, RuleSummary, Severity
from do_images_async.cli.basis import basis
from do_images_async.cli.text import counted, printable

__all__ = ["render_report", "report_text"]

_WIDE = 150
_ROWS = 15
_NAMED = 5
_STYLES = {
    Severity.HIGH: "bold red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "dim",
}


def report_text(report: AuditReport, source: str, parts: Mapping[str, AuditReport] | None = None) -> str:
    """The report as text for stdout: with colours, and as wide, as what stdout is allows.

    Args:
        report: what to show.
        source: whose images they are, in words.
        parts: the reports of the accounts, where there are several.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    ascii_only = console.options.ascii_only
    with console.capture() as capture:
        console.print(render_report(report, source, console.width, parts or {}, ascii_only=ascii_only))
    # A name may hold what the terminal's encoding has no byte for; tables pad each line to their width.
    text = capture.get().encode(console.encoding, "backslashreplace").decode(console.encoding)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def render_report(
    report: AuditReport,
    source: str,
    width: int,
    parts: Mapping[str, AuditReport],
    *,
    ascii_only: bool = False,
) -> RenderableType:
    """The report as something that rich can print.

    Args:
        report: what to show.
        source: whose images they are, in words.
        width: columns there are.
        parts: the reports of the accounts, where there are several.
        ascii_only: whether bars must do without block characters.
    """
    wide = width >= _WIDE
    bar = ("#" if ascii_only else "█") * (32 if wide else 20)
    left = Lines(
        _group_table("By type", report.by_type, bar), "", _group_table("By age", report.by_age, bar), ""
    )
    right = Lines(
        _group_table("By region", report.by_region, bar),
        "",
        _group_table("By distribution", report.by_distribution, bar),
        "",
    )
    return Lines(
        *_headline(report, source),
        _summary(report),
        "",
        *_accounts(parts),
        *(_comparison(report.comparison) if report.comparison else ()),
        _side_by_side(left, right) if wide else Lines(left, right),
        *_findings(report, wide=wide),
        Text(" ".join(basis(report)), style="dim"),
    )


def _headline(report: AuditReport, source: str) -> Iterable[RenderableType]:
    yield Text.assemble(("Images of ", "bold"), (printable(source), "bold"))
    if not report.complete:
        yield Text(f"INCOMPLETE: {printable(report.why_incomplete or '')}", style="bold red")
    yield ""


def _summary(report: AuditReport) -> Table:
    table = Table.grid(Column(style="bold"), Column(), padding=(0, 2))
    table.add_row("Images", f"{report.images:,}: {report.private.images:,} private, {_public(report)}")
    table.add_row("Size", f"{report.gigabytes:,.1f} GB")
    table.add_row("Cost", f"about ${report.monthly_cost:,.2f} a month, at {_price(report)}")
    if report.backups.images:
        table.add_row("", Text(_backups(report), style="dim"))
    table.add_row("Savings", f"${report.savings:,.2f} a month if {_stale(report)} were deleted")
    return table


def _price(report: AuditReport) -> str:
    looked_up = f" (of {report.price_date})" if report.price_date else ""
    return f"${report.price:g} per GB{looked_up}"


def _accounts(parts: Mapping[str, AuditReport]) -> Iterable[RenderableType]:
    if not parts:
        return
    table = Table(
        Column("By account", max_width=24),
        *(Column(head, justify="right", no_wrap=True) for head in ("images", "GB", "USD/month", "savings")),
        Column("findings", justify="right", no_wrap=True),
        Column(""),
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
    )
    for name, part in parts.items():
        table.add_row(
            _one_line(name),
            f"{part.images:,}",
            f"{part.gigabytes:,.1f}",
            f"{part.monthly_cost:,.2f}",
            f"{part.savings:,.2f}",
            f"{part.findings_total:,}",
            Text("" if part.complete else "INCOMPLETE", style="bold red"),
        )
    yield table
    yield ""


def _comparison(comparison: Comparison) -> Iterable[RenderableType]:
    total = comparison.total
    yield Text(f"Since {comparison.since:%Y-%m-%d %H:%M}", style="bold")
    table = Table.grid(Column(), Column(), padding=(0, 2))
    growth = f"{total.images:+,} images, {total.gigabytes:+,.1f} GB, {total.monthly_cost:+,.2f} USD a month"
    table.add_row("total", growth)
    table.add_row("new", _named(f"{each.rule} {each.image_id} {each.name}" for each in comparison.new))
    table.add_row("gone", _named(f"{each.rule} {each.image_id} {each.name}" for each in comparison.gone))
    table.add_row(
        "grown", _named(f"{each.group} {each.key} {each.gigabytes:+,.1f} GB" for each in comparison.grown)
    )
    yield table
    if not comparison.exact:
        yield Text("A report does not hold all its findings: new and gone are those it holds.", style="dim")
    yield ""


def _named(lines: Iterable[str]) -> Text:
    """How many there are, and the first few of them, a line each."""
    every = list(lines)
    shown = [f"  {printable(line)}" for line in every[:_NAMED]]
    more = [f"  and {len(every) - _NAMED:,} more"] if len(every) > _NAMED else []
    return Text("\n".join([f"{len(every):,}", *shown, *more]), no_wrap=True, overflow="ellipsis")


def _public(report: AuditReport) -> str:
    return f"{report.public.images:,} public ones that cost nothing"


def _backups(report: AuditReport) -> str:
    backups = f"{counted(report.backups.images, 'backup')}, {report.backups.gigabytes:,.1f} GB,"
    if report.backup_price:
        return f"{backups} at ${report.backup_price:g} per GB"
    return f"{backups} not counted: their Droplets' plans pay"


def _stale(report: AuditReport) -> str:
    return f"{counted(report.stale.images, 'stale image')}, {report.stale.gigabytes:,.1f} GB,"


def _group_table(title: str, groups: Sequence[Group], bar: str) -> Table:
    table = Table(
        Column(title, width=20, no_wrap=True, overflow="ellipsis"),
        Column("images", justify="right", min_width=8, no_wrap=True),
        Column("USD/month", justify="right", min_width=10, no_wrap=True),
        Column("GB", justify="right", min_width=12, no_wrap=True),
        Column("", style="blue", width=len(bar), no_wrap=True),  # beside the GB, which it shows
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
    )
    largest = max((group.gigabytes for group in groups), default=0.0)
    for group in _first(groups):
        table.add_row(
            Text(printable(group.key)),
            f"{group.images:,}",
            f"{group.monthly_cost:,.2f}",
            f"{group.gigabytes:,.1f}",
            bar[: round(len(bar) * group.gigabytes / largest)] if largest else "",
        )
    return table


def _first(groups: Sequence[Group]) -> Sequence[Group]:
    """The groups that are shown; those beyond become one."""
    if len(groups) <= _ROWS:
        return groups
    rest = groups[_ROWS - 1 :]
    others = Group(
        f"({len(rest):,} others)",
        sum(group.images for group in rest),
        sum(group.gigabytes for group in rest),
        sum(group.monthly_cost for group in rest),
    )
    return (*groups[: _ROWS - 1], others)


def _side_by_side(left: RenderableType, right: RenderableType) -> Table:
    grid = Table.grid(padding=(0, 4))
    grid.add_row(left, right)
    return grid


def _findings(report: AuditReport, *, wide: bool) -> Iterable[RenderableType]:
    if not report.findings_total:
        yield Text("No findings: no rule found anything.\n")
        return
    yield _rules_table(report.findings_by_rule)
    yield ""
    if report.findings:
        shown = f"The worst {len(report.findings):,} of {counted(report.findings_total, 'finding')}"
        yield Text(shown, style="bold")
        yield _findings_table(report.findings, wide=wide)
        yield ""


def _rules_table(summaries: Iterable[RuleSummary]) -> Table:
    table = Table(
        Column("Findings", max_width=24),
        Column("worst", no_wrap=True),
        Column("images", justify="right", no_wrap=True),
        Column("GB", justify="right", no_wrap=True),
        Column("USD/month", justify="right", no_wrap=True),
        Column("what to do"),
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
    )
    for summary in summaries:
        table.add_row(
            _one_line(summary.rule),
            _severity(summary.severity),
            f"{summary.findings:,}",
            f"{summary.gigabytes:,.1f}",
            f"{summary.monthly_cost:,.2f}",
            _one_line(summary.action),
        )
    return table


def _findings_table(findings: Iterable[Finding], *, wide: bool) -> Table:
    table = Table(
        Column("", no_wrap=True, min_width=6),
        Column("id", justify="right", no_wrap=True, min_width=9),
        Column("name", ratio=3 if wide else None),
        Column("finding", ratio=3 if wide else None),
        Column("GB", justify="right", no_wrap=True, min_width=5),
        Column("USD/month", justify="right", no_wrap=True, min_width=9),
        box=None,
        padding=(0, 2, 0, 0),
        header_style="bold",
        expand=wide,
    )
    if wide:
        for head in ("regions", "tags", "what to do"):
            table.add_column(head, ratio=2)
    for finding in findings:
        more = (",".join(finding.regions), ",".join(finding.tags), finding.action) if wide else ()
        table.add_row(
            _severity(finding.severity),
            str(finding.image_id),
            _one_line(f"{finding.account}: {finding.name}" if finding.account else finding.name),
            _one_line(finding.detail),
            f"{finding.gigabytes:,.1f}",
            f"{finding.monthly_cost:,.2f}",
            *map(_one_line, more),
        )
    return table


def _one_line(text: str) -> Text:
    # Not the column's own no_wrap: rich takes width only from columns that may wrap.
    return Text(printable(text), no_wrap=True, overflow="ellipsis")


def _severity(severity: Severity) -> Text:
    return Text(severity.name.lower(), style=_STYLES[severity])
