"""Peak memory of a process that streams 1,000,000 images, beyond what it was after the first page."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import aclosing

from benchmarks.measure import Result, Sample, at_most
from benchmarks.peers import TOKEN, plenty
from benchmarks.server import running_server
from do_images_async import ImagesAPI
from tests.support.memory import peak_memory

__all__ = ["run"]

IMAGES = 1_000_000
PER_PAGE = 200


async def stream(url: str) -> dict[str, float]:
    """Read a listing; return its number of images and the peaks after the first and the last page."""
    seen = 0
    first = 0.0
    async with (
        ImagesAPI(TOKEN, base_url=url, limiter=plenty()) as api,
        aclosing(api.list(per_page=PER_PAGE)) as images,
    ):
        async for _ in images:
            seen += 1
            if seen == PER_PAGE:
                first = peak_memory()
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
        checks=(at_most(f"growth over {images:,} images, in MiB", growth, 2.0),),
        notes=("the peak of the resident set, in a process of its own",),
    )


if __name__ == "__main__":
    print(json.dumps(asyncio.run(stream(sys.argv[1]))))
