"""The quota's file is an older one: it was copied back from a backup, over the file or in its place."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from do_images_async import FileRateLimiter, TokenBucket
from tests.quota.test_file_limiter import Make, make, path
from tests.support.limiters import expect_a_pause_and_pacing, how_long, is_spent, take
from tests.support.servers import eventually
from tests.support.slow import fewer

__all__ = ["make", "path"]  # fixtures

BUCKET = TokenBucket(10, per=60)

Restore = Callable[[Path], None]


def back_up(path: Path) -> None:
    copy(path, path.with_suffix(".backup"))


def copy(source: Path, target: Path) -> None:
    """Copy all tables in a transaction, also while others use the target."""
    with (
        contextlib.closing(sqlite3.connect(source)) as one,
        contextlib.closing(sqlite3.connect(target)) as other,
    ):
        one.backup(other)


def replace_file(path: Path) -> None:
    """Put the backup in the file's place, as most programs for backups do."""
    shutil.copy(path.with_suffix(".backup"), path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    for other in path.parent.glob("quota.db-*"):
        other.unlink()


def overwrite_file(path: Path) -> None:
    copy(path.with_suffix(".backup"), path)


async def spend(limiter: FileRateLimiter, number: int) -> None:
    """Spend permits, and return when the file knows that they were answered."""
    for permit in await take(limiter, number, max_wait=20):
        permit.settle()
    await is_known(limiter)


async def is_known(limiter: FileRateLimiter) -> None:
    """Return when a process has nothing to report."""
    workers = vars(limiter)["_workers"].values()
    await eventually(lambda: not any(worker.has_reports for worker in workers), within=60)


async def test_a_new_process_gets_no_burst_from_a_file_that_was_replaced_by_its_backup(
    make: Make, path: Path
) -> None:
    gone = make(BUCKET)
    await spend(gone, 1)
    back_up(path)
    await spend(gone, 9)
    await gone.aclose()
    replace_file(path)
    await expect_a_pause_and_pacing(make(BUCKET))


async def test_processes_that_are_alive_report_what_the_backup_lacks_and_no_more(
    make: Make, path: Path
) -> None:
    busy, witness = make(BUCKET), make(BUCKET)
    await spend(busy, 2)
    (permit,) = await take(witness, 1)
    permit.release()
    await is_known(witness)
    back_up(path)
    await spend(busy, 3)
    replace_file(path)
    new = make(BUCKET)
    for limiter in (new, busy):
        await how_long(limiter)
    await is_known(busy)
    assert await how_long(new) < 3  # two seconds, and an exchange with the store
    assert new.stats().available == (5,)


@pytest.mark.parametrize("restore", [replace_file, overwrite_file])
async def test_a_backup_that_knows_fewer_requests_is_told_again(
    make: Make, path: Path, restore: Restore
) -> None:
    limiters = [make(BUCKET) for _ in range(2)]
    for limiter in limiters:
        await spend(limiter, 1)
    back_up(path)
    for limiter in limiters:
        await spend(limiter, 4)
    restore(path)
    for limiter in limiters:
        await how_long(limiter)
    for limiter in limiters:
        await is_known(limiter)
        assert await is_spent(limiter)


@pytest.mark.parametrize("restore", fewer([replace_file, overwrite_file]))
async def test_a_backup_that_lacks_a_processs_last_report_is_told_again(
    make: Make, path: Path, restore: Restore
) -> None:
    """Otherwise the process would hold permits for ever that it has given back."""
    limiter = make(TokenBucket(2, per=0.3, margin=0))
    permits = await take(limiter, 2)
    back_up(path)
    for permit in permits:
        permit.settle()
    await is_known(limiter)
    restore(path)
    assert len(await take(limiter, 2, max_wait=20)) == 2
