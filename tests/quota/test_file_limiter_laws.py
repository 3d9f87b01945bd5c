"""The laws of the quota in a file: workers come, go, die, ask twice and report late, and the machine reboots.

Whatever they do, the server that counts each request at the worst instant finds no window of any bucket
overdrawn, and no token is lost for good.
"""

from __future__ import annotations

import itertools
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.store import Exchange
from tests.redis.test_redis_laws import GRACE, LEASE, TICK, World, bucket, run
from tests.support.slow import examples
from tests.support.virtual_file import VirtualFile
from tests.support.virtual_redis import START

law = settings(derandomize=True, deadline=None, database=None)


class FileWorld(World):
    """The workers, the file, and what the server may have counted."""

    def __init__(self, buckets: list[tuple[int, int]]) -> None:
        self.buckets = sorted(buckets, key=lambda each: each[1])
        self.now = START
        self.workers = []
        self.names = itertools.count()
        self.asked = itertools.count(1)
        self.past = []
        limits = [TokenBucket(capacity, per=period / 1e6, margin=0) for capacity, period in self.buckets]
        self.file = VirtualFile(limits, lambda: self.now)

    def _send(self, ask: Exchange) -> dict[str, Any]:
        reply = self.file.exchange(ask)
        return {
            "epoch": reply.epoch,
            "gone": reply.gone,
            "granted": [(reserve, [each.serial for each in some]) for reserve, some in reply.tickets.items()],
            "finished": max((each.finished for some in reply.tickets.values() for each in some), default=0),
            "free": list(reply.free),
            "wait": (reply.wait or 0) * 1e6,
        }

    def reboot(self) -> None:
        for worker in list(self.workers):
            self.die(worker)
        # Whoever had a lease is dead: nothing is sent any more, and all is counted when the grace is over.
        latest = self.now + GRACE
        self.past = [attrs.evolve(each, latest=min(each.latest, latest)) for each in self.past]
        self.file.reboot()


steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["ask", "ask", "ask", "answer", "answer", "lose", "unsend", "wait", "wait", "die", "join"]
        ),
        st.integers(0, 7),
        st.integers(0, 30),
    ),
    max_size=40,
)


@settings(law, max_examples=examples(200))
@given(st.lists(bucket, min_size=1, max_size=2), st.lists(steps, min_size=1, max_size=3), st.booleans())
def test_no_window_is_overdrawn_across_boots(
    buckets: list[tuple[int, int]], lives: list[list[tuple[str, int, int]]], slow_start: bool
) -> None:
    world = FileWorld(buckets)
    world.slow_start = slow_start
    for moves in lives:
        run(world, moves)
        world.reboot()
        world.check()
    world.file.close()


@settings(law, max_examples=examples(200))
@given(st.lists(bucket, min_size=1, max_size=2), steps, st.booleans())
def test_no_token_is_lost_for_good(
    buckets: list[tuple[int, int]], moves: list[tuple[str, int, int]], slow_start: bool
) -> None:
    world = FileWorld(buckets)
    world.slow_start = slow_start
    run(world, moves)
    for worker in list(world.workers):
        world.die(worker)
    world.now += LEASE + GRACE + max(period for _, period in buckets) + 1_300_000
    fewest = min(capacity for capacity, _ in buckets)
    reply = world.exchange(world.join(), fewest, at_once=True)
    assert len(reply["granted"][0][1]) == fewest
    assert reply["free"] == [capacity - fewest for capacity, _ in world.buckets]
    world.file.close()


def expect_all_to_wait(world: FileWorld, *, after: int, until: int) -> None:
    """Expect that a newcomer gets none of three permits after some time, and all of them some time later."""
    world.now += after
    later = world.join()
    world.exchange(later, 3)
    assert later.waiting == 3
    world.now += until
    world.exchange(later, 3)
    assert later.waiting == 0
    world.file.close()


def test_after_a_boot_it_is_as_if_the_machine_had_been_off_for_no_time() -> None:
    world = FileWorld([(3, 100 * TICK)])
    worker = world.join()
    world.exchange(worker, 3)
    for _ in range(3):
        world.answer(worker)
    world.exchange(worker, 0)
    world.now += 60 * TICK
    world.reboot()
    expect_all_to_wait(world, after=130 * TICK, until=100 * TICK)


def test_requests_that_were_lost_before_a_boot_still_count() -> None:
    world = FileWorld([(3, 100 * TICK)])
    worker = world.join()
    world.exchange(worker, 3)
    for _ in range(3):
        world.lose(worker)
    world.exchange(worker, 0)  # the server may count them for a grace from now
    world.reboot()
    expect_all_to_wait(world, after=GRACE + 99 * TICK, until=300 * TICK)


def test_requests_in_flight_at_a_boot_count_until_the_grace_is_over() -> None:
    world = FileWorld([(3, 100 * TICK)])
    world.exchange(world.join(), 3)
    world.now += LEASE // 2
    world.reboot()
    expect_all_to_wait(world, after=GRACE + 99 * TICK, until=300 * TICK)


def test_soon_after_a_boot_nothing_goes_in_a_burst() -> None:
    """A power cut may have taken the last seconds, and a disk that was restored more."""
    world = FileWorld([(10, 100 * TICK)])
    world.exchange(world.join(), 0)
    world.reboot()
    world.now += 30 * TICK
    worker = world.join()
    world.exchange(worker, 5)
    assert worker.waiting == 4
    world.file.close()


def test_a_clock_that_goes_back_is_a_boot() -> None:
    """Nobody can set this one; should it go back all the same, tokens are late, and never early."""
    world = FileWorld([(1, 10 * TICK)])
    worker = world.join()
    world.exchange(worker, 1)
    world.answer(worker)
    world.exchange(worker, 0)
    world.now -= 1000 * TICK
    other = world.join()
    world.exchange(other, 1)
    assert other.waiting == 1
    world.now += 10 * TICK
    world.exchange(other, 1)
    assert other.waiting == 0
    world.file.close()
