"""Planning the retention of 20,000 images, beside the strict listing that it needs."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from datetime import UTC, datetime

import attrs

from benchmarks.alternatives import TOKEN, ample_limiter
from benchmarks.measure import Result, Sample, at_most, ratio
from benchmarks.server import running_server
from do_images_async import ImagesAPI, ImageType, WholeListing
from do_images_async.cli.prune_plan import PrunePlan, account_plan
from do_images_async.cli.prune_text import plan_as_json, plan_as_text
from do_images_async.retention import GroupBy, Plan, Policy, by_name, by_pattern, plan

__all__ = ["run"]

IMAGES = 20_000
ROUNDS = 5
POLICY = Policy(keep_last=3, keep_daily=7, keep_weekly=4, keep_monthly=12)
FEW_GROUPS = by_pattern(r"(?P<group>web-\d\d)\..*")
ONE_GROUP = by_name("web-*")
LISTING = "the strict listing, from a server 0 ms away"
PLANNING = "the plan"
TABLE = "the plan, shown as a table"
JSON = "the plan, shown as JSON"


@attrs.frozen
class Round:
    """The seconds for the parts of `prune`: its output includes the planning."""

    listing: float
    planning: float
    table: float
    json: float


async def one_round(url: str) -> tuple[Round, WholeListing]:
    async with ImagesAPI(TOKEN, base_url=url, limiter=ample_limiter()) as api:
        started = time.perf_counter()
        whole = await api.list_whole(private=True)
    listed = time.perf_counter()
    made = planned(whole, FEW_GROUPS)
    decided = time.perf_counter()
    record = PrunePlan(
        made_at=datetime.now(UTC), policy=POLICY, price=0.06, accounts=(account_plan(None, made, price=0.06),)
    )
    assert plan_as_text(record)
    table = time.perf_counter()
    assert plan_as_json(record)
    shown = time.perf_counter()
    return Round(listed - started, decided - listed, table - listed, decided - listed + shown - table), whole


def planned(whole: WholeListing, group_by: GroupBy) -> Plan:
    return plan(whole, POLICY, group_by=group_by, now=datetime.now(UTC), types=tuple(ImageType))


def bytes_an_image(whole: WholeListing, group_by: GroupBy) -> float:
    """Return the peak memory of planning, in bytes for each image."""
    tracemalloc.start()
    try:
        planned(whole, group_by)
        return tracemalloc.get_traced_memory()[1] / len(whole)
    finally:
        tracemalloc.stop()


def run() -> Result:
    with running_server(images=IMAGES, latency=0.0) as url:
        rounds = [asyncio.run(one_round(url)) for _ in range(ROUNDS)]
    whole = rounds[-1][1]
    times = [each for each, _ in rounds]
    samples = {
        LISTING: Sample(tuple(each.listing for each in times)),
        PLANNING: Sample(tuple(each.planning for each in times)),
        TABLE: Sample(tuple(each.table for each in times)),
        JSON: Sample(tuple(each.json for each in times)),
    }
    one, few = bytes_an_image(whole, ONE_GROUP), bytes_an_image(whole, FEW_GROUPS)
    return Result(
        unit="s",
        samples=samples,
        checks=(
            at_most("the plan, against the listing", ratio(samples[PLANNING], samples[LISTING]), 1.0),
            at_most("seconds for the plan, as a table", samples[TABLE].median, 2.0),
            at_most("seconds for the plan, as JSON", samples[JSON].median, 2.0),
            at_most("memory of a plan in 17 groups, against one in 1 group", few / one, 1.5),
        ),
        notes=(
            f"wall time; {IMAGES:,} images in 17 groups, all types",
            f"planning takes {few:,.0f} bytes an image at its peak in 17 groups, {one:,.0f} in one",
        ),
    )
