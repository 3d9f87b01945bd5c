"""The command `prune`: its options, the plan for a listing, and the deletions of a plan."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import click

from do_images_async import ImagePage, WholeListing
from do_images_async.audit import PRICE
from do_images_async.audit.settings import matches_tag
from do_images_async.cli.checked import CheckedCommand
from do_images_async.cli.confirmation import check_somebody_is_there, confirm
from do_images_async.cli.connection import Connection
from do_images_async.cli.files import INPUT_FILE, OUTPUT_FILE
from do_images_async.cli.in_flight import Interruption
from do_images_async.cli.inputs import read_droplets
from do_images_async.cli.journal import open_journal
from do_images_async.cli.named_accounts import Owners, account_option, connections_of
from do_images_async.cli.options import FRACTION, USD, client_options, file_option, options_given, watch
from do_images_async.cli.output import Target, destination, is_file, told_if_lost, write_file
from do_images_async.cli.progress import Watch, show_progress
from do_images_async.cli.prune_apply import CHANGED, FAILED, UNKNOWN, Removal, Removed, remove_all
from do_images_async.cli.prune_plan import PrunePlan, account_plan, read_plan
from do_images_async.cli.prune_policy import POLICY_PARAMETERS, policy_of, policy_options, selection_of
from do_images_async.cli.prune_text import (
    FORMATS,
    outcomes_as_text,
    plan_as_csv,
    plan_as_json,
    plan_as_text,
    sizes,
    summary,
)
from do_images_async.cli.running import run_interruptibly
from do_images_async.cli.status import Exit, Stopped, complain, message_with_notes
from do_images_async.cli.text import counted
from do_images_async.errors import DOImagesError
from do_images_async.retention import Policy
from do_images_async.retention import plan as decide

__all__ = ["prune_command"]

Connections = Mapping[str | None, Connection]


@attrs.frozen
class _Report:
    """The output of the command.

    Attributes:
        target: where it is written.
        form: its format.
        to_file: whether it is a file, so that nobody sees the plan before the question.
        changes: what was deleted, for stderr if the output is lost.
    """

    target: Target
    form: str
    to_file: bool = attrs.field(kw_only=True)
    changes: list[str] = attrs.field(kw_only=True)

    def write_plan(self, plan: PrunePlan) -> None:
        if self.form == "text":
            self.target.write(plan_as_text(plan, to_file=self.to_file), styled=True)
        else:
            writer = plan_as_json if self.form == "json" else plan_as_csv
            self.target.write(writer(plan), data=True)

    def write_outcomes(self, plan: PrunePlan, outcomes: Sequence[Removed]) -> None:
        if self.form == "text":
            self.target.write("\n" * bool(outcomes) + outcomes_as_text(outcomes))
        else:
            writer = plan_as_json if self.form == "json" else plan_as_csv
            self.target.write(writer(plan, outcomes), data=True)


@click.command("prune", cls=CheckedCommand)
@policy_options
@click.option(
    "--droplets",
    multiple=True,
    type=INPUT_FILE,
    metavar="FILE",
    help="What `doctl compute droplet list -o json` prints: keep what these Droplets use.",
)
@click.option("--price", default=PRICE, type=USD, metavar="USD", help="Price of a GB for a month.")
@click.option("--apply", is_flag=True, help="Delete what the plan removes, after showing it and asking.")
@click.option(
    "--plan", "plan_file", type=OUTPUT_FILE, metavar="FILE", help="Write the plan there, too, as JSON."
)
@click.option(
    "--apply-plan", type=INPUT_FILE, metavar="FILE", help="Delete what this plan removes, and nothing else."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--journal",
    type=OUTPUT_FILE,
    metavar="FILE",
    help="Append a line of JSON before and after each deletion; --apply-plan goes on where it ends.",
)
@click.option(
    "--max-delete", type=click.IntRange(0), metavar="N", help="Delete nothing if it would be more, in all."
)
@click.option(
    "--max-delete-fraction",
    type=FRACTION,
    default=0.5,
    metavar="FRACTION",
    help="Delete nothing if it would be more than this part of an account's images in groups.",
)
@account_option
@click.option("-o", "--output", "form", type=click.Choice(FORMATS), default="text", help="Format.")
@file_option
@client_options
def prune_command(
    *,
    apply: bool,
    plan_file: Path | None,
    apply_plan: Path | None,
    yes: bool,
    form: str,
    file: Path | None,
    **options: Any,
) -> int:
    """Keep what a policy says, and delete the rest.

    Without --apply it shows the plan and changes nothing. The rules are those of restic and borg: an image is
    kept if any rule keeps it, and --keep-daily 7 counts days that have an image. Public images, images that
    are not available, of another type, or without a date that has passed are kept in any case.

    The plan costs two requests for every 200 images: the list is read until it has come to rest. A deletion
    costs two requests: the image is read first, and not deleted if its name, date, type, status or being
    public has changed since the plan, or it has got a tag to keep. When it is interrupted, it sends nothing
    more and waits ten seconds for deletions in flight; interrupted again, it leaves them.

    \b
    Examples:
      do-images prune --name 'web-*' --keep-last 3 --keep-daily 7 --keep-weekly 4
      do-images prune --name 'web-*' --keep-daily 7 --apply --yes --journal prune.jsonl
      do-images prune --group-by tags --keep-within 30d --plan plan.json
      do-images prune --apply-plan plan.json --journal prune.jsonl
    """
    if apply_plan is None:
        _check_applied(apply, yes=yes, journal=options["journal"])
        return _prune(apply, plan_file, yes, form, file, options)
    _check_alone(apply or plan_file is not None)
    plan = read_plan(apply_plan)
    connections = _connections_for(plan, options)
    changes: list[str] = []
    with told_if_lost(changes), destination(file) as target:
        report = _Report(target, form, to_file=is_file(file), changes=changes)
        return _carry_out(plan, connections, report, options, yes=yes, planned_earlier=True)


def _prune(
    apply: bool, plan_file: Path | None, yes: bool, form: str, file: Path | None, options: dict[str, Any]
) -> int:
    policy, selection = policy_of(options), selection_of(options)
    in_use = frozenset[int]().union(*(read_droplets(path).all for path in options["droplets"]))
    if apply and not yes:
        check_somebody_is_there()
    connections = connections_of(options["accounts"], options)
    changes: list[str] = []
    with told_if_lost(changes), destination(file) as target:
        report = _Report(target, form, to_file=is_file(file), changes=changes)
        listings = run_interruptibly(_read(connections, watch(options)))
        _hint_at_unknown_tags(policy, listings.values())
        now = datetime.now(UTC)
        plans = [
            account_plan(
                account,
                decide(
                    listing,
                    policy,
                    group_by=selection.group_by,
                    now=now,
                    time_zone=selection.time_zone,
                    types=selection.types,
                    in_use=in_use,
                ),
                price=options["price"],
            )
            for account, listing in listings.items()
        ]
        plan = PrunePlan(made_at=now, policy=policy, price=options["price"], accounts=tuple(plans))
        if plan_file is not None:
            write_file(plan_file, plan_as_json(plan))
        if apply:
            return _carry_out(plan, connections, report, options, yes=yes)
        report.write_plan(plan)
    if too_many := _too_many(plan, options):
        complain(f"--apply would refuse this: {too_many}")
    elif plan.removed:
        complain("nothing was changed: --apply deletes what is to be removed")
    return Exit.OK


def _check_applied(apply: bool, *, yes: bool, journal: Path | None) -> None:
    """Raise UsageError if nothing is to be deleted and an option is for deletions."""
    for option, given in {"--yes": yes, "--journal": journal is not None}.items():
        if given and not apply:
            raise click.UsageError(f"{option} is for --apply and --apply-plan")


def _hint_at_unknown_tags(policy: Policy, listings: Iterable[WholeListing]) -> None:
    """Say on stderr which of the tags to keep no image has."""
    known = {tag for listing in listings for image in listing for tag in image.tags or ()}
    by_folded = {tag.casefold(): tag for tag in sorted(known)}
    for tag in sorted(each for each in policy.keep_tags - known if not matches_tag(known, [each])):
        similar = by_folded.get(tag.casefold())
        hint = f"; {similar!r} is another tag" if similar else ""
        complain(f"--keep-tag keeps nothing: no image has the tag {tag!r}{hint}")


def _check_alone(has_other_mode: bool) -> None:
    """Raise UsageError if --apply-plan is combined with options that would make another plan."""
    if given := options_given(POLICY_PARAMETERS):
        raise click.UsageError(f"--apply-plan does what the plan says: leave {', '.join(given)} away")
    if has_other_mode:
        raise click.UsageError("--apply-plan excludes --apply and --plan")


def _connections_for(plan: PrunePlan, options: dict[str, Any]) -> Connections:
    """Return the connections to the accounts of a plan.

    Raises:
        UsageError: one is missing, or not in the plan.
    """
    connections = connections_of(options["accounts"], options)
    planned = {each.account for each in plan.accounts}
    if planned != connections.keys():
        names = [f"--account {name}=…" for name in sorted(name for name in planned if name is not None)]
        raise click.UsageError(f"the plan is for {' '.join(names) or 'one account without a name'}")
    return connections


async def _read(connections: Connections, shown: Watch) -> dict[str | None, WholeListing]:
    """Read all accounts at once; raise if one of them can't be read completely, or two seem to be one."""
    owners = Owners()
    tasks = [asyncio.create_task(_read_one(*each, shown, owners)) for each in connections.items()]
    try:
        return dict(zip(connections, await asyncio.gather(*tasks), strict=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_one(
    account: str | None, connection: Connection, shown: Watch, owners: Owners
) -> WholeListing:
    async with connection.open() as api, show_progress(api.limiter, shown, account) as progress:

        def note(page: ImagePage) -> None:
            progress.advance(len(page), page.total)
            owners.add(account, page.images)

        return await api.list_whole(private=True, progress=note)


def _carry_out(
    plan: PrunePlan,
    connections: Connections,
    report: _Report,
    options: dict[str, Any],
    *,
    yes: bool,
    planned_earlier: bool = False,
) -> int:
    """Show the plan, ask, delete, and report; delete nothing if the plan exceeds the limits.

    Raises:
        Stopped: some of the plan was not carried out.
    """
    report.changes[:] = ["nothing was deleted"]
    if report.form == "text":
        report.write_plan(plan)
    if too_many := _too_many(plan, options):
        if report.form != "text":
            report.write_plan(plan)
        raise Stopped(Exit.REFUSED, f"nothing was deleted: {too_many}")
    if plan.removed and not yes:
        check_somebody_is_there()
        if report.form != "text" or report.to_file:
            click.echo(plan_as_text(plan), err=True, nl=False)
        size = sizes(image for each in plan.accounts for image in each.remove)
        confirm(f"Delete {counted(plan.removed, 'image')} ({size})?")
    with open_journal(options["journal"], plan.digest) as journal:
        interruption = Interruption()
        removals = [
            Removal(each, plan.policy, connections[each.account], journal, interruption)
            for each in plan.accounts
        ]
        stopped_by = _remove(removals, watch(options), interruption)
    outcomes = [each for removal in removals for each in removal.outcomes]
    strange = [removal.plan.account for removal in removals if planned_earlier and removal.found_none]
    done = summary(plan, outcomes, strange)
    report.changes[:] = [done]
    report.write_outcomes(plan, outcomes)
    if strange and stopped_by is None:
        raise Stopped(Exit.REFUSED, done, partial=True)
    return _status(plan, outcomes, done, stopped_by)


def _remove(
    removals: list[Removal], shown: Watch, interruption: Interruption
) -> DOImagesError | Stopped | None:
    """Remove the images; return what stopped it, also an interruption: the outcomes are in `removals`."""
    try:
        return run_interruptibly(remove_all(removals, shown), interruption)
    except Stopped as stopped:
        return stopped


def _too_many(plan: PrunePlan, options: Mapping[str, Any]) -> str | None:
    """Return why the plan removes more than the options allow; None if it does not."""
    limit, fraction = options["max_delete"], options["max_delete_fraction"]
    if limit is not None and plan.removed > limit:
        return f"{counted(plan.removed, 'image')} to remove, and --max-delete allows {limit:,}"
    for each in plan.accounts:
        if len(each.remove) > fraction * each.candidates:
            account = f"{each.account}: " if each.account else ""
            share = f"{len(each.remove):,} of {counted(each.candidates, 'image')} to remove"
            return f"{account}{share}, and --max-delete-fraction allows {fraction:g} of them"
    return None


def _status(
    plan: PrunePlan, outcomes: Sequence[Removed], done: str, stopped_by: DOImagesError | Stopped | None
) -> int:
    """Report the outcome on stderr, and return the exit status or raise an error that has one."""
    found = {each.outcome for each in outcomes}
    if isinstance(stopped_by, Stopped) and stopped_by.status is Exit.INTERRUPTED:
        raise Stopped(Exit.INTERRUPTED, f"interrupted: {done}", partial=True)
    if isinstance(stopped_by, Stopped):
        raise Stopped(stopped_by.status, f"{stopped_by}; {done}", partial=True)
    if stopped_by is not None:
        raise Stopped(Exit.API_ERROR, f"{message_with_notes(stopped_by)}; {done}", partial=True)
    if found & {FAILED, UNKNOWN}:
        raise Stopped(Exit.API_ERROR, done, partial=True)
    if CHANGED in found:
        raise Stopped(Exit.REFUSED, done, partial=True)
    complain(done if plan.removed else "nothing to remove")
    return Exit.OK
