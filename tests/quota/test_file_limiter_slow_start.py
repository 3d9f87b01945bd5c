"""A file that is new, or was deleted or unused for long, starts slowly."""

from __future__ import annotations

from pathlib import Path

from do_images_async import TokenBucket
from tests.quota.test_file_limiter import Make, make, path
from tests.quota.test_file_limiter_laws import FileWorld
from tests.redis.test_redis_laws import GRACE, LEASE, TICK
from tests.support.emptied import calls_of_a_newcomer
from tests.support.limiters import take

__all__ = ["make", "path"]  # fixtures


async def test_a_file_that_was_deleted_sends_a_newcomer_into_a_few_refusals(make: Make, path: Path) -> None:
    def delete() -> None:
        for file in path.parent.iterdir():
            file.unlink()

    assert 1 <= await calls_of_a_newcomer(make, delete) <= 5


async def test_where_nobody_else_can_have_spent_anything_all_may_go_at_once(make: Make) -> None:
    assert len(await take(make(TokenBucket(50, per=60), slow_start=False), 50)) == 50


def test_a_file_that_nobody_has_used_for_long_starts_slowly_again() -> None:
    world = FileWorld([(10, 100 * TICK)])
    world.slow_start = True
    world.exchange(world.join(), 1)
    world.answer(world.workers[0])
    world.exchange(world.workers[0], 0)
    for _ in range(2):
        world.now += 100 * TICK + GRACE + LEASE + 1_000_000
        later = world.join()
        world.exchange(later, 5)
        assert later.waiting == 4
        world.answer(later)
        world.exchange(later, 0)
    world.now += 1_000_000
    soon = world.join()
    world.exchange(soon, 5)
    assert soon.waiting == 3
    world.file.close()
