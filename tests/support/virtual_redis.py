"""The script of the shared quota on a real server, but on the clock of a loop whose time is virtual."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import redis
from redis.asyncio import Redis

from do_images_async.redis.store import SCRIPT
from tests.support.redis_servers import RedisServer
from tests.support.virtual_time import clock

__all__ = ["SCRIPT_BY_ARGUMENT", "START", "virtual_redis"]

_TIME = "redis.call('TIME')"
_ARGUMENT = "{math.floor(tonumber(ARGV[2]) / 1000000), tonumber(ARGV[2]) % 1000000}"
_INFO = "redis.pcall('INFO', 'replication')"
_INFO_ARGUMENT = f"(ARGV[3] and 'master_replid:' .. ARGV[3] or {_INFO})"
assert _TIME in SCRIPT
assert _INFO in SCRIPT

SCRIPT_BY_ARGUMENT = SCRIPT.replace(_TIME, _ARGUMENT).replace(_INFO, _INFO_ARGUMENT)
"""Takes the time, in microseconds, as its second argument, and perhaps a replication id as its third."""

START = 1_700_000_000_000_000
"""A moment such as a server has today, in microseconds: sums are as inexact as they are there."""


class _VirtualRedis:
    """The methods of a Redis client that the limiter uses; an exchange takes no time."""

    def __init__(self, client: redis.Redis) -> None:
        self._script = client.register_script(SCRIPT_BY_ARGUMENT)

    def register_script(self, script: str) -> Callable[..., Awaitable[Any]]:
        assert script == SCRIPT

        async def run(keys: list[str], args: list[bytes]) -> Any:
            return self._script(keys=keys, args=[*args, START + clock() // 1000])

        return run


def virtual_redis(server: RedisServer) -> Redis:
    """Return a client for one or more limiters in a `VirtualLoop`."""
    return cast("Redis", _VirtualRedis(server.client()))
