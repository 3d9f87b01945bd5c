"""The command `audit`: its options and the output of its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import click

from do_images_async.audit import (
    PRICE,
    AuditReport,
    Baseline,
    Rule,
    Severity,
    combined,
    compare,
    duplicate_names,
    failed_import,
    near_retirement,
    older_than,
    orphaned_backups,
    orphaned_snapshots,
    oversized,
    required_tags,
    retired,
    single_region,
    stuck_import,
    untagged,
)
from do_images_async.audit.rules import OF_PUBLIC_IMAGES, RULE_NAMES
from do_images_async.cli.accounts import Account, Reading, Result, demo_client, read_accounts
from do_images_async.cli.checked import CheckedCommand
from do_images_async.cli.connection import check_one_token
from do_images_async.cli.files import INPUT_FILE, is_same
from do_images_async.cli.inputs import DropletImages, read_baseline, read_droplets
from do_images_async.cli.named_accounts import Owners, account_option, connections_of
from do_images_async.cli.options import AMOUNT, USD, client_options, file_option, options_given, split, watch
from do_images_async.cli.output import destination, is_file
from do_images_async.cli.reports import FORMATS, report_as
from do_images_async.cli.running import run_interruptibly
from do_images_async.cli.status import Exit, Stopped, complain, message_with_notes

__all__ = ["audit_command"]

_SHOWN = 10
_KEPT = 10_000
_LEVELS = tuple(severity.name.lower() for severity in Severity)


@click.command("audit", cls=CheckedCommand)
@click.option("--demo", is_flag=True, help="Audit an emulated account in this process; needs no token.")
@click.option("--images", default=5000, type=click.IntRange(0, 100_000), help="Private images of the demo.")
@click.option("--seed", default=7, help="What the demo's images are drawn from.")
@account_option
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    help="Format: a report to read, all of it as JSON, the findings as CSV, or a page to look at.",
)
@file_option
@click.option(
    "--baseline",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Compare with this earlier report, made with -o json; if it is --file too, the first run has none.",
)
@click.option("--fail-on", type=click.Choice(_LEVELS), help="Exit with 1 if a finding is as severe.")
@click.option(
    "--older-than", "days", default=365.0, type=AMOUNT, metavar="DAYS", help="What is older is a finding."
)
@click.option(
    "--oversized", "gigabytes", default=50.0, type=AMOUNT, metavar="GB", help="What is larger is a finding."
)
@click.option(
    "--stuck", "hours", default=24.0, type=AMOUNT, metavar="HOURS", help="So long may an import take."
)
@click.option(
    "--require-tag",
    "tags",
    multiple=True,
    metavar="TAGS",
    help="A tag, or a pattern as team-*, that each image must have.",
)
@click.option(
    "--ignore-rule",
    "ignored_rules",
    multiple=True,
    type=click.Choice(RULE_NAMES),
    help="Leave the findings of this rule out; repeat it for several.",
)
@click.option(
    "--ignore-tag",
    "ignored_tags",
    multiple=True,
    metavar="TAGS",
    help="Look for nothing in images with this tag, or pattern; they still count in the totals.",
)
@click.option(
    "--droplets",
    type=INPUT_FILE,
    metavar="FILE",
    help="What `doctl compute droplet list -o json` prints: an image that a Droplet uses is never to be "
    "deleted, and backups and snapshots whose Droplet is gone are found.",
)
@click.option("--price", default=PRICE, type=USD, metavar="USD", help="Price of a GB for a month.")
@click.option(
    "--price-date",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="When you looked the price up; the report shows it.",
)
@click.option(
    "--backup-price",
    default=0.0,
    type=USD,
    metavar="USD",
    help="The same for backups; 0 if your Droplets' plans pay for them.",
)
@click.option("--concurrency", default=4, type=click.IntRange(1, 100), help="Pages read at once.")
@click.option(
    "--top",
    type=click.IntRange(0),
    show_default=f"{_SHOWN}; as data all; as html some of each rule",
    help="Findings shown, the worst first.",
)
@client_options
def audit_command(
    *,
    accounts: tuple[str, ...],
    form: str,
    file: Path | None,
    baseline: Path | None,
    fail_on: str | None,
    top: int | None,
    **options: Any,
) -> int:
    """Report totals, cost and what is wrong, the worst first.

    Costs two requests for every 200 images, the provider's public ones included: the list is read again
    until it has come to rest, so that none is missed.

    \b
    Examples:
      do-images audit --demo
      do-images audit --older-than 180 --top 20 -o html --file report.html
      do-images audit -o json --file today.json --baseline yesterday.json --fail-on high
      do-images audit --account prod=PROD_TOKEN --account lab=LAB_TOKEN
      do-images audit -o json | jq '.findings[] | select(.rule == "old") | .image_id'
    """
    _check_demo(accounts, options)
    _check_form(form, baseline, file)
    earlier = _earlier(baseline, file)
    shown = _SHOWN if top is None and form == "text" else top
    # A comparison needs all findings, and so does the choice of some of each rule.
    keep = None if shown is None or earlier is not None else max(shown, _KEPT)
    sources = _accounts(accounts, options)
    with destination(file) as target:
        owners = Owners()
        results = run_interruptibly(read_accounts(sources, _reading(options, keep), owners))
        report, parts = _report(sources, results, keep)
        if earlier is not None:
            _question(earlier, baseline, sources, results, owners)
            report = attrs.evolve(report, comparison=compare(report, earlier))
        label = _label(options, sources)
        for text in report_as(form, report, parts, shown, label, to_file=is_file(file)):
            target.write(text, styled=form == "text", data=form != "text")
        if any(result.interrupted for result in results):
            raise Stopped(Exit.INTERRUPTED, f"{report.incomplete}: the report is partial", partial=True)
        if not report.complete:
            raise Stopped(Exit.INCOMPLETE, f"incomplete: {report.why_incomplete}", partial=True)
    return Exit.OK if fail_on is None else _status(report, fail_on, file)


def _check_form(form: str, baseline: Path | None, file: Path | None) -> None:
    """Raise UsageError for options without effect on the format, and for a baseline that would be lost."""
    if form == "csv" and (given := options_given(("baseline", "price_date"))):
        raise click.UsageError(f"{given[0]} is for the other formats: CSV has the findings alone")
    if baseline is None or file is None or not is_file(file) or not is_same(baseline, file):
        return
    if form != "json":
        raise click.UsageError(
            f"{baseline} would be no report to compare with any more: add -o json, or name another --file"
        )
    if given := options_given(("top",)):
        raise click.UsageError(
            f"the next run compares with all findings in {baseline}: leave {given[0]} away"
        )


def _earlier(baseline: Path | None, file: Path | None) -> Baseline | None:
    """Return the report to compare with; None if there is none, or this run is the first to write it."""
    if baseline is None:
        return None
    if file is not None and not baseline.exists() and is_same(baseline, file):
        complain(f"no earlier report to compare with: {baseline} is not there yet")
        return None
    return read_baseline(baseline)


def _check_demo(accounts: Sequence[str], options: dict[str, Any]) -> None:
    """Raise UsageError for options of the demo without it, and for those of a connection with it."""
    if options["demo"]:
        check_one_token(options, "--demo", *(["--account"] if accounts else []))
    given = options_given(("proxy", "timeout", "retries") if options["demo"] else ("images", "seed"))
    if given and options["demo"]:
        raise click.UsageError(f"--demo and {given[0]} exclude each other")
    if given:
        raise click.UsageError(f"{given[0]} is for the demo: add --demo")


def _accounts(named: Sequence[str], options: dict[str, Any]) -> list[Account]:
    if options["demo"]:
        return [Account(name=None, client=demo_client(options["images"], options["seed"]))]
    connections = connections_of(named, options)
    return [Account(name=name, client=each.open()) for name, each in connections.items()]


def _reading(options: dict[str, Any], keep: int | None) -> Reading:
    looked_up = options["price_date"]
    used = read_droplets(options["droplets"]) if options["droplets"] else None
    return Reading(
        concurrency=options["concurrency"],
        watch=watch(options),
        options={
            "rules": _rules(options, used),
            "price": options["price"],
            "price_date": looked_up.date() if looked_up else None,
            "backup_price": options["backup_price"],
            "keep": keep,
            "ignore_rules": options["ignored_rules"],
            "ignore_tags": _tags(options["ignored_tags"], "--ignore-tag"),
            "in_use": None if used is None else used.all,
        },
    )


def _rules(options: dict[str, Any], used: DropletImages | None) -> tuple[Rule, ...]:
    tags = _tags(options["tags"], "--require-tag")
    orphaned = (orphaned_backups(used.all), orphaned_snapshots(used.all)) if used else ()
    return (
        older_than(options["days"]),
        oversized(options["gigabytes"]),
        required_tags(*tags) if tags else untagged(),
        failed_import(),
        stuck_import(options["hours"]),
        retired(),
        single_region(),
        duplicate_names(),
        near_retirement(),
        *orphaned,
    )


def _tags(values: tuple[str, ...], option: str) -> list[str]:
    for value in values:
        if not all(part.strip() for part in value.split(",")):
            raise click.BadParameter(f"{value!r} holds an empty tag.", param_hint=option)
    return split(values)


def _report(
    accounts: Sequence[Account], results: Sequence[Result], keep: int | None
) -> tuple[AuditReport, dict[str, AuditReport]]:
    """Return the report over all accounts, and one for each account if there are several."""
    if accounts[0].name is None:
        (result,) = results
        if result.report is None:
            raise cast("Exception", result.error)
        return result.report, {}
    parts: dict[str, AuditReport] = {}
    failed: list[str] = []
    for account, result in zip(accounts, results, strict=True):
        name = cast("str", account.name)
        if result.report is not None:
            parts[name] = result.report
            continue
        failed.append(f"{name} was not read")
        complain(f"{name}: {message_with_notes(result.error) if result.error else ''}")
    if not parts:
        raise Stopped(Exit.API_ERROR, "no account could be read")
    whole = combined(parts, keep=keep)
    if failed:
        reasons = [*failed, *([whole.why_incomplete] if whole.why_incomplete else [])]
        whole = attrs.evolve(whole, incomplete="; ".join(reasons))
    return whole, parts


def _question(
    earlier: Baseline,
    path: Path | None,
    accounts: Sequence[Account],
    results: Sequence[Result],
    owners: Owners,
) -> None:
    """Say on stderr which accounts have none of the images that the baseline has findings about.

    Nothing else shows that a token is another account's. Images without findings are not in a report, so
    these images may also have been deleted.
    """
    for account, result in zip(accounts, results, strict=True):
        found = [each for each in earlier.findings if each.account == account.name]
        ids = {each.image_id for each in found if each.rule not in OF_PUBLIC_IMAGES}
        whole = result.report is not None and result.report.complete
        if whole and ids and not owners.has_any(account.name, ids):
            complain(
                f"{account.name or 'this account'} has none of the images with findings in {path}: unless "
                "all were deleted since, that is a report of another account"
            )


def _label(options: dict[str, Any], accounts: Sequence[Account]) -> str:
    if options["demo"]:
        return f"an emulated account of {options['images']:,} private images, seed {options['seed']}"
    names = [account.name for account in accounts if account.name]
    if len(names) > 1:
        return f"{len(names)} accounts: {', '.join(names)}"
    return names[0] if names else "your account"


def _status(report: AuditReport, fail_on: str, file: Path | None) -> int:
    """Return the exit status; say on stderr why it is 1, for a report in a file is seen by nobody."""
    least = Severity[fail_on.upper()]
    if all(each.severity < least for each in report.findings_by_rule):
        return Exit.OK
    found = sum(each.severity >= least for each in report.findings)
    more = "or more " if found == len(report.findings) < report.findings_total else ""
    place = f"; the report is in {file}" if is_file(file) else ""
    complain(
        f"findings as severe as --fail-on {fail_on}: {found:,} {more}of {report.findings_total:,}{place}"
    )
    return Exit.FINDINGS
