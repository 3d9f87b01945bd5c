"""The quota in a file, as its users see it: several limiters on one file, as in as many processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies

from do_images_async import FileRateLimiter, ImagesAPI, RateLimiter, TokenBucket
from do_images_async._quota.file_limiter import default_path
from do_images_async._quota.protocols import Report
from do_images_async._quota.shared import OtherBucketsError
from do_images_async._quota.sqlite import SQLiteStore
from do_images_async._quota.store import Exchange, Reply
from do_images_async.errors import ClientStateError, QuotaStoreError, QuotaWaitError
from do_images_async.testing import ImagesEmulator, Quota
from tests.support.coverage import unmeasured
from tests.support.limiters import expect_next_permit_in_without_waiting_calls, is_spent, take
from tests.support.servers import eventually
from tests.support.slow import RUN_SLOW

TOKEN = "dop_v1_" + "5ec7e7" * 10
MINUTE = TokenBucket(250, per=60)

Make = Callable[..., FileRateLimiter]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "quota.db"


@pytest.fixture
async def make(path: Path) -> AsyncIterator[Make]:
    """Yield a factory of limiters that start at once with any number in flight; see `workers`."""
    made: list[FileRateLimiter] = []

    def maker(
        *buckets: TokenBucket, token: str = TOKEN, slow_start: bool = False, **options: Any
    ) -> FileRateLimiter:
        limiter = FileRateLimiter(
            path, token=token, buckets=buckets or (MINUTE,), slow_start=slow_start, **options
        )
        made.append(limiter)
        return limiter

    yield maker
    for limiter in made:
        await limiter.aclose()


# One quota for all.


async def test_limiters_spend_one_quota(make: Make) -> None:
    one, other = make(TokenBucket(5, per=60)), make(TokenBucket(5, per=60))
    await take(one, 3)
    await take(other, 2)
    assert await is_spent(one)
    assert await is_spent(other)


async def test_another_token_is_another_quota(make: Make) -> None:
    one, other = make(TokenBucket(5, per=60)), make(TokenBucket(5, per=60), token="dop_v1_another")
    await take(one, 5)
    assert not await is_spent(other)


async def test_what_was_never_sent_is_free_again_for_all(make: Make) -> None:
    one, other = make(TokenBucket(1, per=60)), make(TokenBucket(1, per=60))
    (permit,) = await take(one, 1)
    permit.release()
    async with asyncio.timeout(20):
        await take(other, 1)


async def test_tokens_come_back_a_period_after_the_answer(make: Make) -> None:
    limiter = make(TokenBucket(2, per=0.4, margin=0.1))
    loop = asyncio.get_running_loop()
    for permit in await take(limiter, 2):
        permit.settle()
    answered = loop.time()
    await limiter.acquire()
    assert loop.time() - answered >= 0.49


async def test_what_the_server_says_binds_all(make: Make) -> None:
    one, other = make(TokenBucket(100, per=60)), make(TokenBucket(100, per=60))
    (permit,) = await take(one, 1)
    permit.settle(Report(refused=True, retry_after=50.0))
    await eventually(lambda: one.stats().in_flight == 0)
    await one.aclose()
    with pytest.raises(QuotaWaitError) as caught:
        await other.acquire(max_wait=0)
    assert 40 < caught.value.wait <= 56


async def test_a_reserve_is_left_to_those_who_need_none(make: Make) -> None:
    limiter = make(TokenBucket(10, per=60))
    await take(limiter, 6, reserve=4)
    with pytest.raises(QuotaWaitError):
        await limiter.acquire(max_wait=0, reserve=4)
    await take(limiter, 4)


async def test_next_permit_in_is_known_while_no_call_waits(make: Make) -> None:
    await expect_next_permit_in_without_waiting_calls(make(TokenBucket(2, per=60, margin=0)))


async def test_stats_and_repr_tell_where_it_stands(make: Make) -> None:
    limiter = make(TokenBucket(2, per=60))
    await take(limiter, 2)
    waiting = asyncio.create_task(limiter.acquire())
    await eventually(lambda: limiter.stats().waiting == 1)
    stats = limiter.stats()
    assert (stats.granted, stats.in_flight, stats.waiting, stats.available) == (2, 2, 1, (0,))
    assert repr(limiter) == "<FileRateLimiter 2 per 60 s; 2 in flight, 1 waiting>"
    waiting.cancel()


# The disk.


async def test_the_files_stay_small(make: Make, path: Path) -> None:
    limiter = make(TokenBucket(1000, per=60))
    for _ in range(500):
        (await limiter.acquire()).settle()
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 1_000_000


IN_LITTLE_SPACE = """
import asyncio
import sys

