"""Measure how much a process's peak memory grows while it streams 1,000,000 images.

The growth is counted from the end of the first page.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import aclosing

from benchmarks.alternatives import TOKEN, ample_limiter
from benchmarks.measure import Result, Sample, at_most
from benchmarks.server import running_server
from do_images_async import ImagesAPI
from tests.support.memory import peak_memory

__all__ = ["run"]

IMAGES = 1_000_000
PER_PAGE = 200

MOST_GROWTH = 2.0
"""MiB. The ids of a million images take about one; another one is for prefetched pages and the allocator."""


async def stream(url: str) -> dict[str, float]:
    """Read a listing; return its length, and the peak memory in MiB after the first and the last page."""
    seen = 0
    first = 0.0
    async with (
        ImagesAPI(TOKEN, base_url=url, limiter=ample_limiter()) as api,
        aclosing(api.list(per_page=PER_PAGE)) as images,
    ):
        async for _ in images:
            seen += 1
            if seen == PER_PAGE:
                first = peak_memory()  # nothing is prefetched yet
    return {"seen": seen, "first": first, "last": peak_memory()}


def run(images: int = IMAGES) -> Result:
    with running_server(images=images) as url:
        command = [sys.executable, "-m", "benchmarks.memory", url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
    measured = json.loads(output)
    assert measured["seen"] == images
    samples = {
        "after the first page": Sample((measured["first"],)),
        f"after {images:,} images": Sample((measured["last"],)),
    }
    growth = measured["last"] - measured["first"]
    return Result(
        unit="MiB",
        samples=samples,
        checks=(at_most(f"growth over {images:,} images, in MiB", growth, MOST_GROWTH),),
        notes=("the peak of the resident set, in a process of its own",),
    )


if __name__ == "__main__":
    print(json.dumps(asyncio.run(stream(sys.argv[1]))))
