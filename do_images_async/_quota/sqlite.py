"""The store of one machine: a file that all processes of a user share, through SQLite.

An exchange reads what others have written since the last one, decides in Python, and writes with one
statement, which does nothing if somebody else was first: then it is decided anew. So the file is locked for
microseconds in which no Python runs, and a process that is stopped or killed practically never holds the
lock.

Spent tokens are rows that are only ever added; each process keeps its own sum of them, so that an exchange
costs the same however many there are.

The file may come back older than it was: a power cut takes the last seconds of what was written, a backup is
older still. After a boot, requests go evenly until the machine has been up for the shortest period. A backup
that took the file's place is noticed by its inode, one that was written over it only by a process that knows
more; both are dealt with as in `SharedQuota`. One that was deleted is as good as new: it starts slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import attrs
import msgspec

from do_images_async._decoders import msgpack_decoder
from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.clock import clock_ns
from do_images_async._quota.shared import Memory, OtherBucketsError, SharedQuota, Spent
from do_images_async._quota.store import Exchange, Reply
from do_images_async._quota.timeouts import within
from do_images_async.errors import QuotaStoreError

__all__ = ["BootClock", "SQLiteStore"]

_SECOND = 1_000_000_000
_APPLICATION_ID = 0x444F494D
"""The application id in the header of the file: "DOIM"."""

_VERSION = 1
"""The version of the tables."""
_RACES = 4
"""After so many lost races an exchange locks the file before it reads."""

_LOG_PAGES, _PAGE = 100, 4096
"""The pages of SQLite's write-ahead log that are written before it begins anew, and their bytes."""

_CODES_OF_DAMAGE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)
"""The last is for statements that do not fit the tables, and ours do."""

_DEAD_ROWS = 64
"""Rows that nobody needs are deleted when there are so many."""

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS quota (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    record BLOB NOT NULL,
    spent BLOB
);
CREATE TABLE IF NOT EXISTS log (
    quota INTEGER NOT NULL,
    version INTEGER NOT NULL,
    spent BLOB NOT NULL,
    PRIMARY KEY (quota, version)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS log_first AFTER INSERT ON quota WHEN NEW.spent IS NOT NULL
    BEGIN INSERT INTO log VALUES (NEW.id, NEW.version, NEW.spent); END;
CREATE TRIGGER IF NOT EXISTS log_next AFTER UPDATE OF spent ON quota WHEN NEW.spent IS NOT NULL
    BEGIN INSERT INTO log VALUES (NEW.id, NEW.version, NEW.spent); END;
PRAGMA application_id = 0x444F494D;
PRAGMA user_version = 1;
COMMIT;
"""

_HEADER = """
SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)
FROM pragma_application_id, pragma_user_version
"""
_READ = """
SELECT version, record, NULL FROM quota WHERE name = ?
UNION ALL
SELECT log.version, NULL, log.spent FROM log JOIN quota ON log.quota = quota.id
WHERE quota.name = ? AND log.version > ?
"""
_CREATE = "INSERT INTO quota (name, version, record, spent) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_WRITE = "UPDATE quota SET version = ?, record = ?, spent = ? WHERE name = ? AND version = ?"
_DELETE = "DELETE FROM log WHERE version < ? AND quota = (SELECT id FROM quota WHERE name = ?)"


def _read_boot() -> str:
    """Return the system's name of the present boot; empty where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


_BOOT: Final = _read_boot()  # once, as long as there are free descriptors


class BootClock:
    """A clock that can't be set, and the name of the boot that it counts from.

    On Linux, the system names each boot. Elsewhere a boot is recognized by the difference to the wall clock.
    A step of the wall clock then looks like a reboot, after which waits are longer.
    """

    def __init__(self) -> None:
        self._boot = _BOOT

    def now(self) -> int:
        """Return nanoseconds since the boot, or since another fixed moment after it."""
        return clock_ns()

    def boot(self) -> str:
        """Return the name of the boot."""
        return self._boot or f"wall clock {time.time_ns() - clock_ns()}"

    def is_now(self, boot: str) -> bool:
        """Return whether a boot's name is that of the present one."""
        prefix, _, offset = boot.rpartition(" ")
        if self._boot or prefix != "wall clock":
            return boot == self._boot
        return abs(int(offset) - (time.time_ns() - clock_ns())) < _SECOND


