"""What the benchmarks do with their numbers; the numbers themselves are for `python -m benchmarks`."""

from __future__ import annotations

import gc
import json
import sys
import time
from xml.etree import ElementTree as ET

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
