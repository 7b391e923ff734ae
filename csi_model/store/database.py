"""SQLite as the state needs it: durable writes one after another, reads beside them, and errors of ours."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from csi_model.errors import BusyError, CsiModelError, DiskError, NoSpaceError, StateDamagedError
from csi_model.linux.disk import allocate_ahead, free_bytes
from csi_model.steps import step
from csi_model.store.faults import disk_errors
from csi_model.store.reserve import Reserve
from csi_model.store.schema import demand_current, migrate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_PATIENCE = 30.0
"""Seconds to wait for another process, which can hold the database only for a moment (a reader that recovers the log)."""
_LOG = (4 << 20) + (256 << 10)
"""Bytes that the log grows to before SQLite begins it anew: a checkpoint every 1000 pages."""
_INDEX = 32 << 10
"""Bytes of the log's index for that many pages."""


class Database:
    """One database file in WAL mode, used by many threads.

    A writer has two connections, each with its lock: one for transactions, which are on disk when ``write`` ends (synchronous=FULL, one
    fsync), and one for reads, which therefore never wait for an fsync. A single guarded writing connection cannot meet "database is
    locked", however many threads there are. A reading process has the reading connection alone.

    The log and its index have their blocks from the opening on, so that a disk that fills up while the driver runs stops no record: without them
    nothing could be unpublished until somebody else made room.
    """

    def __init__(self, path: Path, reading: sqlite3.Connection, writing: sqlite3.Connection | None, index: int | None = None) -> None:
        self.path = path
        self._index = index
        self._reading, self._reading_lock = reading, threading.Lock()
        self._writing, self._writing_lock = writing, threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open for writing; create or migrate as needed.

        Raises:
            StateDamagedError: the file is damaged.
            UnsupportedError: a newer csi-model wrote it.
            NoSpaceError: the disk is full.
        """
        with sqlite_errors(path):
            writing = _connect(f"{path.absolute().as_uri()}?mode=rwc")
            try:
                writing.execute("PRAGMA journal_mode = WAL")
                writing.execute("PRAGMA synchronous = FULL")
                writing.execute("PRAGMA foreign_keys = ON")
                _demand_sound(writing, path)
                migrate(writing)
                reading = _connect(f"{path.absolute().as_uri()}?mode=ro")
            except BaseException:
                writing.close()
                raise
            return cls(path, reading, writing, _keep_blocks(path))

    @classmethod
    def open_for_reading(cls, path: Path) -> Self:
        """Open beside a running writer, or when there is none.

        Raises:
            NotFoundError, UnsupportedError: its schema is not ours.
            StateDamagedError: the file is damaged.
        """
        with sqlite_errors(path):
            reading = _connect(f"{path.absolute().as_uri()}?mode=ro")
            try:
                demand_current(reading)
            except BaseException:
                reading.close()
                raise
            return cls(path, reading, None)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: on disk when the body has ended, undone when it raised.

        Raises:
            NoSpaceError: the disk is full; nothing has changed.
        """
        with self._writing_lock, sqlite_errors(self.path):
            if self._writing is None:
                msg = f"the state database {self.path} is open for reading only; ask the running driver to change it"
                raise BusyError(msg)
            self._writing.execute("BEGIN IMMEDIATE")
            try:
                yield self._writing
                step("state.begun")
                self._writing.execute("COMMIT")
            except BaseException:
                if self._writing.in_transaction:
                    self._writing.execute("ROLLBACK")
                raise
            step("state.committed")

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows of one query, which sees one state by itself."""
        with self._reading_lock, sqlite_errors(self.path):
            return self._reading.execute(query, values).fetchall()

    def row(self, query: str, values: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row of one query, if it has any."""
        return next(iter(self.rows(query, values)), None)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Queries that must all see the same state."""
        with self._reading_lock, sqlite_errors(self.path):
            self._reading.execute("BEGIN")
            try:
                yield self._reading
            finally:
                if self._reading.in_transaction:
                    self._reading.execute("ROLLBACK")

    def problems(self) -> tuple[str, ...]:
        """What a full check finds wrong with the file; reads all of it."""
        with self.read() as connection:
            return _problems(connection, "integrity_check")

    def close(self) -> None:
        """Close when running transactions have ended; a clean close leaves one file."""
        with self._writing_lock, self._reading_lock:
            self._reading.close()
            if self._writing is not None:
                self._writing.close()
            if self._index is not None:
                os.close(self._index)
                self._index = None


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)


def _keep_blocks(path: Path) -> int:
    """Have all the blocks that the log and its index will need, from the reserve if need be; their lengths, which SQLite goes by, stay.

    Where that cannot be, SQLite takes them when it needs them. The index is mapped, and a page of it without a block would end the
    process with SIGBUS. Returns its descriptor, to be closed after the database: closing it sooner would drop SQLite's locks on it
    (fcntl_locking(2): they go with the first descriptor that the process closes).
    """
    with disk_errors(f"cannot prepare the log of the state database {path}"):
        log = os.open(path.with_name(f"{path.name}-wal"), os.O_WRONLY | os.O_CLOEXEC)
        try:
            while not allocate_ahead(log, 0, _LOG) and free_bytes(path.parent) < _LOG and Reserve(path.parent).lend():
                pass
        finally:
            os.close(log)
        index = os.open(path.with_name(f"{path.name}-shm"), os.O_WRONLY | os.O_CLOEXEC)
        allocate_ahead(index, 0, _INDEX)
    return index


def _demand_sound(connection: sqlite3.Connection, path: Path) -> None:
    if problems := _problems(connection, "quick_check"):
        msg = f"the state database {path} is damaged: {problems[0]}"
        raise StateDamagedError(msg)


def _problems(connection: sqlite3.Connection, check: str) -> tuple[str, ...]:
    found = tuple(str(row[0]) for row in connection.execute(f"PRAGMA {check}"))
    return () if found == ("ok",) else found


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's errors of the body as ours, told apart by result code (https://www.sqlite.org/rescode.html)."""
    try:
        yield
    except sqlite3.Error as error:
        raise _as_ours(error, path) from error


def _as_ours(error: sqlite3.Error, path: Path) -> CsiModelError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF  # the low byte is the primary code
    if code == sqlite3.SQLITE_CANTOPEN and Reserve(path.parent).lacks_inodes():  # what errno was, Python does not tell
        return NoSpaceError(f"the state database {path} cannot be opened: its disk has no inode left; remove files from that filesystem")
    if code == sqlite3.SQLITE_FULL:
        return NoSpaceError(f"the state database {path} cannot grow: the disk is full; free space with `csi-model rm`")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return StateDamagedError(f"the state database {path} is damaged ({error}); restart the driver, which rebuilds it")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return BusyError(f"another process holds the state database {path}; try again")
    return DiskError(f"the state database {path} cannot be used ({error}); look at the node's disk and kernel log")
