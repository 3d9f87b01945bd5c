"""CPU of decoding a page of 200 images: dicts from the standard library, and this library's models."""

from __future__ import annotations

import asyncio
import json

from benchmarks.measure import Sample, Work, compare
from benchmarks.server import page
from do_images_async import converter
from do_images_async.models import ImageListBody

PAGE = page(200)


async def to_dicts(calls: int) -> None:
    for _ in range(calls):
        assert len(json.loads(PAGE)["images"]) == 200


async def to_models(calls: int) -> None:
    for _ in range(calls):
        assert len(converter.loads(PAGE, ImageListBody).images) == 200


def run(*, calls: int = 100, repetitions: int = 15) -> dict[str, Sample]:
    subjects: dict[str, Work] = {"json.loads, to dicts": to_dicts, "do_images_async, to models": to_models}
    return asyncio.run(compare(subjects, calls=calls, repetitions=repetitions))