from do_images_async import FileRateLimiter

async def main():
    for calls in (3, 60):
        async with FileRateLimiter(sys.argv[1], token=sys.argv[2]) as limiter:
            for _ in range(calls):
                (await limiter.acquire()).settle()

asyncio.run(main())
print("done")
"""


def test_a_disk_that_is_too_small_for_the_log_is_enough(tmp_path: Path) -> None:
    in_its_own_mounts = ["unshare", "--map-root-user", "--mount"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*in_its_own_mounts, "true"], check=False).returncode  # noqa: S603  (fixed arguments)
    ):
        pytest.skip("needs unshare, and the permission to use it, for a small disk")
    done = subprocess.run(  # noqa: S603  (fixed arguments)
        [
            *in_its_own_mounts,
            "sh",
            "-c",
            'mount -t tmpfs -o size=200k tmpfs "$1" && exec "$2" -c "$3" "$1/quota.db" "$4"',
            "sh",
            tmp_path,
            sys.executable,
            IN_LITTLE_SPACE,
            TOKEN,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr


# Processes, threads and event loops.


def test_what_one_event_loop_has_spent_counts_in_the_next(path: Path) -> None:
    limiter = FileRateLimiter(path, token=TOKEN, buckets=[TokenBucket(3, per=60)], slow_start=False)

    async def spend() -> None:
        for permit in await take(limiter, 3):
            permit.settle()

    asyncio.run(spend())
    assert asyncio.run(is_spent(limiter))
    assert limiter.stats().granted == 3


def test_threads_share_one_limiter(path: Path) -> None:
    limiter = FileRateLimiter(path, token=TOKEN, buckets=[TokenBucket(40, per=60)], slow_start=False)
    spent: list[bool] = []

    async def spend() -> None:
        await take(limiter, 10)
        arrived.wait(60)
        spent.append(await is_spent(limiter))

    arrived = threading.Barrier(4)
    threads = [threading.Thread(target=lambda: asyncio.run(spend())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spent == [True] * 4


def test_limiters_in_many_threads_never_grant_a_token_twice(path: Path) -> None:
    """They race for the file as processes do."""
    granted: list[int] = []

    async def spend() -> None:
        async with FileRateLimiter(path, token=TOKEN, buckets=[TokenBucket(100, per=60)]) as limiter:
            arrived.wait(60)
            for _ in range(30):
                await asyncio.gather(*(limiter.acquire(max_wait=0) for _ in range(2)), return_exceptions=True)
            granted.append(limiter.stats().granted)

    arrived = threading.Barrier(5)
    threads = [threading.Thread(target=lambda: asyncio.run(spend())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 100


FORKED = """
import asyncio, os, sys
from do_images_async import FileRateLimiter, TokenBucket
from do_images_async.errors import QuotaWaitError
limiter = FileRateLimiter(sys.argv[1], token="dop_v1_a", buckets=[TokenBucket(5, per=60)])
async def spend(number):
    for _ in range(number):
        (await limiter.acquire(max_wait=0)).settle()
asyncio.run(spend(2))
child = os.fork()
asyncio.run(spend(1))
if child:
    assert os.waitpid(child, 0)[1] == 0
    asyncio.run(spend(1))
    try:
        asyncio.run(spend(1))
    except QuotaWaitError:
        print("spent", limiter.stats().granted)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_goes_on_as_one_more_process(path: Path) -> None:
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "ignore", "-c", FORKED, str(path)], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "spent 4\n", "")


def test_a_process_writes_what_it_knows_when_it_ends(path: Path) -> None:
    """Without it the tokens would only be back after its lease and the grace."""
    program = """if True:
        import asyncio, sys
        from do_images_async import FileRateLimiter, TokenBucket
        async def spend():
            bucket = TokenBucket(1, per=0.1)
            limiter = FileRateLimiter(sys.argv[1], token=sys.argv[2], buckets=[bucket], grace=60)
            (await limiter.acquire()).settle()
        asyncio.run(spend())
    """
    subprocess.run([sys.executable, "-c", program, str(path), TOKEN], check=True)  # noqa: S603

    async def spend() -> None:
        async with FileRateLimiter(path, token=TOKEN, buckets=[TokenBucket(1, per=0.1)], grace=60) as limiter:
            await limiter.acquire(max_wait=5)

    asyncio.run(spend())


