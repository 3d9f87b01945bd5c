"""`do-images replicate`: it brings every image to every region, and may run again."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator

import pytest

from do_images_async.testing import Fault, ImagesEmulator
from tests.support.cli_processes import Ended, account, do_images_here, start
from tests.support.copying import CopyingAccount
from tests.support.servers import Server, eventually


@pytest.fixture
async def emulator() -> AsyncIterator[ImagesEmulator]:
    async with ImagesEmulator(images=0, quotas=None, action_seconds=0.05) as running:
        running.images.add(name="golden-1", tags=["golden"], regions=["nyc3"])
        running.images.add(name="golden-2", tags=["golden"], regions=["nyc3", "fra1"])
        running.images.add(name="other", regions=["nyc3"])
        yield running


def ids(emulator: ImagesEmulator) -> dict[str, int]:
    return {image["name"]: image["id"] for image in emulator.images if not image["public"]}


async def replicate(emulator: ImagesEmulator, *arguments: str) -> Ended:
    usual = ("replicate", "--poll-interval", "0.02")
    return await do_images_here(*usual, *arguments, **account(emulator, emulator.token))


def regions(emulator: ImagesEmulator) -> dict[str, set[str]]:
    return {image["name"]: set(image["regions"]) for image in emulator.images if not image["public"]}


async def test_what_a_region_lacks_is_copied_and_a_second_run_copies_nothing(
    emulator: ImagesEmulator,
) -> None:
    ended = await replicate(emulator, "--tag", "golden", "--to", "fra1,sgp1", "-o", "json")
    assert (ended.status, ended.stderr) == (0, "")
    found = {(row["name"], row["region"], row["status"]) for row in json.loads(ended.stdout)}
    assert found == {
        ("golden-1", "fra1", "copied"),
        ("golden-1", "sgp1", "copied"),
        ("golden-2", "fra1", "present"),
        ("golden-2", "sgp1", "copied"),
    }
    everywhere = {"nyc3", "fra1", "sgp1"}
    assert regions(emulator) == {"golden-1": everywhere, "golden-2": everywhere, "other": {"nyc3"}}
    posts = emulator.requests.count("POST")
    again = await replicate(emulator, "--tag", "golden", "--to", "fra1", "--to", "sgp1")
    assert again.status == 0
    assert [line.split()[3] for line in again.stdout.splitlines()[1:]] == ["present"] * 4
    assert emulator.requests.count("POST") == posts


async def test_images_by_name_and_by_id(emulator: ImagesEmulator) -> None:
    named = await replicate(emulator, "--name", "*-1", "--name", "oth*", "--to", "ams3", "-o", "csv")
    assert named.status == 0
    assert sorted(line.split(",")[1] for line in named.stdout.splitlines()[1:]) == ["golden-1", "other"]
    numbered = await replicate(emulator, str(ids(emulator)["golden-2"]), "--to", "ams3", "-o", "ndjson")
    row = json.loads(numbered.stdout)
    assert (row["name"], row["status"]) == ("golden-2", "copied")
    assert all("ams3" in held for held in regions(emulator).values())


async def test_a_region_that_fails_leaves_the_others_done(emulator: ImagesEmulator) -> None:
    number = ids(emulator)["golden-1"]
    emulator.faults.add(Fault(method="POST", path=f"/v2/images/{number}/actions", status=500))
    pending = emulator.images.add(name="golden-3", tags=["golden"], status="pending")
    arguments = ("--tag", "golden", "--to", "sgp1", "-o", "json")
    ended = await replicate(emulator, *arguments)
    rows = {row["image_id"]: row for row in json.loads(ended.stdout)}
    assert ended.status == 3
    assert ended.stderr == "do-images: 2 of 3 copies are not done\n"
    assert rows[ids(emulator)["golden-2"]]["status"] == "copied"
    assert rows[pending]["message"] == "the image is pending, not available"
    assert rows[number]["status"] == "unknown"
    assert (await replicate(emulator, *arguments)).stderr == "do-images: 1 of 3 copies are not done\n"


async def test_a_copy_counts_when_the_image_shows_the_region(emulator: ImagesEmulator) -> None:
    """The action is completed before the image shows the region: the first look, and the one after it."""
    number = ids(emulator)["golden-1"]
    path = f"/v2/images/{number}"
    lagging = {"image": dict(emulator.images[number])}
    emulator.faults.add(Fault(method="GET", path=path, status=200, body=lagging, times=3))
    ended = await replicate(emulator, "--name", "golden-1", "--to", "sgp1", "-o", "json")
    assert (ended.status, ended.stderr) == (0, "")
    assert [row["status"] for row in json.loads(ended.stdout)] == ["copied"]
    assert emulator.requests.count("GET", path) == 4


@pytest.mark.slow
async def test_a_copy_that_the_image_never_shows_is_not_done(emulator: ImagesEmulator) -> None:
    number = ids(emulator)["golden-1"]
    without = {"image": dict(emulator.images[number])}
    emulator.faults.add(
        Fault(method="GET", path=f"/v2/images/{number}", status=200, body=without, times=None)
    )
    arguments = ("--tag", "golden", "--to", "sgp1", "--wait-timeout", "5", "-o", "json")
    ended = await replicate(emulator, *arguments)
    assert (ended.status, ended.stderr) == (3, "do-images: 1 of 2 copies are not done\n")
    rows = {row["name"]: row for row in json.loads(ended.stdout)}
    assert rows["golden-2"]["status"] == "copied"
    assert rows["golden-1"]["status"] == "in-progress"
    assert "is completed, but the image is not there after 5 s" in rows["golden-1"]["message"]


async def test_a_copy_that_takes_longer_than_the_wait_is_in_progress(emulator: ImagesEmulator) -> None:
    emulator.actions.seconds = 3600
    arguments = ("--name", "golden-1", "--to", "sgp1", "--wait-timeout", "0.1", "-o", "json")
    ended = await replicate(emulator, *arguments)
    [row] = json.loads(ended.stdout)
    [action] = emulator.actions
    assert (ended.status, ended.stderr) == (3, "do-images: 1 of 1 copies are not done\n")
    assert (row["status"], row["action_id"]) == ("in-progress", action["id"])
    assert "is not completed after 0.1 s" in row["message"]


async def test_an_action_that_errors_is_a_failed_copy_with_its_id(emulator: ImagesEmulator) -> None:
    emulator.actions.fails = lambda _: True
    ended = await replicate(emulator, "--name", "golden-1", "--to", "sgp1", "-o", "json")
    [row] = json.loads(ended.stdout)
    [action] = emulator.actions
    assert (row["status"], row["action_id"]) == ("failed", action["id"])


async def test_a_copy_that_may_be_in_progress_already_is_unknown(server: Server) -> None:
    copies = CopyingAccount(names="nyc3", completes=False)
    copies.start("sgp1")
    server.answer_with(copies)
    arguments = ("replicate", "7", "--to", "sgp1,ams3", "--wait-timeout", "0.1", "-o", "json")
    ended = await do_images_here(*arguments, **account(server))
    rows = json.loads(ended.stdout)
    assert ended.status == 3
    assert [row["status"] for row in rows] == ["unknown", "unknown"]
    assert all("nothing was begun" in row["message"] for row in rows)
    assert copies.targets == ["sgp1"]


async def test_an_image_that_is_not_there_is_said(emulator: ImagesEmulator) -> None:
    ended = await replicate(emulator, "999", "--to", "sgp1", "-o", "json")
    assert ended.status == 3
    assert json.loads(ended.stdout)[0]["status"] == "failed"


async def test_an_incomplete_list_copies_nothing(emulator: ImagesEmulator) -> None:
    emulator.faults.add(
        Fault(method="GET", times=None, body={"images": [], "links": {}, "meta": {"total": 3}})
    )
    ended = await replicate(emulator, "--tag", "golden", "--to", "sgp1")
    assert ended.status == 4
    assert emulator.requests.count("POST") == 0


async def test_what_no_image_matches_is_said(emulator: ImagesEmulator) -> None:
    ended = await replicate(emulator, "--tag", "gloden", "--to", "sgp1")
    assert (ended.status, ended.stderr) == (0, "do-images: no image matches\n")


@pytest.mark.slow
async def test_a_run_that_was_interrupted_is_gone_on_with() -> None:
    passed = 0.0
    async with ImagesEmulator(
        images=0, quotas=None, action_seconds=3600, clock=lambda: time.time() + passed
    ) as emulator:
        emulator.images.add(name="golden-1", tags=["golden"], regions=["nyc3"])
        arguments = ("replicate", "--tag", "golden", "--to", "sgp1", "--poll-interval", "0.02")
        process = await start(arguments, account(emulator, emulator.token))
        await eventually(lambda: emulator.requests.count("POST", status=201) == 1, within=60)
        polled = "/v2/images/*/actions/*"
        await eventually(lambda: emulator.requests.count("GET", polled) > 0, within=60)
        process.send_signal(signal.SIGINT)
        stdout, stderr = await process.communicate()
        assert process.returncode == -signal.SIGINT
        line = stdout.decode().splitlines()[1].split()
        assert line[:4] == [str(ids(emulator)["golden-1"]), "golden-1", "sgp1", "in-progress"]
        assert line[4].isdigit()
        assert b"the next run waits for them" in stderr
        again = asyncio.create_task(replicate(emulator, "--tag", "golden", "--to", "sgp1"))
        polls = emulator.requests.count("GET", "/v2/images/*/actions/*")
        await eventually(lambda: emulator.requests.count("GET", "/v2/images/*/actions/*") > polls, within=60)
        passed = 4000.0
        assert (await again).status == 0
        assert emulator.requests.count("POST") == 1
        assert regions(emulator) == {"golden-1": {"nyc3", "sgp1"}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "sgp1"), "which images?"),
        (("42", "--tag", "golden", "--to", "sgp1"), "which images?"),
        (("--tag", "golden"), "Missing option '--to'"),
        (("--tag", "golden", "--to", ","), "--to names no region"),
        (
            ("--tag", "golden", "--to", "bad region!"),
            "'bad region!' is no slug of a region",
        ),
        (("--tag", "golden", "--to", "sgp1,FRA1"), "--to: 'FRA1' is no slug of a region, such as nyc3"),
        (("--tag", "golden", "--to", "sgp1", "--columns", "Size"), "is no column"),
    ],
)
async def test_wrong_usage_is_said_before_anything_is_sent(
    emulator: ImagesEmulator, arguments: tuple[str, ...], message: str
) -> None:
    ended = await replicate(emulator, *arguments)
    assert (ended.status, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert len(emulator.requests) == 0
