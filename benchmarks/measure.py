"""Alternatives measured in turns, so that what disturbs one disturbs all, and what must come out of it."""

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
    """What one subject cost in each round, in the result's unit."""

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
    """A promise: what was measured, and the bound that it has to keep."""

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
    """What one benchmark brought.

    Attributes:
        unit: of all samples, such as "µs".
        samples: by subject; ratios in the table are against the first.
        checks: the promises that depend on it.
        notes: what a reader has to know of the numbers.
    """

    unit: str
    samples: Mapping[str, Sample]
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()


def ratio(sample: Sample, base: Sample) -> float:
    """How many times `base` a subject costs: the median over rounds, each against its own neighbour."""
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
    """Run each subject in turns, each time for so many calls.

    Args:
        subjects: what to run, by name; each is given the number of calls to make.
        calls: in one round.
        rounds: how often. The order is turned by one place with each of them.
        clock: what is measured, in seconds; by default the CPU time of this process.
        scale: from seconds to the unit that is reported, for one call.
        between: called before each measure, uncounted.
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