@pytest.mark.skipif(sys.platform != "linux", reason="a process's open files can't be listed")
def test_a_process_closes_the_file_when_it_ends(path: Path) -> None:
    """Else Python 3.13 and later, asked for all warnings, call it an unclosed database."""
    program = """if True:
        import asyncio, atexit, os, sys
        def show_open_files():
            files = [os.path.realpath(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")]
            print("open:", *(each for each in files if each.startswith(sys.argv[1])))
        atexit.register(show_open_files)  # the first is the last that runs
        from do_images_async import FileRateLimiter
        limiter = FileRateLimiter(sys.argv[1], token=sys.argv[2])
        async def spend():
            (await limiter.acquire()).settle()
        asyncio.run(spend())
    """
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-W", "always", "-c", program, str(path), TOKEN],
        env=unmeasured(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.stdout, run.stderr) == ("open:\n", "")


# The file.


def test_it_lies_in_the_users_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    assert default_path() == tmp_path / "elsewhere" / "do-images" / "quota.db"
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".local" / "state" / "do-images" / "quota.db"
    monkeypatch.setenv("HOME", "not/absolute")
    assert default_path() is None


@pytest.mark.skipif(os.name == "nt", reason="there are other permissions on Windows")
async def test_only_its_owner_may_read_it_and_it_does_not_hold_the_token(make: Make, path: Path) -> None:
    previous = os.umask(0)
    try:
        for permit in await take(make(), 3):
            permit.settle()
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = list(path.parent.iterdir())
    assert {file.name for file in files} >= {"quota.db", "quota.db-wal"}
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert TOKEN.encode() not in file.read_bytes()


async def test_a_second_limiter_of_a_process_does_not_unlock_the_file_of_the_first(
    make: Make, path: Path
) -> None:
    """The last process that closes a file deletes its log: an unlocked one is corrupted by others."""
    for token in ("dop_v1_one", "dop_v1_another"):
        await take(make(token=token), 1)
    log = path.with_name("quota.db-wal").stat()
    program = (
        "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM quota'))"
    )
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(path)), stdout=asyncio.subprocess.PIPE
    )
    stdout, _ = await run.communicate()
    assert stdout == b"(2,)\n"
    assert path.with_name("quota.db-wal").stat().st_ino == log.st_ino


@pytest.fixture
def target(path: Path) -> Path:
    """Let the path be a link to a file that is not there; return that one."""
    path.parent.mkdir()
    target = path.with_name("elsewhere.db")
    path.symlink_to(target)
    return target


async def test_the_file_is_made_where_a_link_leads(make: Make, target: Path) -> None:
    await take(make(), 1)
    made = await asyncio.to_thread(target.stat)
    assert stat.S_IMODE(made.st_mode) == 0o600


async def test_it_does_not_grow(make: Make, path: Path) -> None:
    limiter = make(TokenBucket(100_000, per=0.001, margin=0))
    for _ in range(400):
        (await limiter.acquire()).settle()
    await limiter.aclose()
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM log").fetchone()[0] < 300


async def test_processes_that_are_alive_agree_on_the_buckets(make: Make) -> None:
    await take(make(TokenBucket(5, per=60)), 1)
    with pytest.raises(ValueError, match="agree"):
        await make(TokenBucket(6, per=60)).acquire()


async def test_other_buckets_count_what_was_spent_before(make: Make) -> None:
    before = make(TokenBucket(5, per=60), lease=1)
    for permit in await take(before, 4):
        permit.settle()
    await before.aclose()
    after = make(TokenBucket(6, per=60))
    async with asyncio.timeout(30):
        while not await is_agreed(after):  # noqa: ASYNC110  (the lease ends by itself)
            await asyncio.sleep(0.05)
    await take(after, 1, max_wait=0)
    assert await is_spent(after)


async def is_agreed(limiter: FileRateLimiter) -> bool:
    """Take a permit; return False if a worker with other buckets still has a lease."""
    try:
        await limiter.acquire(max_wait=0)
    except ValueError:
        return False
    return True