class _Record(msgspec.Struct):
    """The file's record of one quota, without the rows of spent tokens.

    Attributes:
        boot, now: when it was written.
        inode: of the file that it was written to; another one has been copied from it.
        base: the first version whose row of spent tokens may still matter.
    """

    boot: str
    now: int
    base: int
    memory: Memory
    inode: int = 0


@attrs.define
class _Rows:
    """The rows of spent tokens that this process has taken in.

    Attributes:
        seen: the version up to which it has.
        dead: how many that nobody needs were met in the file.
    """

    seen: int = 0
    dead: int = 0
    alive: deque[tuple[int, int, Spent]] = attrs.field(factory=deque[tuple[int, int, Spent]])

    def clear(self) -> None:
        self.seen = 0
        self.alive.clear()

    def add(self, version: int, spent: Spent) -> None:
        """Take in the row of a version."""
        self.alive.append((version, max([*spent.answered, *spent.others], default=0), spent))

    def drop(self, before: int) -> int | None:
        """Drop the first rows whose moments are not after another; returns the first version that stays."""
        base = None
        while self.alive and self.alive[0][1] <= before:
            base = self.alive.popleft()[0] + 1
            self.dead += 1
        return base


class SQLiteStore:
    """The shared quota of one token, as a file keeps it.

    Args:
        path: the file; it and its folder are made when they are missing. None where there is no home for it.
        name: tells the quota from others in the file; names no token.
        buckets: the limits.
        timeout: seconds for one exchange.
        clock: whose time counts.
    """

    def __init__(
        self,
        path: Path | None,
        name: str,
        buckets: Sequence[TokenBucket],
        timeout: float,
        *,
        clock: BootClock | None = None,
    ) -> None:
        self._path = path
        self._name = name
        self._timeout = timeout
        self._clock = clock or BootClock()
        self._quota = SharedQuota(buckets)
        self._rows = _Rows()
        self._connection: sqlite3.Connection | None = None
        self._closing: weakref.finalize[[], SQLiteStore] | None = None
        self._inode = 0
        self._lock = threading.Lock()
        self._executor = _new_executor()
        self._encode: Callable[[object], bytes] = msgspec.msgpack.Encoder().encode
        self._records = msgpack_decoder(_Record)
        self._spent = msgpack_decoder(Spent)

    async def exchange(self, exchange: Exchange) -> Reply:
        """Carry out an exchange in this store's own thread; see `Store.exchange`."""
        loop = asyncio.get_running_loop()
        try:
            reply = loop.run_in_executor(self._executor, self.exchange_now, exchange)
        except RuntimeError as error:  # the thread can't be started
            raise QuotaStoreError(f"{self._path}: {error}") from None
        try:
            return await within(self._timeout, reply)
        except TimeoutError:
            raise QuotaStoreError(f"{self._path}: no answer within {self._timeout:g} s") from None

    def exchange_now(self, exchange: Exchange) -> Reply:
        """Carry out an exchange in this thread; see `Store.exchange`."""
        with self._lock:
            try:
                return self._exchange_in_little_space(exchange)
            except OtherBucketsError:
                self._forget()
                raise
            except Exception as error:  # noqa: BLE001  (anything may follow from a damaged file)
                self._disconnect()
                raise QuotaStoreError(self._said(error)) from None
            except BaseException:
                self._forget()
                raise

    def _said(self, error: Exception) -> str:
        """Return what is wrong with the file, with its path once, and what to do if it is damaged."""
        reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        if not isinstance(error, OSError | _UnusableError) and _is_damage(error):
            # A path that was mistyped may name somebody's own file.
            reason = (
                f"it is damaged, or no quota file ({reason}); if it is one, delete it: a call makes it again"
            )
        return reason if self._path is None else f"{self._path}: {reason}"

    def close(self) -> None:
        """Close the file and end the thread."""
        self._executor.shutdown(wait=False)
        with self._lock:
            self._disconnect()

    def start_in_child(self) -> None:
        """Start again in a forked child, which must neither use nor close the parent's connection."""
        if self._closing is not None:
            self._closing.detach()
        if self._connection is not None:
            _of_parents.append(self._connection)
            self._connection = None
        self._lock = threading.Lock()
        self._executor = _new_executor()
        self._forget()

    def _forget(self) -> None:
        """Forget all rows, so that the next exchange reads everything."""
        self._rows.clear()
        self._quota.clear()

    # The file.

    def _connect(self) -> sqlite3.Connection:
        """Return a connection to the file that has the path's name now."""
        if self._path is None:
            raise OSError("there is no home folder for the file: name a path")
        if self._connection is not None:
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_ino == self._inode:
                    return self._connection
            self._disconnect()
        with _opening:
            _make_file(self._path)
            self._inode = self._path.stat().st_ino
            connection = sqlite3.connect(
                self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
        try:
            _prepare(connection, self._timeout)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        # A limiter that is dropped without `aclose` leaves no open file.
        self._closing = weakref.finalize(self, connection.close)
        self._closing.atexit = False
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._forget()
        if self._closing is not None:
            self._closing.detach()
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # An exchange.

    def _exchange_in_little_space(self, exchange: Exchange) -> Reply:
        """Carry out an exchange; where the disk is full, in the space that the write-ahead log has."""
        try:
            return self._exchange(exchange)
        except sqlite3.OperationalError as error:
            if self._connection is None or error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
        self._forget()
        self._connection.execute("PRAGMA wal_checkpoint(RESTART)")
        return self._exchange(exchange)

    def _exchange(self, exchange: Exchange) -> Reply:
        connection = self._connect()
        for _ in range(_RACES):
            reply = self._try(connection, exchange)
            if reply is not None:
                return reply
        connection.execute("BEGIN IMMEDIATE")
        try:
            reply = self._try(connection, exchange)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        if reply is None:
            raise _UnusableError("it was written to by somebody who did not lock it")
        return reply

    def _try(self, connection: sqlite3.Connection, exchange: Exchange) -> Reply | None:
        """Read, decide and write; return None if another process has written meanwhile."""
        version, record, rows = self._read(connection)
        now = self._clock.now()
        if record is None:
            record = _Record(self._clock.boot(), now, 1, Memory(epoch=exchange.new_epoch, limits=[]))
        self._catch_up(version, record.base, rows)
        earlier: Spent | None = None
        if record.now > now or not self._clock.is_now(record.boot):
            earlier = self._carry_over(record, now)
        reply = self._quota.exchange(
            record.memory, exchange, now, doubted=record.inode not in (0, self._inode)
        )
        base = self._rows.drop(now - self._quota.longest_period)
        if earlier is not None or self._quota.cleared:
            base = version + 1
        spent = (
            _sum([earlier, self._quota.spent]) if earlier and not self._quota.cleared else self._quota.spent
        )
        record = _Record(
            self._clock.boot(), now, max(record.base, base or 0), self._quota.memory, self._inode
        )
        if not self._write(connection, version, record, spent):
            if earlier is not None or self._quota.cleared:
                self._forget()
            else:
                self._quota.remove(self._quota.spent)
            return None
        self._note_written(connection, version + 1, record.base, spent)
        return reply

    def _read(self, connection: sqlite3.Connection) -> tuple[int, _Record | None, list[tuple[int, bytes]]]:
        found: list[tuple[int, bytes | None, bytes | None]] = connection.execute(
            _READ, (self._name, self._name, self._rows.seen)
        ).fetchall()
        version, record = 0, None
        rows: list[tuple[int, bytes]] = []
        for number, written, spent in found:
            if written is not None:
                version, record = number, self._records.decode(written)
                _check_counts(record.memory)
            elif spent is not None:
                rows.append((number, spent))
        if version >= self._rows.seen:
            return version, record, rows
        self._forget()  # the file is an older one
        return self._read(connection)

    def _catch_up(self, version: int, base: int, rows: Iterable[tuple[int, bytes]]) -> None:
        """Add the tokens that were spent since the last exchange."""
        if self._rows.seen < base - 1:
            self._forget()
        for number, encoded in rows:
            if number < base:
                self._rows.dead += 1
                continue
            spent = self._spent.decode(encoded)
            self._rows.add(number, spent)
            self._quota.add(spent)
        self._rows.seen = version

    def _carry_over(self, record: _Record, now: int) -> Spent:
        """Continue after a reboot as if the last exchange before it were just now.

        The time in which the machine was off is not known, since a wall clock may be wrong. All processes of
        before are dead.
        """
        passed = now - record.now
        spent = _sum(each for _, _, each in self._rows.alive)
        spent = Spent([each + passed for each in spent.answered], [each + passed for each in spent.others])
        self._forget()
        self._quota.add(spent)
        memory = record.memory
        memory.lost = [due + passed for due in memory.lost]
        memory.gate = self._quota.gate_after_a_boot(now)
        memory.until = {}
        memory.written = now
        for member in memory.members.values():
            member.lease_ends, member.due = now, 0
        return spent

    def _write(self, connection: sqlite3.Connection, version: int, record: _Record, spent: Spent) -> bool:
        fresh = self._encode(spent) if spent.answered or spent.others else None
        encoded = self._encode(record)
        if version == 0:
            cursor = connection.execute(_CREATE, (self._name, 1, encoded, fresh))
        else:
            cursor = connection.execute(_WRITE, (version + 1, encoded, fresh, self._name, version))
        return cursor.rowcount == 1

    def _note_written(self, connection: sqlite3.Connection, version: int, base: int, spent: Spent) -> None:
        self._rows.seen = version
        if base == version:
            self._rows.alive.clear()
        if spent.answered or spent.others:
            self._rows.add(version, spent)
        if self._rows.dead >= _DEAD_ROWS:
            self._rows.dead = 0
            connection.execute(_DELETE, (base, self._name))


class _UnusableError(Exception):
    """The file is another program's, or another version's."""


def _is_damage(error: Exception) -> bool:
    """Return whether an error shows that the file's content is not what was written.

    Wrong bytes that make a valid record can raise anything, such as OverflowError.
    """
    if not isinstance(error, sqlite3.Error):
        return True
    code = getattr(error, "sqlite_errorcode", None)  # text that can't be decoded has none
    return code is None or code & 0xFF in _CODES_OF_DAMAGE


def _check_counts(memory: Memory) -> None:
    """Raise ValueError if a record's requests in flight contradict each other: it might grant too much."""
    held = [member.held for member in memory.members.values()]
    if min(held, default=0) < 0 or sum(held) != memory.held:
        raise ValueError("its counts of requests in flight do not agree")


def _sum(spent: Iterable[Spent | None]) -> Spent:
    total = Spent()
    for each in spent:
        if each is not None:
            total.answered += each.answered
            total.others += each.others
    return total


def _make_file(path: Path) -> None:
    """Make a file that only its owner may read, where there is none; the umask decides who may read SQLite's.

    A file that is there is not opened. Closing it would drop every lock that this process has on it, also
    those of SQLite's connections; then other processes would corrupt it.
    """
    with contextlib.suppress(FileExistsError):  # it is no folder, which opening the file says better
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path.resolve(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _prepare(connection: sqlite3.Connection, timeout: float) -> None:
    """Make the tables if they are missing, and check that they are ours."""
    deadline = time.monotonic() + timeout
    for attempt in itertools.count(1):
        try:
            # In one statement: another process may be making the tables now.
            application, version, tables = connection.execute(_HEADER).fetchone()
            if tables and application != _APPLICATION_ID:
                raise _UnusableError("it is another program's database; name another path")
            if version > _VERSION:
                raise _UnusableError(
                    "it was made by a later version of do_images_async; update this one, or name another path"
                )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {_LOG_PAGES * _PAGE}")
            if version < _VERSION:
                connection.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:
            # SQLite does not wait for its lock where it changes the journal's kind.
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(min(0.001 * 2**attempt, 0.05))
        else:
            return


def _new_executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="do-images-quota")


_opening = threading.Lock()
"""Held while a file is made and opened, so that none is closed that SQLite has open; see `_make_file`."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release
    )

_of_parents: list[sqlite3.Connection] = []
"""Connections of a forked child's parent: SQLite forbids to close them here."""
