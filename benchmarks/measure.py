"""CPU time of alternatives, measured in turns so that what disturbs one disturbs all."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping

import attrs

Work = Callable[[int], Awaitable[None]]


@attrs.frozen
class Sample:
    """Microseconds of CPU for one call: the median of the repetitions, and the quartiles around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> Sample:
        low, median, high = statistics.quantiles([s * 1e6 for s in seconds], n=4)
        return cls(low=low, median=median, high=high)


async def compare(subjects: Mapping[str, Work], *, calls: int, repetitions: int) -> dict[str, Sample]:
    """Run each subject `repetitions` times, in turns, each time for so many calls."""
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    for work in subjects.values():
        await work(calls // 10 + 1)
    for _ in range(repetitions):
        for name, work in subjects.items():
            gc.collect()
            begin = time.process_time()
            await work(calls)
            spent[name].append((time.process_time() - begin) / calls)
    return {name: Sample.of(seconds) for name, seconds in spent.items()}
