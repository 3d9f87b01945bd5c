"""Decoding a page of 200 images: dicts of the standard library, and this library's models."""

from __future__ import annotations

import asyncio
import json
import sys

from benchmarks.measure import Result, Work, at_most, compare, ratio
from benchmarks.server import page
from do_images_async import converter
from do_images_async._http.bodies import ImageListBody

__all__ = ["run"]

PAGE = page(200, total=400)
DICTS = "json.loads, to dicts"
MODELS = "do_images_async, to models"

BOUND = 0.6 if sys.version_info < (3, 12) else 0.7
"""The json module of Python 3.12 and later is faster; so the same models take more of its time."""


async def to_dicts(calls: int) -> None:
    for _ in range(calls):
        assert len(json.loads(PAGE)["images"]) == 200


async def to_models(calls: int) -> None:
    for _ in range(calls):
        assert len(converter.loads(PAGE, ImageListBody).images) == 200


def run() -> Result:
    subjects: dict[str, Work] = {DICTS: to_dicts, MODELS: to_models}
    samples = asyncio.run(compare(subjects, calls=50, rounds=75))
    check = at_most("a page into models, against json.loads", ratio(samples[MODELS], samples[DICTS]), BOUND)
    return Result(unit="µs", samples=samples, checks=(check,))
