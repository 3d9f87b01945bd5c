"""Writes under random faults, counted by the server; and finding the image of an ambiguous creation."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from do_images_async import Image, ImagesAPI, RateLimiter, TokenBucket, errors
from do_images_async.testing import Fault, ImagesEmulator
from tests.conftest import FAST

NAME = "golden"
CREATION: dict[str, Any] = {
    "name": NAME,
    "url": "https://example.com/golden.qcow2",
    "region": "nyc3",
    "tags": ["prod", "web"],
}


def client(emulator: ImagesEmulator) -> ImagesAPI:
    # Refusals at random would slow down a smaller limiter, or one with a longer window.
    limiter = RateLimiter(TokenBucket(10**6, per=0.02))
    return ImagesAPI(emulator.token, base_url=emulator.url, limiter=limiter, retry=FAST)


FAULTS = [
    Fault(method="POST", times=None, probability=0.15, after=True, broken="reset"),
    Fault(method="POST", times=None, probability=0.1, broken="reset"),
    Fault(method="POST", times=None, probability=0.1, broken="cut"),
    Fault(method="POST", times=None, probability=0.1, status=500),
    Fault(method="POST", times=None, probability=0.1, status=502, after=True),
    Fault(method="POST", times=None, probability=0.1, status=422),
    Fault(method="POST", times=None, probability=0.1, status=429, headers={"retry-after": "0"}),
]


async def test_no_creation_is_carried_out_twice_and_every_error_knows_its_outcome() -> None:
    async with ImagesEmulator(quotas=None, images=0) as emulator, client(emulator) as api:
        for fault in FAULTS:
            emulator.faults.add(fault)
        names = [f"image {number}" for number in range(300)]
        results = await asyncio.gather(
            *(api.create_custom(**{**CREATION, "name": name}) for name in names), return_exceptions=True
        )
        carried_out = Counter(entry.body["name"] for entry in emulator.requests if entry.carried_out)
    outcomes: Counter[str] = Counter()
    for name, result in zip(names, results, strict=True):
        assert carried_out[name] <= 1
        if isinstance(result, Image):
            assert carried_out[name] == 1
            outcomes["created"] += 1
            continue
        assert isinstance(result, errors.DOImagesError)
        if not result.outcome_unknown:
            assert not carried_out[name]
        outcomes[f"unknown, {'made' if carried_out[name] else 'not made'}"] += result.outcome_unknown
        outcomes["surely not made"] += not result.outcome_unknown
    assert set(outcomes) == {"created", "unknown, made", "unknown, not made", "surely not made"}
    assert all(outcomes.values())


async def test_the_image_of_an_ambiguous_creation_is_found() -> None:
    async with ImagesEmulator(images=250) as emulator, client(emulator) as api:
        emulator.images.add(name=NAME, tags=["prod", "web"], created_at="2020-01-01T00:00:00Z")
        emulator.images.add(name=NAME, tags=["other"])
        emulator.images.add(name=f"{NAME} too", tags=["prod", "web"])
        since = datetime.now(UTC)
        assert await api.find_created(name=NAME, since=since, tags=CREATION["tags"]) == ()
        emulator.faults.add(Fault(method="POST", after=True, broken="reset"))
        with pytest.raises(errors.TransportError) as caught:
            await api.create_custom(**CREATION)
        assert caught.value.outcome_unknown
        found = await api.find_created(name=NAME, since=since, tags=CREATION["tags"])
        assert [image.name for image in found] == [NAME]
        newest = emulator.images.add(name=NAME, tags=["prod", "web", "more"])
        both = await api.find_created(name=NAME, since=since, tags=["web"])
        assert [image.id for image in both] == [newest, found[0].id]
        assert len(await api.find_created(name=NAME, since=since)) == 3
        assert not await api.find_created(name=NAME, since=since + timedelta(hours=1))


async def test_an_image_without_a_date_or_tags_is_found_too() -> None:
    async with ImagesEmulator(images=0) as emulator, client(emulator) as api:
        emulator.images.add(name=NAME, tags=None)
        assert len(await api.find_created(name=NAME, since=datetime.now(UTC), tags=["prod"])) == 1


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"name": ""}, ValueError),
        ({"name": None}, TypeError),
        ({"since": datetime(2026, 1, 1)}, ValueError),  # noqa: DTZ001  (this is the fault)
        ({"since": "yesterday"}, TypeError),
        ({"tags": "prod"}, TypeError),
    ],
)
async def test_bad_arguments_cost_nothing(changed: dict[str, Any], kind: type[Exception]) -> None:
    async with ImagesEmulator() as emulator, client(emulator) as api:
        arguments: dict[str, Any] = {"name": NAME, "since": datetime.now(UTC), "tags": ["a"], **changed}
        with pytest.raises(kind, match=next(iter(changed))):
            await api.find_created(**arguments)
        assert not len(emulator.requests)
