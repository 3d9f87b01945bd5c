"""The quota under Redis Sentinel: its primary dies, a replica is promoted, and the calls go on."""

# redis-py leaves `**kwargs` of its functions untyped.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from do_images_async import ImagesAPI, RetryPolicy, TokenBucket
from do_images_async.redis import RedisRateLimiter
from do_images_async.testing import ImagesEmulator, Quota
from tests.support.redis_servers import EXECUTABLE, await_that, needs_redis, short_folder
from tests.support.servers import eventually, unused_port

pytestmark = needs_redis

PAGE = Path(__file__).parents[1] / "docs" / "pages" / "howto" / "redis.md"
BUCKETS = (TokenBucket(100, per=2), TokenBucket(5000, per=60))
QUOTAS = tuple(Quota(bucket.capacity, bucket.per) for bucket in BUCKETS)
NAME = "mymaster"
make_sentinel: Any = Sentinel  # has no types

SENTINEL = """
port {sentinel}
dir {folder}
sentinel monitor mymaster 127.0.0.1 {primary} 1
sentinel down-after-milliseconds mymaster 500
sentinel failover-timeout mymaster 3000
"""


@attrs.frozen
class Replicated:
    """A primary, its replica, and a sentinel that watches both."""

    primary: subprocess.Popen[bytes]
    ports: dict[str, int]

    def is_promoted(self) -> bool:
        """Return whether the replica is the primary now."""
        with redis.Redis(port=self.ports["replica"]) as replica:
            return replication_of(replica)["role"] == "master"


def replication_of(server: redis.Redis) -> dict[str, object]:
    return cast("dict[str, object]", server.info("replication"))


@pytest.fixture
def replicated() -> Iterator[Replicated]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(short_folder()))
        ports = {name: unused_port() for name in ("primary", "replica", "sentinel")}

        def start(*options: str) -> subprocess.Popen[bytes]:
            assert EXECUTABLE is not None
            process = subprocess.Popen([EXECUTABLE, *options], stdout=subprocess.DEVNULL)  # noqa: S603
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        common = ("--save", "", "--repl-diskless-sync-delay", "0", "--dir", str(folder))
        primary = start("--port", str(ports["primary"]), *common)
        primary_client, replica_client, sentinel_client = (
            stack.enter_context(redis.Redis(port=port)) for port in ports.values()
        )
        await_that(lambda: bool(primary_client.ping()))
        start(
            "--port", str(ports["replica"]), "--replicaof", "127.0.0.1", str(ports["primary"]), *common
        )  # fmt: skip
        await_that(lambda: replication_of(replica_client)["master_link_status"] == "up")
        configuration = folder / "sentinel.conf"
        configuration.write_text(SENTINEL.format(folder=folder, **ports), encoding="utf-8")
        start(str(configuration), "--sentinel")
        await_that(lambda: knows_its_replica(sentinel_client))
        yield Replicated(primary, ports)


def knows_its_replica(sentinel: Any) -> bool:
    replicas = sentinel.execute_command("SENTINEL", "REPLICAS", NAME)
    return "master-link-status" in str(replicas) and "ok" in str(replicas)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
async def test_calls_go_on_after_a_failover_and_none_is_refused(
    replicated: Replicated, end: signal.Signals
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(ImagesEmulator(quotas=QUOTAS, latency=0.01, jitter=0.04))
        apis: list[ImagesAPI] = []
        for _ in range(2):
            sentinel = make_sentinel([("127.0.0.1", replicated.ports["sentinel"])], socket_timeout=1.0)
            primary: Redis = sentinel.master_for(NAME)
            for client in (primary, *sentinel.sentinels):
                stack.push_async_callback(client.aclose)
            limiter = await stack.enter_async_context(
                RedisRateLimiter(primary, emulator.token, *BUCKETS, store_timeout=30)
            )
            api = ImagesAPI(
                emulator.token, base_url=emulator.url, limiter=limiter, retry=RetryPolicy(attempts=1)
            )
            apis.append(await stack.enter_async_context(api))

        ended = asyncio.Event()

        async def call(api: ImagesAPI) -> None:
            while not ended.is_set():
                await api.get("ubuntu-24-04-x64")

        calls = [asyncio.create_task(call(api)) for api in apis for _ in range(20)]

        async def served(number: int) -> None:
            target = len(emulator.requests) + number
            await eventually(
                lambda: any(map(has_failed, calls)) or len(emulator.requests) >= target, within=60
            )

        await served(150)
        replicated.primary.send_signal(end)
        await eventually(replicated.is_promoted, within=60)
        await served(3 * BUCKETS[0].capacity)
        ended.set()
        await asyncio.gather(*calls)
        assert set(Counter(entry.status for entry in emulator.requests)) == {200}


def has_failed(task: asyncio.Task[None]) -> bool:
    return task.done() and task.exception() is not None
