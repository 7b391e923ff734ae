"""The database: its schema is checked, its failures become errors of ours, and a failed change changes nothing."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import BusyError, NoSpaceError, NotFoundError, StateDamagedError, UnavailableError, UnsupportedError
from csi_model.oci.digest import Digest
from csi_model.store.database import Database
from csi_model.store.schema import MIGRATIONS, TABLES
from csi_model.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def _set_version(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


def test_every_table_is_listed(path: Path) -> None:
    """A rebuild copies every table there is."""
    with closing(Database.open(path)) as database, database.read() as connection:
        assert {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")} == set(TABLES)


def test_commits_are_durable_by_setting(path: Path) -> None:
    """Each commit is synced: WAL with synchronous=FULL (2)."""
    with closing(Database.open(path)) as database, database.write() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    """After a downgrade nothing is guessed: writers and readers name the schema and the next step."""
    Database.open(path).close()
    _set_version(path, len(MIGRATIONS) + 1)
    before = path.read_bytes()
    for opening in (Database.open, Database.open_for_reading):
        with pytest.raises(UnsupportedError, match="upgrade csi-model"):
            opening(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_not_taken_for_damage(root: Path) -> None:
    """A store whose state a newer csi-model wrote is not rebuilt."""
    Store.open(root, writable=True).close()
    _set_version(root / "state.db", len(MIGRATIONS) + 1)
    with pytest.raises(UnsupportedError, match="upgrade csi-model"):
        Store.open(root, writable=True)
    assert not (root / "state.damaged.db").exists()


def test_a_reader_does_not_migrate(path: Path) -> None:
    """An empty database is nothing to read yet."""
    sqlite3.connect(path).close()
    path.touch()
    with pytest.raises(NotFoundError, match="csi-model pull"):
        Database.open_for_reading(path)


def test_an_older_schema_is_for_the_driver_to_convert(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader newer than the driver says so; the writer migrates, and then it reads."""
    Database.open(path).close()
    monkeypatch.setattr("csi_model.store.schema.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE later (x TEXT) STRICT;"))
    with pytest.raises(UnsupportedError, match="older than 2"):
        Database.open_for_reading(path)
    Database.open(path).close()
    with closing(Database.open_for_reading(path)) as database, database.read() as connection:
        assert connection.execute("SELECT count(*) FROM later").fetchone() == (0,)


def test_a_failed_migration_leaves_the_old_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration is one transaction: what fails in the middle is undone and can be tried again."""
    Database.open(path).close()
    monkeypatch.setattr("csi_model.store.schema.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE later (x TEXT); CREATE TABLE layer (x TEXT);"))
    with pytest.raises(UnavailableError, match="layer already exists"):
        Database.open(path)
    monkeypatch.undo()
    with closing(Database.open(path)) as database, database.read() as connection:
        assert connection.execute("SELECT name FROM sqlite_schema WHERE name = 'later'").fetchone() is None


def test_a_failed_body_is_undone(path: Path) -> None:
    """An exception inside a transaction takes all of it back, and the next one works."""
    with closing(Database.open(path)) as database:
        insert = "INSERT INTO resolution VALUES (?, 'm', 1.0)"

        def fail() -> None:
            with database.write() as connection:
                connection.execute(insert, ("one",))
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        with database.write() as connection:
            connection.execute(insert, ("two",))
        with database.read() as connection:
            assert connection.execute("SELECT reference FROM resolution").fetchall() == [("two",)]


def test_a_read_sees_one_state(path: Path) -> None:
    """Two queries of one read agree although a write commits between them, and the write does not wait for the read."""
    with closing(Database.open(path)) as database:
        with database.read() as reading:
            before = reading.execute("SELECT count(*) FROM resolution").fetchone()
            with database.write() as writing:
                writing.execute("INSERT INTO resolution VALUES ('r', 'm', 1.0)")
            assert reading.execute("SELECT count(*) FROM resolution").fetchone() == before
        with database.read() as reading:
            assert reading.execute("SELECT count(*) FROM resolution").fetchone() == (1,)


def test_a_foreign_lock_is_busy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program that holds the database longer than we wait makes a change fail as busy, not as damage."""
    monkeypatch.setattr("csi_model.store.database._PATIENCE", 0.05)
    with closing(Database.open(path)) as database, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyError, match="another process"), database.write():
            pass
        other.execute("ROLLBACK")
        with database.write():
            pass


def test_a_file_that_is_no_database_is_damage(path: Path) -> None:
    """Garbage is told apart from everything else."""
    path.write_bytes(b"garbage" * 1000)
    for opening in (Database.open, Database.open_for_reading):
        with pytest.raises(StateDamagedError, match="damaged"):
            opening(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of one MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.root
def test_a_full_disk_changes_nothing(small_disk: Path) -> None:
    """On a full disk a record and a document fail as NoSpaceError, leave nothing half done, and work again once there is room."""
    with Store.open(small_disk / "state", writable=True) as store:
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space left"):
            _fill(ballast)
        with pytest.raises(NoSpaceError, match="csi-model rm"):
            store.state.record_layer(Digest.of(b"blob"), "none", Digest.of(b"blob"), 1, bytes(300_000))
        with pytest.raises(NoSpaceError, match="csi-model rm"):
            store.content.add(bytes(300_000))
        assert store.state.sizes() == ()
        assert not list(store.content.digests())
        assert not list((store.root / "ingest").iterdir())
        ballast.unlink()
        store.state.record_layer(Digest.of(b"blob"), "none", Digest.of(b"blob"), 1, bytes(300_000))
        store.content.add(bytes(300_000))
        assert store.state.sizes() == ((Digest.of(b"blob"), 1),)
