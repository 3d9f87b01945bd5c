"""The quota in a cluster of three nodes, and with the permissions that the operators' page names."""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from do_images_async import TokenBucket
from do_images_async.errors import QuotaStoreError, QuotaWaitError
from do_images_async.redis import RedisRateLimiter
from tests.support.redis_servers import (
    EXECUTABLE,
    RedisServer,
    await_that,
    needs_redis,
    own_redis,
    short_folder,
)

__all__ = ["own_redis"]  # a fixture

pytestmark = needs_redis

PAGE = Path(__file__).parents[1] / "docs" / "pages" / "howto" / "redis.md"
SLOTS = [(0, 5461), (5462, 10922), (10923, 16383)]
BUCKET = TokenBucket(5, per=60)


async def spend_all(limiter: RedisRateLimiter) -> None:
    for _ in range(BUCKET.capacity):
        (await limiter.acquire(max_wait=20)).settle()
    with pytest.raises(QuotaWaitError):
        await limiter.acquire(max_wait=1)


@pytest.mark.parametrize(("database", "more"), [(0, ()), (1, ("+select",))])
async def test_the_permissions_that_the_page_names_are_enough(
    own_redis: RedisServer, database: int, more: tuple[str, ...]
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("ACL SETUSER"))
    assert all(f"`{permission}`" in page for permission in more)
    with own_redis.client() as client:
        client.execute_command(*line.replace("PASSWORD", "sesame").split(), *more)
    async with (
        Redis.from_url(own_redis.url, db=database, username="images", password="sesame") as connected,
        RedisRateLimiter(connected, "dop_v1_a", BUCKET) as limiter,
    ):
        await spend_all(limiter)


def free_port() -> int:
    """Return a port that is free, and also 10,000 above, where a cluster's nodes talk to each other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1]) % 20_000 + 20_000


@pytest.fixture
def cluster() -> Iterator[list[int]]:
    """Three nodes, and the ports that they listen at."""
    assert EXECUTABLE is not None
    with contextlib.ExitStack() as stack:
        ports = [free_port() for _ in SLOTS]
        for port in ports:
            folder = stack.enter_context(short_folder())
            options = ["--port", str(port), "--cluster-enabled", "yes", "--dir", folder, "--save", ""]
            process = subprocess.Popen([EXECUTABLE, *options], stdout=subprocess.DEVNULL)  # noqa: S603
            stack.callback(process.wait)
            stack.callback(process.kill)
        nodes = [stack.enter_context(redis.Redis(port=port)) for port in ports]
        await_all(nodes, lambda node: node.ping())
        for node, (first, last) in zip(nodes, SLOTS, strict=True):
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for port in ports[1:]:
            nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        await_all(nodes, lambda node: "ok" in str(ask(node, "INFO")))
        await_all(nodes, lambda node: len(ask(node, "SHARDS")) == len(SLOTS))
        yield ports


def ask(node: redis.Redis, question: str) -> Any:
    return cast("Any", node).execute_command("CLUSTER", question)


def await_all(nodes: list[redis.Redis], condition: Callable[[redis.Redis], object]) -> None:
    for node in nodes:
        await_that(partial(condition, node))


@pytest.mark.slow
async def test_a_cluster_of_three_nodes_keeps_the_quota(cluster: list[int]) -> None:
    async with (
        RedisCluster(host="127.0.0.1", port=cluster[0]) as connected,
        RedisRateLimiter(connected, "dop_v1_a", BUCKET) as limiter,
    ):
        await spend_all(limiter)


@pytest.mark.slow
async def test_a_client_of_one_node_hears_that_the_keys_are_another_nodes(cluster: list[int]) -> None:
    outcomes: list[str] = []
    for port in cluster:
        async with Redis(port=port) as node, RedisRateLimiter(node, "dop_v1_a", BUCKET) as limiter:
            try:
                await limiter.acquire(max_wait=20)
            except QuotaStoreError as error:
                outcomes.append(f"{error.refused} {error.reason.split(':')[0]}")
    assert outcomes == ["True MovedError"] * (len(cluster) - 1)
