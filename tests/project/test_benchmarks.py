"""The benchmarks' arithmetic and output; `python -m benchmarks` measures the numbers themselves."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any
from xml.etree import ElementTree as ET

import aiohttp
import attrs
import pytest

from benchmarks import __main__ as command
from benchmarks.measure import Result, Sample, at_least, at_most, compare, ratio
from benchmarks.report import describe_machine, plot, table, to_json

RESULT = Result(
    unit="µs",
    samples={"base": Sample((10.0, 12.0, 11.0)), "<ours>": Sample((20.0, 36.0, 22.0))},
    checks=(at_most("twice", 2.0, 2.5), at_least("six", 5.0, 6.0)),
    notes=("a note",),
)


def test_a_ratio_is_taken_between_neighbours() -> None:
    base, ours = RESULT.samples.values()
    assert ratio(ours, base) == pytest.approx(2.0)


def test_a_bound_is_kept_or_not() -> None:
    assert [check.kept for check in RESULT.checks] == [True, False]
    assert at_most("as promised", 2.0, 2.0).kept
    assert at_least("as promised", 2.0, 2.0).kept


async def test_subjects_are_run_in_turns_and_each_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    # It would find the loops that pytest's plugins leave open, and warn of them here.
    monkeypatch.setattr(gc, "collect", lambda: 0)
    order: list[str] = []

    async def first(calls: int) -> None:
        order.extend("a" * calls)

    async def second(calls: int) -> None:
        order.extend("b" * calls)

    samples = await compare({"a": first, "b": second}, calls=2, rounds=2, clock=time.perf_counter)
    assert "".join(order) == "ab" + "aabb" + "bbaa"
    assert [len(sample.rounds) for sample in samples.values()] == [2, 2]


def test_a_table_shows_every_number_and_promise() -> None:
    shown = table("title", RESULT)
    for part in (
        "title",
        "11 µs",
        "22 µs",
        "2.00",
        "a note",
        "ok   twice",
        "MISS six: 5, promised at least 6",
    ):
        assert part in shown


def test_json_holds_what_was_measured() -> None:
    held = json.loads(to_json(describe_machine(), {"one": "title"}, {"one": RESULT}))
    assert held["benchmarks"]["one"]["subjects"]["<ours>"]["rounds"] == [20.0, 36.0, 22.0]
    assert held["benchmarks"]["one"]["checks"][1] == {
        "what": "six",
        "value": 5.0,
        "at_least": 6.0,
        "kept": False,
    }
    assert "aiohttp" in held["environment"]["packages"]


def test_the_plot_is_an_image_with_a_bar_for_each_subject() -> None:
    root = ET.fromstring(plot(describe_machine(), {"one": "title"}, {"one": RESULT}))  # noqa: S314  (our own)
    bars = [each for each in root if each.tag.endswith("rect") and each.get("class") in {"base", "bar"}]
    assert [float(bar.get("width", "0")) for bar in bars] == pytest.approx(
        [11 / 29 * 420, 22 / 29 * 420], abs=0.1
    )
    assert "<ours>" in [each.text for each in root]


@pytest.mark.parametrize(("arguments", "status"), [(["--check"], 1), ([], 0)])
def test_a_broken_promise_is_the_exit_status(
    arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import benchmarks.size

    monkeypatch.setattr(benchmarks.size, "run", lambda: RESULT)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "size", *arguments])
    assert command.main() == status
    assert "MISS six" in capsys.readouterr().err


def test_every_benchmark_has_a_title() -> None:
    assert all(command.title(name) != name for name in command.NAMES)


async def test_alternatives_are_held_against_the_same_faults() -> None:
    from benchmarks import faults

    rows = tuple(row for row in faults.ROWS if row.number in {"23", "27", "41", "44"})
    results = await faults.run(list(faults.ALTERNATIVES), rows)
    for row, verdicts in results:
        assert list(verdicts) == list(faults.ALTERNATIVES)
        assert verdicts["do-images-async"].coped, row.what
        assert all(verdict.words for verdict in verdicts.values())
    shown = faults.table(results)
    assert shown.count("\n") == len(rows) + 2
    assert "| of 4 | 4 |" in shown


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_this_client_copes_with_every_fault() -> None:
    from benchmarks import faults

    results = await faults.run(["do-images-async"], faults.ROWS)
    assert [row.what for row, verdicts in results if not verdicts["do-images-async"].coped] == []


async def test_a_client_that_does_not_cope_is_found_out() -> None:
    """Judge a client that accepts any answer as an image, sends everything twice, and lists one page."""
    from benchmarks import faults

    @contextlib.asynccontextmanager
    async def careless(url: str, token: str) -> AsyncGenerator[Careless, None]:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            yield Careless(session, f"{url}/v2/images")

    rows = {"12", "23", "25", "27", "31", "36", "41", "44", "52", "57"}
    for row in faults.ROWS:
        if row.number in rows:
            verdict = await faults.judge(row, careless)
            assert not verdict.coped, row.what


@attrs.frozen
class Careless:
    session: aiohttp.ClientSession
    url: str

    async def get(self, image_id: Any) -> Any:
        with contextlib.suppress(aiohttp.ClientError):
            async with self.session.get(f"{self.url}/{image_id}") as response:
                return await response.read()

    async def create(self, name: str) -> Any:
        body = {"name": name, "url": "https://example.com/a.img", "region": "nyc3"}
        for _ in range(2):
            async with self.session.post(self.url, json=body) as response:
                await response.read()

    async def list(self) -> list[Any]:
        async with self.session.get(self.url, params={"private": "true"}) as response:
            return [image["id"] for image in (await response.json())["images"]]
