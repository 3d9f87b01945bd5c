"""An hour's load in compressed time, with faults and cancellations; prints the outcomes.

`python -m benchmarks.soak`: 5,000 calls, 200 in flight, on the documented buckets 120 times as fast. One
request in twenty meets a fault, one call in fifty is cancelled at a random moment. Every call must end as an
answer, an error or a cancellation, and nothing may be left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from do_images_async import Image, ImagesAPI, RateLimiter, RetryPolicy, TokenBucket, errors
from do_images_async.testing import Fault, ImagesEmulator

IN_FLIGHT = 200
CANCELLED = 0.02
FASTER = 120
FAULTS: tuple[dict[str, Any], ...] = (
    {"broken": "reset"},
    {"broken": "reset", "after": True},
    {"broken": "cut"},
    {"status": 500},
    {"status": 503, "after": True},
    {"status": 502, "body": b"<html>"},
    {"body": b'{"image": {'},
    {"delay": 1.5},
    {"status": 429, "headers": {"retry-after": "0"}},
    {"delay": 0.3},
)


@attrs.frozen
class Account:
    """The outcomes of the calls, and the resources that are left.

    Attributes:
        calls: the number of calls.
        outcomes: the number of calls by the name of their error.
        requests: the number of requests that the server saw.
        left: the numbers of tasks, file descriptors, permits and waiters that remain.
        memory: resident bytes after the first third, and at the end.
    """

    calls: int
    outcomes: Counter[str]
    requests: int
    left: dict[str, int]
    memory: tuple[int, int]

    @property
    def sound(self) -> bool:
        """Return whether all calls have an outcome, nothing is left, and memory grew by under a tenth."""
        first, last = self.memory
        whole = sum(self.outcomes.values()) == self.calls
        return whole and not any(self.left.values()) and last < first * 1.1 + 2**20


async def soak(calls: int, *, seed: int = 4) -> Account:
    """Make so many calls, 200 at a time."""
    tasks, descriptors = len(asyncio.all_tasks()), _descriptors()
    rng = random.Random(seed)
    limiter = RateLimiter(
        TokenBucket(250, per=60 / FASTER), TokenBucket(5000, per=3600 / FASTER), grace=120 / FASTER
    )
    outcomes: Counter[str] = Counter()
    memory: list[int] = []
    async with (
        ImagesEmulator(quotas=None, journal_limit=1000, import_seconds=0.0, seed=seed) as emulator,
        ImagesAPI(
            emulator.token,
            base_url=emulator.url,
            limiter=limiter,
            retry=RetryPolicy(base=0.01, cap=0.1),
            timeout=1.0,
        ) as api,
    ):
        served = 0

        def count(_: object) -> None:
            nonlocal served
            served += 1

        emulator.on_request.append(count)
        for number, fault in enumerate(FAULTS):
            share = 0.05 / len(FAULTS) / (1 - 0.05 * number / len(FAULTS))
            emulator.faults.add(Fault(times=None, probability=share, **fault))
        todo = iter(range(calls))
        third = calls // 3

        async def work(todo: Iterator[int]) -> None:
            for number in todo:
                outcomes[await _one_call(api, rng)] += 1
                if number == third:
                    memory.append(_resident())

        await asyncio.gather(*(work(todo) for _ in range(IN_FLIGHT)))
        stats = limiter.stats()
        left = {"permits": stats.in_flight, "waiters": stats.waiting}
    await asyncio.sleep(0.1)
    gc.collect()
    memory.append(_resident())
    left["tasks"] = len(asyncio.all_tasks()) - tasks
    left["file descriptors"] = _descriptors() - descriptors
    return Account(calls, outcomes, served, left, (memory[0], memory[-1]))


async def _one_call(api: ImagesAPI, rng: random.Random) -> str:
    call = asyncio.ensure_future(_any_call(api, rng))
    if rng.random() < CANCELLED:
        asyncio.get_running_loop().call_later(rng.uniform(0, 0.2), call.cancel)
    try:
        return await call
    except asyncio.CancelledError:
        return "cancelled"
    except errors.DOImagesError as error:
        return f"{type(error).__name__}{', outcome unknown' if error.outcome_unknown else ''}"


async def _any_call(api: ImagesAPI, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.1:
        await api.list_page(private=True)
    elif kind < 0.15:
        new = await api.create_custom(name="soak", url="https://example.com/a.qcow2", region="nyc3")
        await api.delete(new.id)
    else:
        image = await api.get("ubuntu-24-04-x64")
        assert isinstance(image, Image)
    return "answered"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def main() -> int:
    """Run it and print the outcomes; return 0 if they are sound, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000, help="an hour's quota by default")
    account = asyncio.run(soak(parser.parse_args().calls))
    print(f"{account.calls} calls, {IN_FLIGHT} in flight; the server saw {account.requests} requests")
    for outcome, count in account.outcomes.most_common():
        print(f"  {outcome:<44}{count:>7}")
    print("left behind: " + ", ".join(f"{count} {name}" for name, count in account.left.items()))
    print(
        "memory after a third, and at the end: {:.1f}, {:.1f} MiB".format(
            *(m / 2**20 for m in account.memory)
        )
    )
    print("sound" if account.sound else "NOT SOUND")
    return not account.sound


if __name__ == "__main__":
    sys.exit(main())
