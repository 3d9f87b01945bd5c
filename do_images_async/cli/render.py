"""A report for the terminal: plain text in a pipe, columns side by side if there is room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from do_images_async.audit import AuditReport, Comparison, Finding, Group, RuleSummary
from do_images_async.audit.report import in_utc
from do_images_async.cli.basis import basis, without_size
from do_images_async.cli.fitting import Field, fitted_table
from do_images_async.cli.terminal import text_console
from do_images_async.cli.text import counted, printable

__all__ = ["render_report", "report_text"]

_WIDE = 150
_ROWS = 15
_NAMED = 5
_GUTTER = 4
_STYLES = {
    "high": "bold red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
}


def report_text(
    report: AuditReport,
    source: str,
    parts: Mapping[str, AuditReport] | None = None,
    *,
    to_file: bool = False,
) -> str:
    """Return the report as text for stdout, with the colours and width that stdout allows.

    Args:
        report: what to show.
        source: whose images they are, in words.
        parts: the reports of the accounts, where there are several.
        to_file: whether it is written to a file, which gets no colours.
    """
    console = text_console(to_file=to_file)
    ascii_only = console.options.ascii_only
    with console.capture() as capture:
        console.print(render_report(report, source, console.width, parts or {}, ascii_only=ascii_only))
    # A name may hold characters that the terminal's encoding lacks; tables pad each line to their width.
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
    """Return the report as an object that rich can print.

    Args:
        report: what to show.
        source: whose images they are, in words.
        width: the width in characters.
        parts: the reports of the accounts, where there are several.
        ascii_only: whether bars are drawn without block characters.
    """
    wide = width >= _WIDE
    room = (width - _GUTTER) // 2 if wide else width
    bar = "#" if ascii_only else "█"

    def table(title: str, groups: Sequence[Group]) -> Table:
        return _group_table(title, groups, bar, room)

    left = Lines(table("By type", report.by_type), "", table("By age", report.by_age), "")
    right = Lines(
        table("By region", report.by_region), "", table("By distribution", report.by_distribution), ""
    )
    return Lines(
        *_headline(report, source),
        _summary(report),
        "",
        *_accounts(parts, width),
        *(_comparison(report.comparison) if report.comparison else ()),
        _side_by_side(left, right) if wide else Lines(left, right),
        *_findings(report, width),
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
    if report.unsized:
        table.add_row("", Text(f"at least: {without_size(report)}", style="yellow"))
    table.add_row("Savings", f"${report.savings:,.2f} a month if {_stale(report)} were deleted")
    return table


def _price(report: AuditReport) -> str:
    looked_up = f" (of {report.price_date})" if report.price_date else ""
    return f"${report.price:g} per GB{looked_up}"


def _accounts(parts: Mapping[str, AuditReport], width: int) -> Iterable[RenderableType]:
    if not parts:
        return
    fields = (
        Field("By account", min_width=12, max_width=24),
        Field("images", rank=2, numeric=True),
        Field("GB", rank=3, numeric=True),
        Field("USD/month", rank=4, numeric=True),
        Field("savings", rank=5, numeric=True),
        Field("findings", rank=1, numeric=True),
        Field("", style="bold red"),
    )
    rows = [
        (
            name,
            f"{part.images:,}",
            f"{part.gigabytes:,.1f}",
            f"{part.monthly_cost:,.2f}",
            f"{part.savings:,.2f}",
            f"{part.findings_total:,}",
            "" if part.complete else "INCOMPLETE",
        )
        for name, part in parts.items()
    ]
    yield fitted_table(fields, rows, width)
    yield ""


def _comparison(comparison: Comparison) -> Iterable[RenderableType]:
    total = comparison.total
    yield Text(f"Since {in_utc(comparison.since)}", style="bold")
    table = Table.grid(Column(), Column(), padding=(0, 2))
    growth = f"{total.images:+,} images, {total.gigabytes:+,.1f} GB, {total.monthly_cost:+,.2f} USD a month"
    table.add_row("total", growth)
    table.add_row("new", _named(f"{each.rule} {each.image_id} {each.name}" for each in comparison.new))
    table.add_row("gone", _named(f"{each.rule} {each.image_id} {each.name}" for each in comparison.gone))
    table.add_row(
        "grown", _named(f"{each.group} {each.key} {each.gigabytes:+,.1f} GB" for each in comparison.grown)
    )
    yield table
    if comparison.differences:
        yield Text("Made differently; findings of these rules and accounts are not compared:", style="dim")
        yield from (Text(f"  {printable(each)}", style="dim") for each in comparison.differences)
    if not comparison.exact:
        yield Text("A report does not hold all its findings: new and gone are those it holds.", style="dim")
    yield ""


def _named(lines: Iterable[str]) -> Text:
    """Return the number of lines, and the first few of them."""
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


def _group_table(title: str, groups: Sequence[Group], bar: str, width: int) -> Table:
    largest = max((group.gigabytes for group in groups), default=0.0)
    long = max(8, min(32, width - 60))
    fields = (
        Field(title, min_width=18, max_width=20, pad=20),
        Field("images", rank=1, numeric=True, pad=8),
        Field("USD/month", rank=2, numeric=True, pad=10),
        Field("GB", numeric=True, pad=12),
        Field("", rank=3, style="blue", pad=long),  # beside the GB, which it shows
    )
    rows = [
        (
            group.key,
            f"{group.images:,}",
            f"{group.monthly_cost:,.2f}",
            f"{group.gigabytes:,.1f}",
            bar * round(long * group.gigabytes / largest) if largest else "",
        )
        for group in _first(groups)
    ]
    return fitted_table(fields, rows, width)


def _first(groups: Sequence[Group]) -> Sequence[Group]:
    """Return the groups that are shown; the others are added up to one."""
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
    grid = Table.grid(padding=(0, _GUTTER))
    grid.add_row(left, right)
    return grid


def _findings(report: AuditReport, width: int) -> Iterable[RenderableType]:
    if not report.findings_total:
        yield Text("No findings: no rule found anything.\n")
        return
    yield _rules_table(report.findings_by_rule, width)
    yield ""
    if report.findings:
        shown = f"The worst {len(report.findings):,} of {counted(report.findings_total, 'finding')}"
        yield Text(shown, style="bold")
        yield _findings_table(report.findings, width)
        yield ""


def _rules_table(summaries: Iterable[RuleSummary], width: int) -> Table:
    fields = (
        Field("Findings", min_width=16, max_width=24),
        Field("worst", styles=_STYLES),
        Field("images", rank=1, numeric=True),
        Field("GB", rank=3, numeric=True),
        Field("USD/month", rank=2, numeric=True),
        Field("what to do", min_width=12),
    )
    rows = [
        (
            each.rule,
            each.severity.name.lower(),
            f"{each.findings:,}",
            f"{each.gigabytes:,.1f}",
            f"{each.monthly_cost:,.2f}",
            each.action,
        )
        for each in summaries
    ]
    return fitted_table(fields, rows, width)


def _findings_table(findings: Iterable[Finding], width: int) -> Table:
    wide = width >= _WIDE
    fields = [
        Field("", rank=1, styles=_STYLES, pad=6),
        Field("id", numeric=True, pad=9),
        Field("name", min_width=12),
        Field("finding", min_width=12),
        Field("GB", rank=2, numeric=True, pad=5),
        Field("USD/month", rank=3, numeric=True),
    ]
    if wide:
        fields += [Field(head, min_width=12) for head in ("regions", "tags", "what to do")]
    rows = [
        (
            each.severity.name.lower(),
            str(each.image_id),
            f"{each.account}: {each.name}" if each.account else each.name,
            each.detail,
            f"{each.gigabytes:,.1f}",
            f"{each.monthly_cost:,.2f}",
            *((",".join(each.regions), ",".join(each.tags), each.action) if wide else ()),
        )
        for each in findings
    ]
    return fitted_table(fields, rows, width)
