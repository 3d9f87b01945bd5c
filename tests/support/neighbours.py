"""Our workers and another client that spends the same quota, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence

from do_images_async._quota.protocols import Limiter, Report
from tests.support.simulation import Answer, Limit, Server

__all__ = [
    "Pauses",
    "SharedServer",
    "neighbours_bursts",
    "neighbours_calls",
    "neighbours_even_calls",
]

Pauses = Callable[[random.Random, float], Iterator[float]]
"""Yields the pauses between another client's calls, for a server's rate."""


def seconds() -> float:
    return asyncio.get_running_loop().time()


def neighbours_calls(rng: random.Random, rate: float, part: float = 1 / 3) -> Iterator[float]:
    """Yield the pauses between the calls of a client that spends a part of a rate at random moments."""
    while True:
        yield rng.expovariate(rate * part)


def neighbours_even_calls(
    _: random.Random, rate: float, part: float, on: float = math.inf, off: float = 0.0
) -> Iterator[float]:
    """Yield the pauses between the calls of a client that spends a part of a rate evenly.

    Args:
        rate: of the server, in requests a second.
        part: the client's part of it.
        on, off: seconds for which it calls, and then does not, again and again.
    """
    pause = 1 / (rate * part)
    for number in itertools.count(1):
        yield pause + (off if number * pause % on < pause else 0.0)


def neighbours_bursts(rng: random.Random, rate: float, size: int = 25) -> Iterator[float]:
    """Yield the pauses between the calls of a client that spends half a rate, 25 calls at once."""
    while True:
        yield rng.expovariate(rate / 2 / size)
        for _ in range(size - 1):
            yield 0.01


class SharedServer:
    """A server that our workers share with a neighbour, which by default spends a third at random moments.

    Args:
        limits: the server's limits.
        seed: the seed of all random numbers.
        pauses: yields the pauses between the neighbour's calls.
        tells: whether responses have quota headers, and not only refusals a `retry-after`.

    Attributes:
        accepted: the number of our requests that the server has accepted.
        sent_by_neighbour: the number of requests that the neighbour has sent.
        refusals: for each series of refusals, the number of our requests that were refused.
    """

    def __init__(
        self, limits: Sequence[Limit], seed: int, *, pauses: Pauses = neighbours_calls, tells: bool = True
    ) -> None:
        self.accepted = self.sent_by_neighbour = 0
        self.refusals: list[int] = []
        self._refused_at = -1.0
        self._limits = limits
        self._pauses = pauses
        self._tells = tells
        self._rng = random.Random(seed)
        self._server = Server(limits)

    async def run(self, limiters: Sequence[Limiter], duration: float, callers: int) -> None:
        """Run so many callers, each with the next of the limiters, for so many seconds."""
        turns = itertools.islice(itertools.cycle(limiters), callers)
        callers_and_neighbour = [self._neighbour(), *(self._work(limiter) for limiter in turns)]
        tasks = [asyncio.create_task(each) for each in callers_and_neighbour]
        await asyncio.sleep(duration)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _neighbour(self) -> None:
        rate = min(limit.capacity / limit.seconds for limit in self._limits)
        for pause in self._pauses(self._rng, rate):
            await asyncio.sleep(pause)
            self._server.count(seconds())
            self.sent_by_neighbour += 1

    async def _work(self, limiter: Limiter) -> None:
        while True:
            permit = await limiter.acquire()
            granted = seconds()
            await asyncio.sleep(self._rng.lognormvariate(-2.3, 0.5))
            answer = self._server.count(seconds())
            await asyncio.sleep(self._rng.lognormvariate(-2.3, 0.5))
            self._note(granted, answer)
            report = answer.report
            if not self._tells:
                report = Report(refused=report.refused, retry_after=report.retry_after)
            permit.settle(report)

    def _note(self, granted: float, answer: Answer) -> None:
        if not answer.report.refused:
            self.accepted += 1
        elif granted <= self._refused_at:
            self.refusals[-1] += 1
        else:
            self.refusals.append(1)
            self._refused_at = seconds()
