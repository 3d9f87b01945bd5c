"""The JSON Schemas of `do-images schema`, which describe exactly what the commands write."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator

from do_images_async.cli.schema import SCHEMAS
from do_images_async.testing import ImagesEmulator
from tests.support.cli_processes import account, do_images_here, several_accounts


async def schema(name: str) -> dict[str, Any]:
    """Return a schema that also refuses keys it does not describe, which the published one allows."""
    ended = await do_images_here("schema", name)
    assert (ended.status, ended.stderr) == (0, "")
    published = json.loads(ended.stdout)
    Draft202012Validator.check_schema(published)
    return cast("dict[str, Any]", closed(published))


def closed(part: object) -> object:
    if isinstance(part, list):
        return [closed(each) for each in cast("list[object]", part)]
    if not isinstance(part, dict):
        return part
    record = {key: closed(value) for key, value in cast("dict[str, object]", part).items()}
    if isinstance(record.get("properties"), dict) and record.get("type") == "object":
        record["additionalProperties"] = False
    return record


def check(data: object, against: dict[str, Any]) -> None:
    checker = Draft202012Validator.FORMAT_CHECKER
    validator = Draft202012Validator(against, format_checker=checker)
    validator.validate(data)  # pyright: ignore[reportUnknownMemberType]


async def test_a_report_with_everything_in_it(tmp_path: Path) -> None:
    before, droplets = tmp_path / "before.json", tmp_path / "droplets.json"
    droplets.write_text('[{"id": 1, "image": {"id": 130000049}}]', encoding="utf-8")
    async with (
        ImagesEmulator(images=60, quotas=None, token="first") as emulator,
        ImagesEmulator(images=0, quotas=None, token="second") as lab,
        several_accounts(emulator, lab) as url,
    ):
        lab.images.add(id=5)
        variables = {"ONE": "first", "TWO": "second", "DIGITALOCEAN_API_URL": url}
        call = ("audit", "-q", "-o", "json", "--account", "prod=ONE", "--account", "lab=TWO")
        first = await do_images_here(*call, "--file", str(before), "--older-than", "200", **variables)
        assert (first.status, first.stderr) == (0, "")
        emulator.images.remove(json.loads(before.read_text(encoding="utf-8"))["findings"][0]["image_id"])
        emulator.images.add(name="big", size_gigabytes=300.0)
        more = ("--baseline", str(before), "--droplets", str(droplets), "--require-tag", "prod,team-*")
        ignored = ("--ignore-rule", "old", "--ignore-tag", "keep")
        report = json.loads((await do_images_here(*call, *more, *ignored, **variables)).stdout)
    assert report["comparison"]["new"]
    assert report["comparison"]["gone"]
    assert report["comparison"]["grown"]
    assert report["comparison"]["differences"]
    assert report["in_use"] is not None
    against = await schema("report")
    check(json.loads(before.read_text(encoding="utf-8")), against)
    check(report, against)
    check(report["findings"][0], await schema("finding"))


async def test_findings_as_csv_have_the_keys_of_a_finding() -> None:
    async with ImagesEmulator(images=20, quotas=None) as emulator:
        ended = await do_images_here("audit", "-q", "-o", "csv", **account(emulator, emulator.token))
    assert set(next(csv.reader(io.StringIO(ended.stdout)))) == set((await schema("finding"))["properties"])


@pytest.mark.parametrize("form", ["json", "ndjson"])
async def test_rows_of_a_list(form: str) -> None:
    async with ImagesEmulator(images=100, quotas=None) as emulator:
        ended = await do_images_here(
            "list", "-q", "--public", "-o", form, **account(emulator, emulator.token)
        )
    rows = json.loads(ended.stdout) if form == "json" else list(map(json.loads, ended.stdout.splitlines()))
    assert len(rows) > 100
    against = await schema("image")
    for row in rows:
        check(row, against)


@pytest.mark.parametrize("apply", [(), ("--apply", "--yes")])
async def test_a_plan(apply: tuple[str, ...]) -> None:
    async with ImagesEmulator(images=30, quotas=None) as emulator:
        ended = await do_images_here(
            *("prune", "-q", "-o", "json", "--group-by", "none", "--keep-last", "2", "--keep-within", "30d"),
            *("--keep-tag", "b,a", "--max-delete-fraction", "1", *apply),
            **account(emulator, emulator.token),
        )
    plan = json.loads(ended.stdout)
    assert plan["accounts"][0]["remove"]
    assert bool(plan.get("outcomes")) == bool(apply)
    check(plan, await schema("plan"))


async def test_a_schema_that_there_is_not() -> None:
    ended = await do_images_here("schema", "droplet")
    assert ended.status == 2
    assert all(name in ended.stderr for name in SCHEMAS)
