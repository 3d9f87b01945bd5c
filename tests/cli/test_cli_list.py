"""`do-images list` and `latest` choose images: by type, region and name, in an order, up to a number."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from do_images_async.testing import ImagesEmulator
from tests.support.cli_processes import Ended, account, do_images_here, in_terminal_here
from tests.support.servers import Server, image_document, reply
from tests.support.slow import fewer


@pytest_asyncio.fixture
async def emulator() -> AsyncGenerator[ImagesEmulator, None]:
    async with ImagesEmulator(images=0, quotas=None) as running:
        for number, (name, kind, regions, size, created) in enumerate(
            (
                ("web-1", "snapshot", ["nyc3"], 10.0, "2026-01-03T00:00:00Z"),
                ("web-2", "snapshot", ["nyc3", "ams3"], 30.0, "2026-01-01T00:00:00Z"),
                ("Web-3", "custom", ["ams3"], None, "2026-01-05T00:00:00Z"),
                ("db-1", "backup", ["fra1"], 20.0, "2026-01-04T00:00:00Z"),
                ("db-2", "custom", ["fra1"], 5.0, "2026-01-02T00:00:00Z"),
            ),
            1,
        ):
            running.images.add(
                id=number,
                name=name,
                type=kind,
                regions=regions,
                size_gigabytes=size,
                created_at=created,
                tags=["prod"] if number in (2, 5) else [],
            )
        yield running


async def run(emulator: ImagesEmulator, *arguments: str) -> Ended:
    return await do_images_here(*arguments, "-q", **account(emulator, emulator.token))


async def names(emulator: ImagesEmulator, *arguments: str) -> list[str]:
    ended = await run(emulator, "list", "-o", "json", *arguments)
    assert (ended.status, ended.stderr) == (0, "")
    return [each["name"] for each in json.loads(ended.stdout)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["web-1", "web-2", "Web-3", "db-1", "db-2"]),
        (["--type", "snapshot"], ["web-1", "web-2"]),
        (["--type", "backup"], ["db-1"]),
        (["--type", "custom"], ["Web-3", "db-2"]),
        (["--region", "ams3"], ["web-2", "Web-3"]),
        (["--region", "ams3", "--region", "fra1"], ["web-2", "Web-3", "db-1", "db-2"]),
        (["--region", "ams3,fra1"], ["web-2", "Web-3", "db-1", "db-2"]),
        (["--name", "web-*"], ["web-1", "web-2"]),
        (["--name", "*-[12]", "--type", "custom"], ["db-2"]),
        (["--sort", "created"], ["web-2", "db-2", "web-1", "db-1", "Web-3"]),
        (["--sort", "-created", "--limit", "2"], ["Web-3", "db-1"]),
        (["--sort", "-size"], ["web-2", "db-1", "web-1", "db-2", "Web-3"]),
        (["--sort", "Name"], ["db-1", "db-2", "web-1", "web-2", "Web-3"]),
        (["--limit", "3"], ["web-1", "web-2", "Web-3"]),
        (["--name", "nobody"], []),
    ],
)
async def test_images_are_chosen_and_ordered(
    arguments: list[str], expected: list[str], emulator: ImagesEmulator
) -> None:
    assert await names(emulator, *arguments) == expected


@pytest.mark.parametrize("form", ["ndjson", "csv"])
async def test_formats_that_stream_choose_and_order_as_well(form: str, emulator: ImagesEmulator) -> None:
    for arguments, expected in (
        (["--region", "ams3", "--limit", "1"], ["web-2"]),
        (["--sort", "-id", "--limit", "2"], ["db-2", "db-1"]),
        (["--name", "nobody"], []),
    ):
        text = (await run(emulator, "list", "-o", form, *arguments)).stdout
        if form == "csv":
            rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(text)))
            assert text.startswith("id,name,")
        else:
            rows = list(map(json.loads, text.splitlines()))
        assert [row["name"] for row in rows] == expected


async def test_a_limit_ends_the_reading_early() -> None:
    async with ImagesEmulator(images=3000, quotas=None, latency=0.02) as emulator:
        ended = await run(emulator, "list", "--limit", "5", "-o", "ndjson")
        assert (ended.status, len(ended.stdout.splitlines())) == (0, 5)
        assert emulator.requests.count("GET", "/v2/images") < 15


async def test_nothing_that_matches_is_said(emulator: ImagesEmulator) -> None:
    ended = await run(emulator, "list", "--name", "nobody")
    assert (ended.status, ended.stderr) == (0, "do-images: none of 5 images matches\n")


@pytest.mark.parametrize("arguments", [[], ["--tag", "prod"], ["--name", "web-*"]])
async def test_a_list_that_is_not_whole_does_not_say_that_nothing_is_there(
    arguments: list[str], server: Server
) -> None:
    server.answer_with(lambda _: reply({"images": [], "meta": {"total": 5}, "links": {}}))
    ended = await do_images_here("list", "-q", *arguments, **account(server))
    assert ended.status == 4
    assert ended.stderr.startswith("do-images: INCOMPLETE: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--sort", "colour"], "--sort"),
        (["--limit", "0"], "--limit"),
        (["--type", "volume"], "--type"),
    ],
)
async def test_wrong_usage(arguments: list[str], named: str, emulator: ImagesEmulator) -> None:
    ended = await run(emulator, "list", *arguments)
    assert (ended.status, ended.stdout) == (2, "")
    assert named in ended.stderr
    assert not emulator.requests


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["--public"], ["--public", "--type", "distribution"]])
async def test_a_table_fits_a_terminal_of_80_columns(arguments: list[str]) -> None:
    async with ImagesEmulator(images=60, quotas=None) as emulator:
        ended = await do_images_here("list", *arguments, **account(emulator, emulator.token))
        shown = await in_terminal_here("list", *arguments, **account(emulator, emulator.token))
        every = await do_images_here(
            "list", "--columns", "all", *arguments, **account(emulator, emulator.token)
        )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.stdout)
    assert max(map(len, plain.splitlines())) <= 80
    assert plain.split("\n")[0].split() == ended.stdout.split("\n")[0].split()
    assert "not shown" not in shown.stderr
    assert ended.stdout.split("\n")[0].split()[:2] == (["ID", "Slug"] if arguments else ["ID", "Name"])
    assert "Min Disk" in every.stdout.split("\n")[0]


# --- the newest ---


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Web-3"),
        (["--name", "web-*"], "web-1"),
        (["--type", "backup"], "db-1"),
        (["--name", "db-*", "--type", "custom"], "db-2"),
        (["--tag", "prod"], "db-2"),
    ],
)
async def test_the_newest_image(arguments: list[str], expected: str, emulator: ImagesEmulator) -> None:
    emulator.images.add(name="importing", type="custom", status="pending", created_at="2027-01-01T00:00:00Z")
    ended = await do_images_here(
        "latest", "-q", "-o", "json", *arguments, **account(emulator, emulator.token)
    )
    assert (ended.status, ended.stderr) == (0, "")
    assert [each["name"] for each in json.loads(ended.stdout)] == [expected]


async def test_the_newest_public_image() -> None:
    async with ImagesEmulator(images=0, quotas=None) as emulator:
        asked = ("latest", "--type", "distribution", "--distribution", "ubuntu", "--columns", "Slug")
        ended = await run(emulator, *asked, "--no-header")
        assert ended.stdout.startswith("ubuntu-")
        none = await run(emulator, "latest", "--name", "nobody-has-it", "--columns", "ID", "--no-header")
    assert (none.status, none.stdout) == (3, "")
    assert none.stderr == "do-images: no available image matches\n"


async def test_csv_has_every_column(emulator: ImagesEmulator) -> None:
    header = (await run(emulator, "list", "-o", "csv")).stdout.split("\n")[0].split(",")
    assert len(header) >= 12


@pytest.mark.parametrize("form", fewer(["json", "table", "ndjson", "csv"]))
async def test_dates_at_the_ends_of_the_calendar_and_absurd_sizes(form: str, server: Server) -> None:
    images = [
        image_document(1, created_at="0001-01-01T00:00:00+14:00", size_gigabytes=1e308, public=False),
        image_document(2, created_at="9999-12-31T23:59:59-12:00", size_gigabytes=2.5, public=False),
    ]
    server.answer_with(lambda _: reply({"images": images, "meta": {"total": 2}, "links": {}}))
    for sort in ("created", "size"):
        ended = await do_images_here("list", "-q", "-o", form, f"--sort=-{sort}", **account(server))
        assert (ended.status, ended.stderr) == (0, "")
        assert "2.5" in ended.stdout
    newest = await do_images_here("latest", "-q", "-o", form, **account(server))
    assert (newest.status, newest.stderr) == (0, "")
