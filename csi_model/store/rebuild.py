"""A damaged state database is set aside, and a new one takes what can still be read from it; of one that is gone, that is nothing.

What cannot be read is lost, and this is what it means. A layer: it is pulled again, or found by its digest and delivered once more by
whoever names it. A model: it is recognised by its manifest, and counts as one that needs credentials. A resolution: the next publish asks
the registry. A pin: the volume takes what its publication names, or else what its tag names now. A publication: its mount lives on, is
recognised when it is published again (volumes/recognise.py), and goes with its unpublish. A view: it is built again. The damaged file
stays beside the new one for whoever wants to look.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import structlog

from csi_model.errors import CorruptContentError, InvalidRequestError
from csi_model.linux.disk import fsync_directory
from csi_model.oci.digest import Digest
from csi_model.store.database import Database
from csi_model.store.faults import disk_errors
from csi_model.store.recognise import models_in
from csi_model.store.schema import TABLES
from csi_model.store.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from csi_model.store.content import ContentStore

log = structlog.get_logger(__name__)

_PARTS = ("-wal", "-shm", "")
"""Suffixes of a database's files. The log moves first: beside a new database an old log would be taken for its own."""


def open_or_rebuild(root: Path, content: ContentStore) -> State:
    """Open ``state.db`` for writing, rebuilding it when it is damaged, or missing beside content.

    The new database is finished as ``state.rebuilt.db`` before the damaged one moves to ``state.damaged.db``, and then takes its name; a
    crash in between is finished here at the next start.

    Raises:
        UnsupportedError: a newer csi-model wrote it.
    """
    path, rebuilt, damaged = root / "state.db", root / "state.rebuilt.db", root / "state.damaged.db"
    with disk_errors(f"cannot set up the state database {path}"):
        if rebuilt.exists() and not path.exists():
            rebuilt.rename(path)
        _remove(rebuilt)
        if path.exists() or next(content.digests(), None) is None:
            try:
                return State.open(path)
            except CorruptContentError as error:
                log.error("state database damaged", error=str(error), kept=str(damaged))  # noqa: TRY400 - it is handled here
            _salvage(path, rebuilt)
        else:
            log.error("state database missing", path=str(path))
        _complete(rebuilt, content)
        _remove(damaged)
        for part in _PARTS:
            old = path.with_name(path.name + part)
            if old.exists():
                old.rename(damaged.with_name(damaged.name + part))
        rebuilt.rename(path)
        fsync_directory(root)
        return State.open(path)


def _salvage(source: Path, target: Path) -> None:
    """Copy every row that can be read and makes sense into a new database."""
    with (
        closing(Database.open(target)) as database,
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as old,
        database.write() as new,
    ):
        old.row_factory = sqlite3.Row
        for table in TABLES:
            kept = sum(_insert(new, table, dict(row)) for row in _rows(old, table) if _makes_sense(row))
            log.warning("records salvaged", table=table, count=kept)


def _complete(target: Path, content: ContentStore) -> None:
    """Add the models that only their manifests tell of, so that content which a salvaged volume needs is not taken for unreferenced."""
    with State.open(target) as state:
        for model in models_in(content):
            known = state.model(model.manifest)
            if known is None or len(known.layers) < len(model.layers) or len(known.documents) < len(model.documents):
                log.warning("model recognised among content", manifest=str(model.manifest), format=model.format)
                state.record_model(model)


def _rows(old: sqlite3.Connection, table: str) -> Iterator[sqlite3.Row]:
    try:
        yield from old.execute(f"SELECT * FROM {table} NOT INDEXED")  # noqa: S608 - one of TABLES
    except sqlite3.Error as error:
        log.warning("records lost", table=table, error=str(error))


def _insert(new: sqlite3.Connection, table: str, row: Mapping[str, object]) -> bool:
    columns = ", ".join(row)
    marks = ", ".join("?" * len(row))
    try:
        new.execute(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(row.values()))  # noqa: S608 - names of our columns
    except sqlite3.Error as error:
        log.warning("record lost", table=table, error=str(error))
        return False
    return True


def _makes_sense(row: sqlite3.Row) -> bool:
    values = dict(row)
    try:
        for column in {"manifest", "blob", "content"} & values.keys():
            if values[column] is not None:
                Digest.parse(values[column])
        for column in {"include", "exclude", "guards"} & values.keys():
            json.loads(values[column])
    except (InvalidRequestError, ValueError, TypeError):
        return False
    return True


def _remove(database: Path) -> None:
    for part in _PARTS:
        database.with_name(database.name + part).unlink(missing_ok=True)