async def test_a_file_that_was_deleted_is_made_and_told_again(make: Make, path: Path) -> None:
    limiters = [make(TokenBucket(10, per=20)) for _ in range(2)]
    for limiter in limiters:
        (_in_flight, *rest) = await take(limiter, 4)
        for permit in rest:
            permit.settle()
    await eventually(lambda: all(limiter.stats().in_flight == 1 for limiter in limiters))
    for file in path.parent.iterdir():
        file.unlink()
    async with asyncio.timeout(30):
        await asyncio.gather(*(limiter.acquire() for limiter in limiters))
    for limiter in limiters:
        assert await is_spent(limiter)


def execute(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute(statement)


def corrupt(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not a database" * 1000)


def take_over(path: Path) -> None:
    path.parent.mkdir()
    execute(path, "CREATE TABLE bookmarks (address TEXT)")


def be_a_folder(path: Path) -> None:
    path.mkdir(parents=True)


def have_no_folder(path: Path) -> None:
    path.parent.write_text("a file", encoding="utf-8")


TROUBLES = [corrupt, take_over, be_a_folder, have_no_folder]


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_file_that_can_not_be_used_is_an_error_that_names_it(
    make: Make, path: Path, trouble: Callable[[Path], None]
) -> None:
    trouble(path)
    with pytest.raises(QuotaStoreError, match=r"quota\.db"):
        await make(store_timeout=0.2).acquire()


def damage_the_record(path: Path) -> None:
    execute(path, "UPDATE quota SET record = x'c1'")


def damage_a_page(path: Path) -> None:
    execute(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def damage_text(path: Path) -> None:
    execute(path, "UPDATE quota SET record = replace(record, 'boot', x'ff626f6f')")


def rename_a_column(path: Path) -> None:
    execute(path, "ALTER TABLE quota RENAME COLUMN record TO recorf")


def write_over(path: Path) -> None:
    path.write_text("a" * 5000, encoding="utf-8")


@pytest.mark.parametrize(
    "damage", [damage_the_record, damage_a_page, damage_text, rename_a_column, write_over]
)
async def test_who_deletes_a_damaged_file_as_the_error_says_goes_on(
    make: Make, path: Path, damage: Callable[[Path], None]
) -> None:
    before = make(TokenBucket(2, per=60))
    (await before.acquire()).settle()
    await before.aclose()
    damage(path)
    limiter = make(TokenBucket(2, per=60))
    with pytest.raises(QuotaStoreError, match=r"quota\.db: it is damaged, or no quota file .* delete it"):
        await limiter.acquire()
    await asyncio.to_thread(path.unlink)
    (await limiter.acquire()).settle()


FEW = [TokenBucket(5, per=60), TokenBucket(20, per=600)]


@pytest.fixture(scope="module")
def used_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, list[int]]:
    """Make a file with requests of every kind; return it, its content, and where its records are in that."""
    path = tmp_path_factory.mktemp("used") / "quota.db"

    async def use() -> None:
        async with FileRateLimiter(path, token=TOKEN, buckets=FEW, slow_start=False) as limiter:
            (await limiter.acquire()).settle()
            (await limiter.acquire()).lose()
            (await limiter.acquire()).release()
            await limiter.acquire()

    asyncio.run(use())
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = file.execute("SELECT record FROM quota UNION ALL SELECT spent FROM log").fetchall()
    content = path.read_bytes()
    return path, content, [content.index(row) + place for (row,) in rows for place in range(len(row))]


async def granted_until_refused(limiter: FileRateLimiter) -> int:
    granted = 0
    async with limiter:
        with contextlib.suppress(QuotaStoreError, QuotaWaitError):
            while granted < 50:
                await limiter.acquire(max_wait=0)
                granted += 1
    return granted


@given(data=strategies.data())
def test_wrong_bytes_raise_nothing_else_and_never_grant_more_than_the_bucket_has(
    used_file: tuple[Path, bytes, list[int]], data: strategies.DataObject
) -> None:
    path, content, places = used_file
    damaged = bytearray(content)
    wrong = strategies.sampled_from(places) | strategies.integers(0, len(content) - 1)
    for place in data.draw(strategies.lists(wrong, min_size=1, max_size=20)):
        damaged[place] = data.draw(strategies.integers(0, 255))
    with path.open("r+b") as file:  # one that replaces it would be taken for a backup
        file.write(damaged)
        file.truncate()
    limiter = FileRateLimiter(path, token=TOKEN, buckets=FEW, slow_start=False)
    with contextlib.suppress(OtherBucketsError):  # which is documented, and may be what it says
        assert asyncio.run(granted_until_refused(limiter)) <= 5


@pytest.mark.parametrize("held", [-32, 2], ids=["negative", "not the sum"])
async def test_counts_that_contradict_each_other_grant_nothing(make: Make, path: Path, held: int) -> None:
    before = make(*FEW)
    await before.acquire()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        (record,) = file.execute("SELECT record FROM quota").fetchone()
        document = msgspec.msgpack.decode(record)
        document["memory"]["held"] = held
        file.execute("UPDATE quota SET record = ?", (msgspec.msgpack.encode(document),))
    with pytest.raises(QuotaStoreError, match="it is damaged"):
        await make(*FEW).acquire()


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_or_each_process_keeps_the_quota_alone(
    make: Make, path: Path, trouble: Callable[[Path], None]
) -> None:
    trouble(path)
    limiter = make(TokenBucket(3, per=60), store_timeout=0.2, on_store_failure="local")
    for _ in range(3):  # settled one by one: its start is slow, though that of the file is not
        (await limiter.acquire()).settle()
    assert await is_spent(limiter)


async def test_a_file_that_is_locked_is_waited_for_and_given_up(make: Make, path: Path) -> None:
    limiter = make(store_timeout=1)
    (permit,) = await take(limiter, 1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QuotaStoreError, match=r"locked|no answer"):
            await limiter.acquire()
        other.execute("ROLLBACK")
    async with asyncio.timeout(30):
        await limiter.acquire()
    permit.release()


async def test_without_the_file_a_process_has_its_equal_share_and_tells_later(make: Make, path: Path) -> None:
    options: dict[str, Any] = {"store_timeout": 0.1, "on_store_failure": "local", "grace": 0}
    one, other = (make(TokenBucket(4, per=0.5, margin=0), **options) for _ in range(2))
    await take(one, 1)
    await take(other, 1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        for _ in range(4):  # settled one by one: its share may be two
            (permit,) = await take(one, 1)
            permit.settle()
        file.execute("ROLLBACK")
    async with asyncio.timeout(30):
        await one.acquire()


FULL = """
import asyncio, resource, signal, sys
from do_images_async import FileRateLimiter, TokenBucket
from do_images_async.errors import QuotaStoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
async def spend():
    limiter = FileRateLimiter(sys.argv[1], token="a", buckets=[TokenBucket(100_000, per=60)])
    try:
        for _ in range(10_000):
            (await limiter.acquire()).settle()
    except QuotaStoreError as error:
        print(type(error).__name__)
asyncio.run(spend())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the size of files can't be limited")
def test_a_full_disk_is_an_error(path: Path) -> None:
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-c", FULL, str(path)],
        env=unmeasured(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "QuotaStoreError\n", "")


# As the client's limiter.


async def test_each_client_spends_its_own_tokens_quota(path: Path) -> None:
    quotas = (Quota(20, 0.5),)
    calls = 30 if RUN_SLOW else 15
    limiter = FileRateLimiter(path, buckets=[TokenBucket(20, per=0.5, margin=0.05)])
    async with (
        ImagesEmulator(quotas=quotas) as emulator,
        ImagesEmulator(quotas=quotas) as another,
        ImagesAPI(emulator.token, base_url=emulator.url, limiter=limiter) as one,
        ImagesAPI(another.token, base_url=another.url, limiter=limiter) as other,
        ImagesAPI(another.token, base_url=another.url, limiter=limiter) as same,
    ):
        assert one.limiter is limiter
        assert other.limiter is not limiter
        assert other.limiter is same.limiter
        clients = (one, other, same)
        await asyncio.gather(*(client.get("ubuntu-24-04-x64") for client in clients for _ in range(calls)))
        statuses = [entry.status for server in (emulator, another) for entry in server.requests]
    assert statuses == [200] * (3 * calls)
    await limiter.aclose()
    with pytest.raises(ClientStateError, match="closed"):
        await other.limiter.acquire()


async def test_without_a_token_nobody_knows_whose_quota_it_is(path: Path) -> None:
    with pytest.raises(ClientStateError, match="token"):
        await FileRateLimiter(path).acquire()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"token": "with space"}, ValueError, "token"),
        ({"token": b"abc"}, TypeError, "token"),
        ({"path": 5}, TypeError, "path must be a str or a path"),
        ({"buckets": [5]}, TypeError, "buckets"),
        ({"base_url": ""}, ValueError, "base_url must not be empty"),
        ({"base_url": "x"}, ValueError, "base_url must be an absolute https URL, not 'x'"),
        ({"base_url": "https://user:word@example.com"}, ValueError, "base_url must not hold a user name"),
        ({"on_store_failure": "ignore"}, ValueError, "on_store_failure"),
        ({"lease": 0}, ValueError, "lease"),
        ({"grace": -1}, ValueError, "grace"),
        ({"store_timeout": float("inf")}, ValueError, "store_timeout"),
    ],
)
def test_what_can_not_be_used_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        FileRateLimiter(**options)
    assert "with space" not in str(caught.value)


def test_only_who_uses_it_waits_for_sqlite() -> None:
    program = "import sys, do_images_async; print('sqlite3' in sys.modules)"
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], env=unmeasured(), capture_output=True, text=True, check=True
    )
    assert run.stdout == "False\n"


async def test_a_relative_path_is_the_same_file_in_whatever_folder_the_process_works_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"token": "dop_v1_a", "buckets": [TokenBucket(2, per=60)], "slow_start": False}
    limiter = FileRateLimiter("quota.db", **options)
    monkeypatch.chdir(tmp_path / "elsewhere")
    absolute = tmp_path / "quota.db"
    async with limiter, FileRateLimiter(absolute, **options) as other:
        await take(limiter, 2)
        assert await is_spent(other)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_names_a_file(path: str) -> None:
    with pytest.raises(ValueError, match="path must name a file"):
        FileRateLimiter(path)


async def test_without_the_file_nobody_waits_for_a_long_window_that_is_far_from_spent(
    make: Make, path: Path
) -> None:
    limiter = make(TokenBucket(20, per=0.25, margin=0), TokenBucket(500, per=3600), on_store_failure="local")
    for permit in await take(limiter, 5):
        permit.settle()
    await asyncio.sleep(0.2)
    replace_by_a_folder(path)
    for _ in range(60):
        (await limiter.acquire(max_wait=60)).settle()


def replace_by_a_folder(path: Path) -> None:
    for file in path.parent.glob("quota.db*"):
        file.unlink()
    path.mkdir()


async def test_a_process_that_was_stopped_during_an_exchange_still_gets_its_answer(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP stops the loop and the thread of the exchange, both for longer than `store_timeout`."""
    begun, continued = threading.Event(), threading.Event()
    carry_out = SQLiteStore.exchange_now

    def exchange_now(store: SQLiteStore, exchange: Exchange) -> Reply:
        begun.set()
        continued.wait(30)
        return carry_out(store, exchange)

    monkeypatch.setattr(SQLiteStore, "exchange_now", exchange_now)
    call = asyncio.create_task(make(store_timeout=2).acquire())
    await eventually(begun.is_set, within=30)
    time.sleep(2.5)  # noqa: ASYNC251  (the loop stands still, as under SIGSTOP)
    asyncio.get_running_loop().call_later(0.01, continued.set)
    (await call).settle()


async def test_a_file_that_is_lost_between_two_requests_is_said_once_in_the_log(
    path: Path, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = make(TokenBucket(3, per=60), on_store_failure="local")
    await take(limiter, 1)
    assert caplog.messages == []
    replace_by_a_folder(path)
    for _ in range(3):
        with pytest.raises(QuotaWaitError):
            await limiter.acquire(max_wait=0)
    assert caplog.messages == [f"the quota is not shared with others: {path}: Is a directory"]


@pytest.mark.parametrize("buckets", [TokenBucket(1, per=1), 5, [5], "ab"])
def test_wrong_buckets_are_named(tmp_path: Path, buckets: Any) -> None:
    with pytest.raises(TypeError, match=r"^buckets must be "):
        FileRateLimiter(tmp_path / "quota.db", buckets=buckets)


def test_a_hook_that_would_never_be_called_can_not_be_set() -> None:
    limiter: Any = FileRateLimiter(token=TOKEN)
    with pytest.raises(AttributeError):
        limiter.on_wait = print
    assert limiter.on_wait is None


async def test_the_hook_of_a_limiter_in_one_process_can_be_set() -> None:
    limiter = RateLimiter(TokenBucket(1, per=0.05, margin=0))
    waits: list[float] = []
    limiter.on_wait = waits.append
    for _ in range(2):
        (await limiter.acquire()).settle()
    assert len(waits) == 1
