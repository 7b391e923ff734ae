"""The state database's tables, and how older ones become newer ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import NotFoundError, UnsupportedError

if TYPE_CHECKING:
    import sqlite3

_FIRST = """
CREATE TABLE layer (                -- what a blob became when it was decoded
    blob TEXT NOT NULL, compression TEXT NOT NULL, content TEXT NOT NULL, size INTEGER NOT NULL, pieces BLOB NOT NULL,
    guards TEXT NOT NULL,           -- who delivered it to credentials only, as a JSON list; empty when it is anybody's
    PRIMARY KEY (blob, compression)
) STRICT;
CREATE INDEX layer_content ON layer (content);
CREATE TABLE model (                -- what was pulled
    manifest TEXT NOT NULL PRIMARY KEY, format TEXT NOT NULL, size INTEGER NOT NULL, authenticated INTEGER NOT NULL, last_used REAL
) STRICT;
CREATE TABLE model_layer (
    manifest TEXT NOT NULL REFERENCES model ON DELETE CASCADE, position INTEGER NOT NULL,
    blob TEXT NOT NULL, compression TEXT NOT NULL, content TEXT,
    PRIMARY KEY (manifest, position)
) STRICT;
CREATE TABLE model_document (       -- config, index: small contents that the model needs
    manifest TEXT NOT NULL REFERENCES model ON DELETE CASCADE, content TEXT NOT NULL,
    PRIMARY KEY (manifest, content)
) STRICT;
CREATE TABLE resolution (           -- what a reference named, and when it was asked
    reference TEXT NOT NULL PRIMARY KEY, manifest TEXT NOT NULL, asked REAL NOT NULL
) STRICT;
CREATE TABLE pin (                  -- the manifest that a volume's first publish resolved
    volume_id TEXT NOT NULL, reference TEXT NOT NULL, manifest TEXT NOT NULL, pinned REAL NOT NULL,
    PRIMARY KEY (volume_id, reference)
) STRICT;
CREATE TABLE publication (          -- what appears at a target path, for which volume
    target TEXT NOT NULL PRIMARY KEY, volume_id TEXT NOT NULL, reference TEXT NOT NULL, manifest TEXT NOT NULL, view_id TEXT NOT NULL,
    path TEXT NOT NULL, include TEXT NOT NULL, exclude TEXT NOT NULL, published REAL NOT NULL
) STRICT;
CREATE INDEX publication_volume ON publication (volume_id);
CREATE TABLE view (                 -- what was built
    view_id TEXT NOT NULL PRIMARY KEY, manifest TEXT NOT NULL, strategy TEXT NOT NULL,
    path TEXT NOT NULL, include TEXT NOT NULL, exclude TEXT NOT NULL,
    bytes INTEGER NOT NULL, inodes INTEGER NOT NULL, last_used REAL NOT NULL
) STRICT;
"""

MIGRATIONS = (_FIRST,)
"""Script n brings schema n to n + 1. Scripts that have been released never change."""

TABLES = ("layer", "model", "model_layer", "model_document", "resolution", "pin", "publication", "view")
"""Every table, those that others refer to first."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to the newest schema, each step in one transaction.

    Raises:
        UnsupportedError: a newer csi-model wrote it.
    """
    for number in range(_known_version(connection), len(MIGRATIONS)):
        connection.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")


def demand_current(connection: sqlite3.Connection) -> None:
    """Let a reader go on only with the schema it knows; it may not migrate.

    Raises:
        UnsupportedError: the schema is older or newer.
        NotFoundError: the database was never set up.
    """
    version = _known_version(connection)
    if version == 0:
        msg = "the state database is empty; `csi-model pull` or `csi-model serve` sets it up"
        raise NotFoundError(msg)
    if version < len(MIGRATIONS):
        msg = f"the state database has schema {version}, older than {len(MIGRATIONS)}; run the upgraded driver once to convert it"
        raise UnsupportedError(msg)


def _known_version(connection: sqlite3.Connection) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        msg = (
            f"the state database has schema {version} and this csi-model knows up to {len(MIGRATIONS)}; "
            "upgrade csi-model, or use another directory with --state-dir"
        )
        raise UnsupportedError(msg)
    return version
