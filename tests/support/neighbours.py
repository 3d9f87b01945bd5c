"""Life beside somebody who spends the same quota, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from do_images_async._quota.protocols import Limiter, Report
from tests.support.simulation import Answer, Limit, Server

__all__ = ["Neighbourhood", "Pauses", "neighbours_bursts", "neighbours_calls"]

Pauses = Callable[[random.Random, float], Iterator[float]]
"""Makes the pauses between somebody's calls, at a server of a rate."""


def seconds() -> float:
    return asyncio.get_running_loop().time()


def neighbours_calls(dice: random.Random, rate: float) -> Iterator[float]:
    """The pauses between the calls of somebody who spends a third of a rate."""
    while True:
        yield dice.expovariate(rate / 3)


def neighbours_bursts(dice: random.Random, rate: float, size: int = 25) -> Iterator[float]:
    """The pauses between the calls of somebody who spends half a rate, 25 calls at once."""
    while True:
        yield dice.expovariate(rate / 2 / size)
        for _ in range(size - 1):
            yield 0.01


class Neighbourhood:
    """Our workers and a neighbour at one server, who by default spends a third at random moments.

    Args:
        limits: of the server.
        seed: of all dice.
        pauses: between the neighbour's calls.
        tells: whether responses tell of the quota, and not only refusals of when to come back.

    Attributes:
        accepted: how many of our requests the server has accepted.
        theirs: how many the neighbour has sent.
        closings: for each time that the server closed on us, how many of our requests it refused.
    """

    def __init__(
        self, limits: Sequence[Limit], seed: int, *, pauses: Pauses = neighbours_calls, tells: bool = True
    ) -> None:
        self.accepted = self.theirs = 0
        self.closings: list[int] = []
        self._closed_at = -1.0
        self._limits = limits
        self._pauses = pauses
        self._tells = tells
        self._dice = random.Random(seed)
        self._server = Server(limits)

    async def live(self, limiters: Sequence[Limiter], duration: float, callers: int) -> None:
        """Let so many of us call, each with the next of the limiters, for so many seconds."""
        turns = itertools.islice(itertools.cycle(limiters), callers)
        residents = [self._neighbour(), *(self._work(limiter) for limiter in turns)]
        tasks = [asyncio.create_task(each) for each in residents]
        await asyncio.sleep(duration)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _neighbour(self) -> None:
        rate = min(limit.capacity / limit.seconds for limit in self._limits)
        for pause in self._pauses(self._dice, rate):
            await asyncio.sleep(pause)
            self._server.count(seconds())
            self.theirs += 1

    async def _work(self, limiter: Limiter) -> None:
        while True:
            permit = await limiter.acquire()
            granted = seconds()
            await asyncio.sleep(self._dice.lognormvariate(-2.3, 0.5))
            answer = self._server.count(seconds())
            await asyncio.sleep(self._dice.lognormvariate(-2.3, 0.5))
            self._note(granted, answer)
            report = answer.report
            if not self._tells:
                report = Report(refused=report.refused, retry_after=report.retry_after)
            permit.settle(report)

    def _note(self, granted: float, answer: Answer) -> None:
        if not answer.report.refused:
            self.accepted += 1
        elif granted <= self._closed_at:
            self.closings[-1] += 1
        else:
            self.closings.append(1)
            self._closed_at = seconds()
