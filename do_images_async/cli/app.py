"""The commands: what they take, what they run, and what becomes of what goes wrong."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from enum import IntEnum

import attrs
import click
from click.exceptions import Exit as Exited

from do_images_async import Image, ImagesAPI, __version__, errors
from do_images_async.audit import (
    PRICE,
    AuditReport,
    Rule,
    audit,
    failed_import,
    older_than,
    oversized,
    retired,
    stuck_import,
    untagged,
)
from do_images_async.cli.emulator import emulator_command
from do_images_async.cli.progress import Progress, show_progress
from do_images_async.cli.text import counted, printable

__all__ = ["run"]

_SHOWN = 10
_KEPT = 1000


class Exit(IntEnum):
    """What the process ends with; 1 is kept for findings."""

    OK = 0
    USAGE = 2
    API_ERROR = 3
    INCOMPLETE = 4
    INTERRUPTED = 130
    BROKEN_PIPE = 141


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status; what goes wrong becomes one line on stderr.

    Args:
        arguments: what stands behind the command's name; None takes them from `sys.argv`.
    """
    try:
        status = main.main(arguments, prog_name="do-images", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except errors.IncompleteListingError as error:
        return _fail(Exit.INCOMPLETE, f"incomplete, so nothing is reported: {error}")
    except errors.DOImagesError as error:
        return _fail(Exit.API_ERROR, str(error))
    except (KeyboardInterrupt, click.Abort):
        return _fail(Exit.INTERRUPTED, "interrupted before the report was complete")
    return status if isinstance(status, int) else Exit.OK


def amount(value: str) -> float:
    """A number from 0; neither infinite nor NaN."""
    number = float(value)
    if not 0 <= number < math.inf:
        raise click.BadParameter(f"{value} is not a number from 0.")
    return number


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
)
@click.version_option(__version__, prog_name="do-images")
def main() -> None:
    """Look after the images of a DigitalOcean account.

    The token is read from DIGITALOCEAN_TOKEN, or from DIGITALOCEAN_ACCESS_TOKEN.

    \b
    Example, without an account:
      do-images audit --demo
    """


main.add_command(emulator_command)


@attrs.frozen(kw_only=True)
class Source:
    """Where the images come from: an account, or an emulated one of so many images."""

    demo: bool
    images: int
    seed: int

    @property
    def label(self) -> str:
        if self.demo:
            return f"an emulated account of {self.images:,} private images, seed {self.seed}"
        return "your account"


@main.command("audit")
@click.option("--demo", is_flag=True, help="Audit an emulated account in this process; needs no token.")
@click.option("--images", default=5000, type=click.IntRange(0), help="Private images of the demo.")
@click.option("--seed", default=7, help="What the demo's images are drawn from.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--price", default=PRICE, type=amount, metavar="USD", help="Price of a GB for a month.")
@click.option(
    "--backup-price",
    default=0.0,
    type=amount,
    metavar="USD",
    help="The same for backups; 0 if your Droplets' plans pay for them.",
)
@click.option(
    "--older-than", "days", default=365.0, type=amount, metavar="DAYS", help="What is older is a finding."
)
@click.option(
    "--oversized", "gigabytes", default=50.0, type=amount, metavar="GB", help="What is larger is a finding."
)
@click.option("--concurrency", default=4, type=click.IntRange(1, 100), help="Pages read at once.")
@click.option(
    "--top",
    type=click.IntRange(0),
    show_default=f"{_SHOWN}; with --json {_KEPT:,}",
    help="Findings shown, the worst first.",
)
def audit_command(
    *,
    demo: bool,
    images: int,
    seed: int,
    as_json: bool,
    price: float,
    backup_price: float,
    days: float,
    gigabytes: float,
    concurrency: int,
    top: int | None,
) -> int:
    """Read every image and report totals, cost, and what is wrong, the worst first.

    Costs one request for every 200 images, the provider's public ones included.

    \b
    Examples:
      do-images audit --demo
      DIGITALOCEAN_TOKEN=... do-images audit --older-than 180 --top 20
      do-images audit --json | jq '.findings[] | select(.rule == "old") | .image_id'
    """
    source = Source(demo=demo, images=images, seed=seed)
    rules = (
        *(older_than(days), oversized(gigabytes), untagged()),
        *(failed_import(), stuck_import(), retired()),
    )
    keep = (_KEPT if as_json else _SHOWN) if top is None else top
    report = asyncio.run(_audit(source, rules, price, backup_price, keep, concurrency))
    _write(_as_json(report) if as_json else _as_text(report, source))
    if report.complete:
        return Exit.OK
    return _fail(
        Exit.INCOMPLETE, f"incomplete: {counted(report.images, 'image')} read of {report.reported_total:,}"
    )


async def _audit(
    source: Source, rules: Sequence[Rule], price: float, backup_price: float, keep: int, concurrency: int
) -> AuditReport:
    async with _client(source) as api, show_progress(api.limiter) as progress:
        started = time.perf_counter()
        report = await audit(
            _listed(api, progress, concurrency),
            rules=rules,
            price=price,
            backup_price=backup_price,
            keep=keep,
        )
        return attrs.evolve(
            report,
            reported_total=progress.total,
            requests=api.limiter.stats().granted,
            pages=progress.pages,
            elapsed=round(time.perf_counter() - started, 3),
        )


async def _listed(api: ImagesAPI, progress: Progress, concurrency: int) -> AsyncGenerator[Image, None]:
    async with aclosing(api.list_pages(concurrency=concurrency, strict=True)) as pages:
        async for page in pages:
            progress.advance(len(page), page.total)
            for image in page.images:
                yield image


def _client(source: Source) -> AbstractAsyncContextManager[ImagesAPI]:
    if source.demo:
        return _demo_client(source)
    try:
        return ImagesAPI.from_env()
    except ValueError as error:
        raise click.ClickException(f"{error}; to see it work without an account: --demo") from None


@asynccontextmanager
async def _demo_client(source: Source) -> AsyncGenerator[ImagesAPI, None]:
    from do_images_async.testing import ImagesEmulator  # a server, which only the demo needs

    async with (
        ImagesEmulator(images=source.images, seed=source.seed, journal_limit=0) as emulator,
        ImagesAPI(emulator.token, base_url=emulator.url) as api,
    ):
        yield api


def _as_json(report: AuditReport) -> str:
    return json.dumps(report.to_dict(), indent=2) + "\n"


def _as_text(report: AuditReport, source: Source) -> str:
    from do_images_async.cli.render import report_text  # rich takes its time to import

    return report_text(report, source.label)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has left, as `head` does; the interpreter must not fail to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Exited(Exit.BROKEN_PIPE) from None
    except OSError as error:
        raise click.ClickException(f"the report could not be written: {error.strerror}") from None


def _fail(status: Exit, message: str) -> Exit:
    click.echo(f"do-images: {printable(message)}", err=True)
    return status
