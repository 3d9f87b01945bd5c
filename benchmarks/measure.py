"""Alternatives measured in turns, so that a disturbance affects all of them, and the promises about them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import attrs

__all__ = [
    "Check",
    "Clock",
    "Result",
    "Sample",
    "Work",
    "at_least",
    "at_most",
    "compare",
    "ratio",
]

Work = Callable[[int], Awaitable[None]]
Clock = Callable[[], float]


@attrs.frozen
class Sample:
    """The cost of one subject in each round, in the result's unit."""

    rounds: tuple[float, ...]

    @classmethod
    def of(cls, rounds: Sequence[float], *, scale: float = 1.0) -> Sample:
        return cls(tuple(value * scale for value in rounds))

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.rounds) == 1:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return low, high


@attrs.frozen
class Check:
    """A promise: the measured value, and its bound."""

    what: str
    value: float
    bound: float
    at_most: bool

    @property
    def kept(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        bound = f"{'at most' if self.at_most else 'at least'} {self.bound:g}"
        return f"{'ok  ' if self.kept else 'MISS'} {self.what}: {self.value:.3g}, promised {bound}"


def at_most(what: str, value: float, bound: float) -> Check:
    return Check(what, value, bound, at_most=True)


def at_least(what: str, value: float, bound: float) -> Check:
    return Check(what, value, bound, at_most=False)


@attrs.frozen(kw_only=True)
class Result:
    """The result of one benchmark.

    Attributes:
        unit: the unit of all samples, such as "µs".
        samples: the samples by subject; the table's ratios are against the first.
        checks: the promises that depend on it.
        notes: remarks that a reader of the numbers needs.
    """

    unit: str
    samples: Mapping[str, Sample]
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()


def ratio(sample: Sample, base: Sample) -> float:
    """Return the ratio of a subject's cost to that of `base`: the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(sample.rounds, base.rounds, strict=True))


async def compare(
    subjects: Mapping[str, Work],
    *,
    calls: int,
    rounds: int,
    clock: Clock = time.process_time,
    scale: float = 1e6,
    between: Callable[[], None] | None = None,
) -> dict[str, Sample]:
    """Run the subjects in turns, with so many calls each time.

    Args:
        subjects: the functions to run, by name; each receives the number of calls to make.
        calls: the number of calls in one round.
        rounds: the number of rounds. The order rotates by one place with each of them.
        clock: returns seconds; by default the CPU time of this process.
        scale: the factor from seconds to the reported unit, for one call.
        between: called before each measurement, and not measured.
    """
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    order = list(subjects)
    for work in subjects.values():
        await work(calls // 10 + 1)
    for _ in range(rounds):
        for name in order:
            if between is not None:
                between()
            gc.collect()
            begin = clock()
            await subjects[name](calls)
            spent[name].append((clock() - begin) / calls)
        order.append(order.pop(0))
    return {name: Sample.of(seconds, scale=scale) for name, seconds in spent.items()}
