"""One token, one quota: across clients, event loops and threads of a process."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import random
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from do_images_async import FileRateLimiter, ImagesAPI, Limiter, RateLimiter, TokenBucket
from do_images_async._quota import limiter as ratelimit
from do_images_async._quota import sharing
from do_images_async._quota.buckets import DOCUMENTED
from do_images_async._quota.protocols import Permit
from do_images_async.errors import ClientStateError, QuotaWaitError
from do_images_async.testing import ImagesEmulator, Quota
from tests.conftest import TOKEN
from tests.support.virtual_time import let_run

OTHER = "dop_v1_" + "b" * 64


async def test_clients_with_the_same_token_share_a_limiter() -> None:
    async with ImagesEmulator() as emulator:
        one = ImagesAPI(emulator.token, base_url=emulator.url)
        other = ImagesAPI(emulator.token, base_url=f"{emulator.url}/")
        assert one.limiter is other.limiter


@pytest.mark.parametrize(
    "changed", [{"token": OTHER}, {"base_url": "http://127.0.0.1:1"}], ids=["token", "origin"]
)
def test_another_token_or_origin_is_another_quota(changed: dict[str, Any]) -> None:
    same: dict[str, Any] = {"token": "dop_v1_a", "base_url": "https://api.digitalocean.com"}
    assert ImagesAPI(**same).limiter is not ImagesAPI(**(same | changed)).limiter


SPELLINGS = [
    ("https://api.digitalocean.com", "https://api.digitalocean.com:443"),
    ("https://api.digitalocean.com", "https://api.digitalocean.com."),
    ("https://api.digitalocean.com", "https://API.digitalocean.com.:443/v2/"),
    ("http://127.0.0.1", "http://127.0.0.1:80"),
    ("http://[::1]", "http://[::1]:80"),
]
"""Addresses of one server."""


@pytest.mark.parametrize(("address", "spelling"), SPELLINGS)
def test_another_spelling_of_an_origin_is_no_other_quota(address: str, spelling: str) -> None:
    one = ImagesAPI("dop_v1_a", base_url=address)
    assert ImagesAPI("dop_v1_a", base_url=spelling).limiter is one.limiter


@pytest.mark.parametrize(("address", "spelling"), SPELLINGS)
async def test_nor_is_it_one_in_a_file(tmp_path: Path, address: str, spelling: str) -> None:
    async with FileRateLimiter(tmp_path / "quota.db") as limiter:
        one = ImagesAPI("dop_v1_a", base_url=address, limiter=limiter)
        (await one.limiter.acquire()).release()
        assert ImagesAPI("dop_v1_a", base_url=spelling, limiter=limiter).limiter is one.limiter


@pytest.mark.parametrize(("address", "spelling"), SPELLINGS)
async def test_nor_where_no_client_names_it(tmp_path: Path, address: str, spelling: str) -> None:
    limiters = [
        FileRateLimiter(
            tmp_path / "quota.db", token="dop_v1_a", base_url=url, buckets=[TokenBucket(1, per=60)]
        )
        for url in (address, spelling)
    ]
    await limiters[0].acquire()
    with pytest.raises(QuotaWaitError):
        await limiters[1].acquire(max_wait=0)
    for limiter in limiters:
        await limiter.aclose()


def test_another_port_is_another_quota() -> None:
    one = ImagesAPI("dop_v1_a", base_url="https://api.digitalocean.com")
    assert ImagesAPI("dop_v1_a", base_url="https://api.digitalocean.com:80").limiter is not one.limiter


def test_a_limiter_that_is_passed_in_wins() -> None:
    limiter = RateLimiter(TokenBucket(5, per=1))
    assert ImagesAPI("dop_v1_a", limiter=limiter).limiter is limiter
    assert ImagesAPI("dop_v1_a").limiter is not limiter


@pytest.mark.slow
async def test_a_client_for_each_request_stays_under_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("do_images_async._quota.limiter.DOCUMENTED", (TokenBucket(10, per=60),))
    # An earlier test's emulator may have had the same port, and its limiter lives for an hour.
    monkeypatch.setattr(sharing, "entries", {})
    async with ImagesEmulator(quotas=(Quota(10, 60.0),)) as emulator:
        for _ in range(10):
            async with ImagesAPI(emulator.token, base_url=emulator.url) as api:
                await api.list_page()
            del api
            gc.collect()
        async with ImagesAPI(emulator.token, base_url=emulator.url, max_wait=0) as api:
            with pytest.raises(QuotaWaitError):
                await api.list_page()
        assert emulator.requests.count(status=429) == 0
        assert len(emulator.requests) == 10


def test_a_limiter_is_forgotten_once_nobody_uses_it_and_its_tokens_are_back() -> None:
    limiter = weakref.ref(ImagesAPI("dop_v1_a").limiter)
    asyncio.run(spend(limiter()))
    gc.collect()
    ImagesAPI(OTHER)
    assert limiter() is not None, "its token is not back"
    later = time.monotonic_ns() + 3606 * 10**9
    vars(limiter())["_clock"] = lambda: later
    ImagesAPI(OTHER)
    gc.collect()
    assert limiter() is None


async def spend(limiter: Limiter | None) -> None:
    assert limiter is not None
    (await limiter.acquire()).settle()


def test_the_registry_does_not_keep_the_token() -> None:
    api = ImagesAPI(OTHER)
    assert OTHER not in repr(sharing.entries)
    assert isinstance(api.limiter, RateLimiter)
    assert api.limiter.buckets == DOCUMENTED


@pytest.mark.slow
async def test_threads_with_loops_of_their_own_stay_under_one_quota() -> None:
    quota = 20
    limiter = RateLimiter(TokenBucket(quota, per=0.4))
    async with ImagesEmulator(quotas=(Quota(quota, 0.4),)) as emulator:

        async def worker() -> int:
            async with ImagesAPI(emulator.token, base_url=emulator.url, limiter=limiter) as api:
                await asyncio.gather(*(api.list_page(per_page=1) for _ in range(15)))
            return 15

        with ThreadPoolExecutor(4) as pool:
            loop = asyncio.get_running_loop()
            done = await asyncio.gather(
                *(loop.run_in_executor(pool, lambda: asyncio.run(worker())) for _ in range(4))
            )
        assert sum(done) == len(emulator.requests) == 60
        assert emulator.requests.count(status=429) == 0
        assert emulator.requests.worst_window(0.4) <= quota


def test_nothing_is_lost_when_threads_cancel_lose_and_return_at_random() -> None:
    limiter = RateLimiter(TokenBucket(5, per=0.01, margin=0), TokenBucket(40, per=0.05, margin=0), grace=0.01)
    served = [0] * 6

    async def call(index: int, dice: random.Random) -> None:
        permit = await limiter.acquire(reserve=dice.choice((0, 0, 2)))
        report = dice.choice((permit.settle, permit.settle, permit.release, permit.lose))
        try:
            await asyncio.sleep(dice.random() * 0.002)
        finally:
            report()
        served[index] += 1

    async def storm(index: int) -> None:
        dice = random.Random(index)
        calls = [asyncio.create_task(call(index, dice)) for _ in range(60)]
        for task in dice.sample(calls, 20):
            await asyncio.sleep(dice.random() * 0.002)
            task.cancel()
        await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)

    threads = [threading.Thread(target=asyncio.run, args=(storm(index),)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert all(count >= 40 for count in served)
    time.sleep(0.1)
    stats = limiter.stats()
    assert (stats.available, stats.waiting) == ((5, 40), 0)


def test_a_waiter_whose_loop_is_gone_does_not_hold_up_the_others() -> None:
    limiter = RateLimiter(TokenBucket(1, per=0.05, margin=0))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(spend(limiter))
    abandoned = loop.create_task(limiter.acquire())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def later() -> None:
        async with asyncio.timeout(5):
            (await limiter.acquire()).settle()

    asyncio.run(later())
    assert not abandoned.done()
    drop(abandoned)
    assert limiter.stats().waiting == 0


def test_thousands_of_waiters_whose_loop_is_gone_are_forgotten_at_once() -> None:
    limiter = RateLimiter(TokenBucket(1, per=0.1, margin=0))
    tasks: list[asyncio.Task[Permit]] = []

    async def leave_them() -> None:
        permit = await limiter.acquire()
        tasks.extend(asyncio.ensure_future(limiter.acquire()) for _ in range(3000))
        await asyncio.sleep(0)
        permit.settle()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_them())
    assert limiter.stats().waiting == 3000
    loop.close()
    assert limiter.stats().waiting == 0
    assert limiter.next_permit_in() < 1
    asyncio.run(spend(limiter))
    assert limiter.stats().granted == 2
    drop(*tasks)


@pytest.mark.parametrize("granted_by", ["its own loop", "another"])
def test_what_was_granted_to_a_loop_that_is_gone_is_free_again(granted_by: str) -> None:
    limiter = RateLimiter(TokenBucket(1, per=60))
    loop = asyncio.new_event_loop()
    permit = loop.run_until_complete(take_one(limiter))
    waiting = loop.create_task(limiter.acquire())
    loop.run_until_complete(asyncio.sleep(0))

    if granted_by == "its own loop":
        loop.call_soon(permit.release)
        loop.call_soon(loop.stop)
        loop.run_forever()
    else:
        permit.release()
    loop.close()
    # Collected while the lock is held, as the garbage collector may do it.
    with vars(limiter)["_lock"]:
        drop(waiting)
    assert limiter.stats().available == (1,)
    assert limiter.stats().granted == 0


def test_a_loop_that_is_closed_during_the_grant_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = RateLimiter(TokenBucket(2000, per=60), slow_start=False)
    loop = asyncio.new_event_loop()
    permits = loop.run_until_complete(take(limiter, 2000))
    tasks = [loop.create_task(limiter.acquire()) for _ in range(2000)]
    loop.run_until_complete(asyncio.sleep(0))
    # It closes in another thread after the limiter has looked.
    monkeypatch.setattr(loop, "is_closed", lambda: False)
    monkeypatch.setattr(loop, "call_soon_threadsafe", closed)
    for permit in permits:
        permit.release()
    monkeypatch.undo()
    loop.close()
    assert limiter.stats().available == (2000,)
    drop(*tasks)


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now


async def spend_at_once(limiter: RateLimiter, number: int) -> None:
    """Take permits one by one without waiting, and settle them."""
    for _ in range(number):
        (await limiter.acquire(max_wait=0)).settle()


@pytest.mark.parametrize("when", ["before the grant", "before they have taken it"])
def test_calls_in_a_loop_that_is_stopped_hold_nobody_up_and_go_on_with_it(when: str) -> None:
    clock = Clock()
    limiter = RateLimiter(TokenBucket(3, per=60), slow_start=False, clock=clock)
    loop = asyncio.new_event_loop()
    calls: list[asyncio.Task[Permit]] = []

    async def begin() -> None:
        await spend_at_once(limiter, 3)
        calls.extend(asyncio.ensure_future(limiter.acquire()) for _ in range(5))
        await let_run()
        if when == "before the grant":
            return
        clock.now += 61_000_000_000
        # Another thread grants them the tokens while this one is busy; then the loop stops.
        with ThreadPoolExecutor(1) as other:
            other.submit(limiter.close_for, 0).result()

    loop.run_until_complete(begin())
    if when == "before the grant":
        clock.now += 61_000_000_000
    assert limiter.next_permit_in() == 0
    asyncio.run(spend_at_once(limiter, 3))
    assert limiter.stats().available == (0,)
    assert not any(call.done() for call in calls)

    async def go_on() -> list[Permit]:
        clock.now += 61_000_000_000
        limiter.close_for(0)
        await let_run()
        return [call.result() for call in calls if call.done()]

    permits = loop.run_until_complete(go_on())
    assert calls[:3] == [call for call in calls if call.done()], "in the order in which they came"
    assert (len(permits), limiter.stats().in_flight, limiter.stats().available) == (3, 3, (0,))
    for permit in permits:
        permit.settle()
    assert len(loop.run_until_complete(go_on())) == 5
    assert limiter.stats().granted == 3 + 3 + 5
    loop.close()


def closed(*_: object) -> None:
    raise RuntimeError("Event loop is closed")


def drop(*tasks: asyncio.Task[Any]) -> None:
    """End calls whose loop is gone, as the garbage collector does."""
    for task in tasks:
        coroutine = task.get_coro()
        assert coroutine is not None
        coroutine.close()
        # asyncio would complain of what the test did on purpose.
        setattr(task, "_log_destroy_pending", False)  # noqa: B010


async def test_on_wait_is_told_how_long_a_call_waits() -> None:
    waits: list[float] = []
    limiter = RateLimiter(TokenBucket(1, per=0.1, margin=0), on_wait=waits.append)
    (await limiter.acquire()).settle()
    assert waits == []
    (await limiter.acquire()).settle()
    assert len(waits) == 1
    assert 0 < waits[0] <= 0.1


@pytest.mark.parametrize("kind", [RateLimiter, FileRateLimiter])
async def test_an_on_wait_that_raises_does_not_end_the_call(
    kind: type[RateLimiter | FileRateLimiter], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: float) -> None:
        raise ZeroDivisionError("the hook's own fault")

    buckets = (TokenBucket(1, per=0.1, margin=0),)
    limiter = (
        RateLimiter(*buckets, on_wait=broken)
        if kind is RateLimiter
        else FileRateLimiter(tmp_path / "quota.db", token=TOKEN, buckets=buckets, on_wait=broken)
    )
    (await limiter.acquire()).settle()
    (await limiter.acquire()).settle()
    assert "on_wait raised" in caplog.text
    assert "the hook's own fault" in caplog.text
    assert (limiter.stats().waiting, limiter.stats().in_flight) == (0, 0)


async def test_an_on_wait_that_ends_the_program_leaves_no_call_waiting() -> None:
    def interrupted(_: float) -> None:
        raise asyncio.CancelledError

    limiter = RateLimiter(TokenBucket(1, per=60, margin=0), on_wait=interrupted)
    await limiter.acquire()
    with pytest.raises(asyncio.CancelledError):
        await limiter.acquire()
    assert limiter.stats().waiting == 0


async def test_a_closed_limiter_is_not_entered(tmp_path: Path) -> None:
    async with FileRateLimiter(tmp_path / "quota.db", token=TOKEN) as limiter:
        pass
    with pytest.raises(ClientStateError, match="the limiter is closed"):
        await limiter.__aenter__()


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_limiter_is_neither_pickled_nor_copied(
    duplicate: Callable[[object], object], tmp_path: Path
) -> None:
    with pytest.raises(
        TypeError, match="a RateLimiter is neither pickled nor copied: it counts what this proc"
    ):
        duplicate(RateLimiter())
    with pytest.raises(
        TypeError, match="neither pickled nor copied: make one in each process, for the same fi"
    ):
        duplicate(FileRateLimiter(tmp_path / "quota.db"))


# Forks.


def in_a_child(check: Callable[[], object]) -> None:
    """Fork, and let the child run a check; it prints the exception if there is one."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            check()
            os.write(writing, b"fine")
        except BaseException:  # noqa: BLE001
            os.write(writing, traceback.format_exc().encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123
        said = pipe.read().decode()
    os.waitpid(child, 0)
    assert said == "fine", said


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop the limiters of other tests in the child: their clocks do not run."""
    gc.collect()
    monkeypatch.setattr(ratelimit, "_limiters", weakref.WeakSet[RateLimiter]())


pytestmark_fork = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytestmark_fork
@pytest.mark.usefixtures("forks")
def test_row_72_a_forked_child_does_not_take_the_parents_permits_for_its_own() -> None:
    limiter = RateLimiter(TokenBucket(10, per=60), TokenBucket(100, per=3600), grace=0.0, slow_start=False)
    permits = [asyncio.run(take_one(limiter)) for _ in range(4)]

    def check() -> None:
        stats = limiter.stats()
        assert (stats.available, stats.in_flight, stats.waiting) == ((0, 96), 0, 0)
        assert 60 < limiter.next_permit_in() <= 61
        permits[0].settle()
        permits[1].release()
        permits[2].lose()
        assert limiter.stats() == stats

    in_a_child(check)
    assert limiter.stats().available == (6, 96)
    for permit in permits:
        permit.release()
    assert limiter.stats().available == (10, 100)


@pytestmark_fork
@pytest.mark.usefixtures("forks")
def test_a_forked_child_finds_no_waiter_and_no_lock_of_the_parent() -> None:
    limiter = RateLimiter(TokenBucket(1, per=0.05, margin=0))

    async def parent() -> None:
        permit = await limiter.acquire()
        waiting = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        with vars(limiter)["_lock"], vars(sharing)["_lock"]:
            in_a_child(check)
        permit.release()
        (await waiting).release()

    def check() -> None:
        assert limiter.stats().waiting == 0
        assert ImagesAPI("dop_v1_a").limiter is not limiter
        threading.Thread(target=asyncio.run, args=(spend(limiter),)).start()
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join(20)
        assert limiter.stats().granted == 2

    asyncio.run(parent())


@pytestmark_fork
@pytest.mark.usefixtures("forks")
def test_a_forked_child_that_waits_says_why_once(caplog: pytest.LogCaptureFixture) -> None:
    limiter = RateLimiter(TokenBucket(10, per=60, margin=0), grace=0.0, slow_start=False)
    asyncio.run(spend(limiter))

    async def wait_twice() -> None:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(limiter.acquire(), 0.01)

    def check() -> None:
        asyncio.run(wait_twice())
        [record] = caplog.records
        assert record.name == "do_images_async.quota"
        assert "was forked from one that had sent requests, so it waits for 60 s" in record.message

    in_a_child(check)
    assert caplog.records == []


@pytestmark_fork
@pytest.mark.usefixtures("forks")
def test_a_child_of_a_parent_that_has_spent_nothing_starts_afresh() -> None:
    limiter = RateLimiter(TokenBucket(10, per=60))
    in_a_child(lambda: asyncio.run(spend(limiter)))
    assert limiter.stats().available == (10,)


async def take(limiter: RateLimiter, number: int) -> list[Permit]:
    return [await limiter.acquire() for _ in range(number)]


async def take_one(limiter: RateLimiter) -> Permit:
    return await limiter.acquire()
