"""Four processes, one token: one is killed, one is stopped for a while, and the server never says no."""

from __future__ import annotations

from pathlib import Path

import pytest

from do_images_async import TokenBucket
from tests.support.quota_processes import Processes
from tests.support.redis_servers import RedisServer, needs_redis, redis_server, shared_redis

__all__ = ["redis_server", "shared_redis"]  # fixtures

pytestmark = needs_redis

BUCKETS = (TokenBucket(200, per=2), TokenBucket(5000, per=60))


@pytest.mark.slow
async def test_four_processes_spend_one_quota_to_the_full_and_no_more(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    processes = Processes(limiter=redis_server.url, state=tmp_path, buckets=BUCKETS)
    result = await processes.kill_one_and_stop_one(4, windows=2)
    assert set(result.statuses) == {200}, result
    assert result.used(BUCKETS[0]) >= 0.75, result  # 0.95 on an idle machine
    assert result.returncodes == [0, 0, 0]
    assert min(result.answered[1:]) >= 0.15 * result.statuses[200], "a worker got much less than its share"
