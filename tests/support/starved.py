"""Many workers of one Redis that wait for the documented quota, in virtual time."""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import cast

import attrs

from do_images_async.redis import RedisRateLimiter
from tests.support.redis_servers import RedisServer
from tests.support.virtual_redis import virtual_redis
from tests.support.virtual_time import run_virtually

__all__ = ["Costs", "starve"]


@attrs.frozen(kw_only=True)
class Costs:
    """What workers cost a Redis, counted once all of them wait.

    Attributes:
        seconds: of virtual time.
        permits: how many they got.
        commands: that the server has carried out, including those in scripts.
        exchanges: that the workers have made.
        milliseconds: that the server has spent on the exchanges.
    """

    seconds: float
    permits: int
    commands: int
    exchanges: int
    milliseconds: float


def starve(server: RedisServer, workers: int, seconds: float = 300) -> Costs:
    """Return what workers cost, each with three callers, that wait for the documented quota."""
    granted = 0

    async def work(limiter: RedisRateLimiter) -> None:
        nonlocal granted
        while True:
            (await limiter.acquire()).settle()
            granted += 1

    async def main() -> Costs:
        async with AsyncExitStack() as stack:
            limiters = [
                await stack.enter_async_context(
                    RedisRateLimiter(virtual_redis(server), "dop_v1_a", slow_start=False)
                )
                for _ in range(workers)
            ]
            tasks = [asyncio.create_task(work(limiter)) for limiter in limiters for _ in range(3)]
            await asyncio.sleep(100)
            before, already = _counts(server), granted
            await asyncio.sleep(seconds)
            spent = [after - count for after, count in zip(_counts(server), before, strict=True)]
            permits = granted - already
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            commands, exchanges, microseconds = spent
            return Costs(
                seconds=seconds,
                permits=permits,
                commands=commands,
                exchanges=exchanges,
                milliseconds=microseconds / 1000,
            )

    return run_virtually(main(), turn=1000)


def _counts(server: RedisServer) -> tuple[int, int, int]:
    """Return the commands of a server, its exchanges, and the microseconds of those."""
    with server.client() as client:
        stats = cast("dict[str, dict[str, int]]", client.info("commandstats"))
    scripts = stats.get("cmdstat_evalsha", {"calls": 0, "usec": 0})
    return sum(each["calls"] for each in stats.values()), scripts["calls"], scripts["usec"]
