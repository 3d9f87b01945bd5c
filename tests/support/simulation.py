"""Workers, a bad network between them and the server, and the server's own count."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import attrs
import msgspec

from do_images_async._quota.protocols import Report
from tests.support.virtual_loop import VirtualLoop

__all__ = [
    "HOUR",
    "MINUTE",
    "Answer",
    "Limit",
    "Limiter",
    "Network",
    "Outcome",
    "Permit",
    "Server",
    "simulate",
]

TIMEOUT = 30.0
"""Seconds after which a worker gives an answer up."""


@attrs.frozen
class Limit:
    """So many requests in any window of so many seconds, each on a timer of its own."""

    capacity: int
    seconds: float


MINUTE, HOUR = Limit(250, 60.0), Limit(5000, 3600.0)


class Permit(Protocol):
    """The reports of a request to its limiter; see `do_images_async._quota.limiter.Permit`."""

    def settle(self, report: Report | None = None) -> None: ...
    def lose(self) -> None: ...


class Limiter(Protocol):
    """The limiter under test; None stands for a permit that nobody asks for again."""

    async def acquire(self) -> Permit | None: ...


@attrs.frozen
class Answer:
    """The headers of one response, and how long the worker of a refused request should wait."""

    report: Report
    pause: float


_Window = tuple[Limit, deque[float]]


class Server:
    """Counts every request in a sliding log for each limit.

    Args:
        forgiving: whether refused requests do not count.
        keep: seconds from the start for which arrivals are kept.

    Attributes:
        arrivals: when requests came that count.
        worst: for each limit, the most requests that were in its window at once.
    """

    def __init__(
        self,
        limits: Sequence[Limit] = (MINUTE, HOUR),
        *,
        forgiving: bool = False,
        keep: float = math.inf,
    ) -> None:
        self._windows: list[_Window] = [(limit, deque()) for limit in limits]
        self._forgiving = forgiving
        self._keep = keep
        self.arrivals: list[float] = []
        self.worst = [0 for _ in limits]
        self.accepted = 0
        self.refused = 0
        self.last_accepted = 0.0

    def count(self, now: float) -> Answer:
        """Answer a request that comes now."""
        for limit, log in self._windows:
            while log and log[0] <= now - limit.seconds:
                log.popleft()
        full = [window for window in self._windows if len(window[1]) >= window[0].capacity]
        if not (full and self._forgiving):
            self._note(now)
        if full:
            self.refused += 1
            return self._refuse(now, full)
        self.accepted += 1
        self.last_accepted = now
        return Answer(self._report(now), 0.0)

    def _note(self, now: float) -> None:
        for index, (_, log) in enumerate(self._windows):
            log.append(now)
            if len(log) > self.worst[index]:
                self.worst[index] = len(log)
        if now < self._keep:
            self.arrivals.append(now)

    def _refuse(self, now: float, full: list[_Window]) -> Answer:
        report = self._report(now)
        if full[-1] is self._windows[-1]:
            # Of the longest window, the headers only tell when its oldest request leaves.
            return Answer(msgspec.structs.replace(report, refused=True), report.reset_in or 0.0)
        pause = math.ceil(max(log[len(log) - limit.capacity] + limit.seconds - now for limit, log in full))
        return Answer(msgspec.structs.replace(report, refused=True, retry_after=float(pause)), pause)

    def _report(self, now: float) -> Report:
        limit, log = self._windows[-1]
        remaining = max(0, limit.capacity - len(log))
        reset_in = math.ceil(log[0] + limit.seconds) - math.floor(now)
        return Report(remaining=remaining, counted=limit.capacity - remaining, reset_in=float(reset_in))


class Network:
    """A bad one: most trips take a tenth of a second, one in fifty takes several, one in 200 never ends."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def trip(self) -> float:
        """Seconds from here to there, or back; infinite for what is lost."""
        luck = self._dice.random()
        if luck < 0.005:
            return math.inf
        if luck < 0.025:
            return min(self._dice.paretovariate(1.1), 60.0)
        return self._dice.lognormvariate(-2.3, 0.7)


@attrs.frozen(kw_only=True)
class Setting:
    """The task that all limiters have; see the options of `python -m benchmarks.quota`."""

    requests: int
    workers: int
    seed: int
    forgiving: bool = False


@attrs.frozen(kw_only=True)
class Outcome:
    """The result of a limiter.

    Attributes:
        accepted, refused: by the server.
        worst: for each limit, the most requests that were in its window at once.
        hours: from the first request to the last that was accepted.
        at_best: hours that a client with no latency and perfect knowledge needs for as many.
        arrivals: when requests came to the server, as far as they were kept.
    """

    accepted: int
    refused: int
    worst: list[int]
    hours: float
    at_best: float
    arrivals: list[float]

    @property
    def utilisation(self) -> float:
        return self.at_best / self.hours if self.hours else 1.0


class _Workers:
    """They send so many requests together, each worker one after the other."""

    def __init__(self, limiter: Limiter, server: Server, network: Network, requests: int) -> None:
        self._limiter = limiter
        self._server = server
        self._network = network
        self._left = requests
        self._loop = asyncio.get_running_loop()

    async def work(self) -> None:
        while self._left > 0:
            self._left -= 1
            permit = await self._limiter.acquire()
            answer = await self._exchange()
            if permit is not None:
                if answer is None:
                    permit.lose()
                else:
                    permit.settle(answer.report)
            if answer is not None and answer.pause:
                await asyncio.sleep(answer.pause)

    async def _exchange(self) -> Answer | None:
        """Send a request; None when no answer came in time, and the request may yet come to the server."""
        there = self._network.trip()
        if there > TIMEOUT:
            if there < math.inf:
                self._loop.call_later(there, lambda: self._server.count(self._loop.time()))
            await asyncio.sleep(TIMEOUT)
            return None
        await asyncio.sleep(there)
        answer = self._server.count(self._loop.time())
        back = self._network.trip()
        await asyncio.sleep(min(back, TIMEOUT - there))
        return answer if there + back <= TIMEOUT else None


async def _run(limiter: Limiter, setting: Setting, keep: float) -> Outcome:
    server = Server(forgiving=setting.forgiving, keep=keep)
    network = Network(random.Random(setting.seed))
    crew = _Workers(limiter, server, network, setting.requests)
    await asyncio.gather(*(crew.work() for _ in range(setting.workers)))
    return Outcome(
        accepted=server.accepted,
        refused=server.refused,
        worst=server.worst,
        hours=server.last_accepted / 3600,
        at_best=_seconds_at_best(server.accepted) / 3600,
        arrivals=server.arrivals,
    )


def _seconds_at_best(requests: int) -> float:
    """The least time for so many: a minute's quota at once each minute, until the hour's is spent."""
    hours, rest = divmod(requests - 1, HOUR.capacity)
    return hours * HOUR.seconds + rest // MINUTE.capacity * MINUTE.seconds


def simulate(make: type[Limiter], setting: Setting, *, keep: float) -> Outcome:
    """Have a limiter's workers send so many requests.

    Args:
        make: makes the limiter; called in the loop.
        setting: how many requests, and of whom.
        keep: seconds from the start for which the arrivals are kept.
    """

    async def main() -> Outcome:
        return await _run(make(), setting, keep)

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(turn=1000)) as runner:
        return runner.run(main())
