"""State: what the files on disk cannot say. Who published what, what a reference named, what a blob became, when it was last used.

What exists is what is on disk; a record never proves that bytes are there. Every change is one transaction and is on disk when its
method returns. Everything is safe to call from many threads.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from csi_model.errors import ConflictError
from csi_model.oci.digest import Digest
from csi_model.store import rows
from csi_model.store.database import Database
from csi_model.store.records import Counts, LayerRecord, ModelLayer, ModelRecord, Resolution

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from csi_model.store.records import Publication, ViewRecord

_HELD = (
    "SELECT manifest FROM resolution WHERE reference IS NOT ?1 UNION SELECT manifest FROM pin WHERE reference IS NOT ?1 "
    "UNION SELECT manifest FROM publication"
)
"""Manifests that something names, but for one reference. Views are no reason to keep anything: they can be built again."""

_COUNTED = ("model", "resolution", "view", "publication")
_UNPUBLISHED = "volume_id NOT IN (SELECT volume_id FROM publication)"
_GUARDS = "SELECT DISTINCT guards FROM model_layer JOIN layer USING (blob, compression) WHERE manifest = ?1 AND guards != '[]'"
_PUBLICATION = "SELECT target, volume_id, reference, manifest, view_id, path, include, exclude, published FROM publication"
_VIEW = "SELECT view_id, manifest, strategy, path, include, exclude, bytes, inodes, last_used FROM view"


class State:
    """The state database, open."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open for writing, creating or migrating; for a damaged file see rebuild.py.

        Raises:
            CorruptContentError: the file is damaged.
            UnsupportedError: a newer csi-model wrote it.
        """
        return cls(Database.open(path))

    @classmethod
    def open_for_reading(cls, path: Path) -> Self:
        """Open beside a running writer, or when there is none; methods that write raise BusyError.

        Raises:
            NotFoundError, UnsupportedError, CorruptContentError: see ``Database.open_for_reading``.
        """
        return cls(Database.open_for_reading(path))

    def close(self) -> None:
        """Close when running transactions have ended; twice is fine."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def integrity(self) -> tuple[str, ...]:
        """What a full check of the database file finds wrong; empty when all is well."""
        return self._database.problems()

    # Layers

    def record_layer(self, blob: Digest, compression: str, content: Digest, size: int, pieces: bytes, *, guard: str | None = None) -> None:
        """Remember what a blob became; ``pieces`` holds the XXH3-128 of each 4 MiB piece of the content.

        ``guard`` is the repository that delivered it, if to credentials only.
        """
        row = (str(blob), compression, str(content), size, pieces, rows.as_json([guard] if guard else []))
        with self._database.write() as db:
            db.execute("INSERT OR REPLACE INTO layer (blob, compression, content, size, pieces, guards) VALUES (?, ?, ?, ?, ?, ?)", row)

    def vouch(self, blob: Digest, compression: str, guard: str | None) -> None:
        """Remember that another repository delivered the blob in full, too: to credentials only (``guard`` names it), or to anybody."""
        with self._database.write() as db:
            key = (str(blob), compression)
            found = db.execute("SELECT guards FROM layer WHERE blob = ? AND compression = ?", key).fetchone()
            guards = rows.texts(found[0]) if found and guard else ()
            kept = rows.as_json(sorted({*guards, guard}) if guard and guards else [])
            db.execute("UPDATE layer SET guards = ? WHERE blob = ? AND compression = ?", (kept, *key))

    def is_anybodys(self, manifest: Digest) -> bool:
        """Whether the model was pulled, and neither its manifest nor any of its layers took credentials."""
        query = f"SELECT authenticated = 0 AND NOT EXISTS ({_GUARDS}) FROM model WHERE manifest = ?1"  # noqa: S608 - the text is ours
        row = self._database.row(query, (str(manifest),))
        return row is not None and bool(row[0])

    def guards(self, manifest: Digest) -> tuple[frozenset[str], ...]:
        """The guards of those layers of the model that are here and have any."""
        found = self._database.rows(_GUARDS, (str(manifest),))
        return tuple(frozenset(rows.texts(row[0])) for row in found)

    def layer(self, blob: Digest, compression: str) -> LayerRecord | None:
        """What the blob became when it was last pulled, if it ever was."""
        query = "SELECT content, size, pieces, guards FROM layer WHERE blob = ? AND compression = ?"
        row = self._database.row(query, (str(blob), compression))
        return LayerRecord(Digest.parse(row[0]), row[1], row[2], frozenset(rows.texts(row[3]))) if row else None

    def sizes(self) -> tuple[tuple[Digest, int], ...]:
        """The recorded length of every layer's content."""
        found = self._database.rows("SELECT DISTINCT content, size FROM layer ORDER BY content")
        return tuple((Digest.parse(content), size) for content, size in found)

    def forget_contents(self, contents: Iterable[Digest]) -> None:
        """Forget the layers that became these contents, once the files are gone."""
        with self._database.write() as db:
            db.execute("DELETE FROM layer WHERE content IN (SELECT value FROM json_each(?))", (rows.as_json(map(str, contents)),))

    # Models

    def record_model(self, model: ModelRecord) -> None:
        """Remember a pulled model. Recorded again, layers that had their content keep it and the last use stays the latest.

        As with its layers, a manifest that one repository delivered to anybody stays anybody's, whoever else wants credentials for it.
        """
        manifest = str(model.manifest)
        with self._database.write() as db:
            db.execute(
                "INSERT INTO model (manifest, format, size, authenticated, last_used) VALUES (?, ?, ?, ?, ?) ON CONFLICT (manifest) DO UPDATE "
                "SET format = excluded.format, size = excluded.size, authenticated = MIN(authenticated, excluded.authenticated), "
                "last_used = NULLIF(MAX(IFNULL(last_used, -1), IFNULL(excluded.last_used, -1)), -1)",
                (manifest, model.format, model.size, int(model.authenticated), model.last_used),
            )
            db.execute("DELETE FROM model_layer WHERE manifest = ? AND position >= ?", (manifest, len(model.layers)))
            db.executemany(
                "INSERT INTO model_layer (manifest, position, blob, compression, content) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (manifest, position) DO UPDATE SET content = CASE "
                "WHEN blob = excluded.blob AND compression = excluded.compression THEN IFNULL(excluded.content, content) "
                "ELSE excluded.content END, blob = excluded.blob, compression = excluded.compression",
                [
                    (manifest, position, str(layer.blob), layer.compression, str(layer.content) if layer.content else None)
                    for position, layer in enumerate(model.layers)
                ],
            )
            db.execute("DELETE FROM model_document WHERE manifest = ?", (manifest,))
            db.executemany(
                "INSERT OR IGNORE INTO model_document (manifest, content) VALUES (?, ?)",
                [(manifest, str(document)) for document in model.documents],
            )

    def model(self, manifest: Digest) -> ModelRecord | None:
        """The model of this manifest, if it was pulled."""
        with self._database.read() as db:
            return _model(db, str(manifest))

    def models(self) -> tuple[ModelRecord, ...]:
        """Every model that was pulled."""
        with self._database.read() as db:
            found = [_model(db, row[0]) for row in db.execute("SELECT manifest FROM model ORDER BY manifest").fetchall()]
        return tuple(model for model in found if model)

    def forget_model(self, manifest: Digest) -> None:
        """Forget the model and its views, once nothing holds it and their files are gone."""
        with self._database.write() as db:
            db.execute("DELETE FROM model WHERE manifest = ?", (str(manifest),))
            db.execute("DELETE FROM view WHERE manifest = ?", (str(manifest),))

    # References

    def record_resolution(self, reference: str, manifest: Digest, asked: float) -> None:
        """Remember what the reference named when it was asked for, unless a later answer is known. A time still to come is a clock's mistake."""
        with self._database.write() as db:
            db.execute(
                "INSERT INTO resolution (reference, manifest, asked) VALUES (?, ?, ?) ON CONFLICT (reference) DO UPDATE "
                "SET manifest = excluded.manifest, asked = excluded.asked WHERE excluded.asked >= asked OR asked > ?",
                (reference, str(manifest), asked, time.time()),
            )

    def assume_resolution(self, reference: str, manifest: Digest) -> None:
        """Remember a manifest that the reference once named, where nothing else is known of it; any answer counts more."""
        with self._database.write() as db:
            db.execute("INSERT OR IGNORE INTO resolution (reference, manifest, asked) VALUES (?, ?, 0)", (reference, str(manifest)))

    def resolution(self, reference: str) -> Resolution | None:
        """What the reference named when it was last asked for."""
        row = self._database.row("SELECT manifest, asked FROM resolution WHERE reference = ?", (reference,))
        return Resolution(reference, Digest.parse(row[0]), row[1]) if row else None

    def resolutions(self) -> tuple[Resolution, ...]:
        """Every reference that was asked for and not forgotten."""
        found = self._database.rows("SELECT reference, manifest, asked FROM resolution ORDER BY reference")
        return tuple(Resolution(reference, Digest.parse(manifest), asked) for reference, manifest, asked in found)

    def forget(self, reference: str) -> None:
        """Forget the reference, and what it means to volumes that are published nowhere."""
        with self._database.write() as db:
            db.execute("DELETE FROM resolution WHERE reference = ?", (reference,))
            db.execute(f"DELETE FROM pin WHERE reference = ? AND {_UNPUBLISHED}", (reference,))  # noqa: S608 - the text is ours

    def held(self, *, but: str | None = None) -> frozenset[Digest]:
        """The manifests that a reference, a volume or a publication names; ``but`` is a reference that does not count.

        Content that a running pull has just committed is not named yet: ask while none runs.
        """
        return frozenset(Digest.parse(row[0]) for row in self._database.rows(_HELD, (but,)))

    # Volumes

    def pin_volume(self, volume_id: str, reference: str, manifest: Digest) -> Digest:
        """Fix which manifest the reference means to this volume; return the one fixed, which is the first that anybody gave."""
        with self._database.write() as db:
            return _pin(db, volume_id, reference, manifest, time.time())

    def pinned(self, volume_id: str, reference: str) -> Digest | None:
        """The manifest that the reference means to this volume, once fixed."""
        row = self._database.row("SELECT manifest FROM pin WHERE volume_id = ? AND reference = ?", (volume_id, reference))
        return Digest.parse(row[0]) if row else None

    def unpin(self, volume_id: str) -> None:
        """Forget what references mean to this volume, unless it is published somewhere."""
        with self._database.write() as db:
            db.execute(f"DELETE FROM pin WHERE volume_id = ? AND {_UNPUBLISHED}", (volume_id,))  # noqa: S608 - the text is ours

    def unpin_older(self, than: float) -> None:
        """Forget the pins from before ``than`` of volumes that are published nowhere: their pods never came back."""
        with self._database.write() as db:
            db.execute(f"DELETE FROM pin WHERE pinned < ? AND {_UNPUBLISHED}", (than,))  # noqa: S608 - the text is ours

    def publish(self, publication: Publication) -> None:
        """Record the publication, its volume's pin and the model's last use, together.

        Raises:
            ConflictError: the volume is pinned to another manifest.
        """
        with self._database.write() as db:
            fixed = _pin(db, publication.volume_id, publication.reference, publication.manifest, publication.when)
            if fixed != publication.manifest:
                msg = f"volume {publication.volume_id} is pinned to {fixed} and cannot show {publication.manifest}; unpublish it first"
                raise ConflictError(msg)
            _unpublish(db, publication.target, keep=publication.volume_id)
            db.execute("INSERT INTO publication VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows.publication_row(publication))
            _touch(db, str(publication.manifest), publication.when)

    def publication(self, target: str) -> Publication | None:
        """What was made to appear at this target path."""
        row = self._database.row(f"{_PUBLICATION} WHERE target = ?", (target,))
        return rows.publication(row) if row else None

    def publications(self) -> tuple[Publication, ...]:
        """Everything that was made to appear and has not been unpublished."""
        return tuple(map(rows.publication, self._database.rows(f"{_PUBLICATION} ORDER BY target")))

    def unpublish(self, target: str) -> Publication | None:
        """Forget the publication, and its volume's pins with the volume's last target; return what was there."""
        with self._database.write() as db:
            return _unpublish(db, target)

    # Views

    def record_view(self, view: ViewRecord) -> None:
        """Remember a view that was built."""
        with self._database.write() as db:
            db.execute("INSERT OR REPLACE INTO view VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows.view_row(view))

    def view(self, view_id: str) -> ViewRecord | None:
        """The view of this id, if it was built."""
        row = self._database.row(f"{_VIEW} WHERE view_id = ?", (view_id,))
        return rows.view(row) if row else None

    def views(self) -> tuple[ViewRecord, ...]:
        """Every view that was built."""
        return tuple(map(rows.view, self._database.rows(f"{_VIEW} ORDER BY view_id")))

    def forget_view(self, view_id: str) -> None:
        """Forget the view, once its files are gone."""
        with self._database.write() as db:
            db.execute("DELETE FROM view WHERE view_id = ?", (view_id,))

    # Numbers

    def counts(self) -> Counts:
        """How much of each kind is recorded."""
        with self._database.read() as db:
            return Counts(*(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in _COUNTED))  # noqa: S608 - names are ours

    # What content is for

    def contents_of(self, manifests: Iterable[Digest]) -> frozenset[Digest]:
        """Every content that these models need: manifests, documents, layers. They need not be on disk."""
        with self._database.read() as db:
            return _contents(db, rows.as_json(map(str, manifests)))


def _model(db: sqlite3.Connection, manifest: str) -> ModelRecord | None:
    row = db.execute("SELECT format, size, authenticated, last_used FROM model WHERE manifest = ?", (manifest,)).fetchone()
    if not row:
        return None
    layers = db.execute("SELECT blob, compression, content FROM model_layer WHERE manifest = ? ORDER BY position", (manifest,))
    documents = db.execute("SELECT content FROM model_document WHERE manifest = ? ORDER BY rowid", (manifest,))
    return ModelRecord(
        manifest=Digest.parse(manifest),
        format=row[0],
        size=row[1],
        authenticated=bool(row[2]),
        layers=tuple(ModelLayer(Digest.parse(blob), how, Digest.parse(content) if content else None) for blob, how, content in layers),
        documents=tuple(Digest.parse(content) for (content,) in documents),
        last_used=row[3],
    )


def _touch(db: sqlite3.Connection, manifest: str, when: float) -> None:
    db.execute("UPDATE model SET last_used = MAX(IFNULL(last_used, ?), ?) WHERE manifest = ?", (when, when, manifest))


def _pin(db: sqlite3.Connection, volume_id: str, reference: str, manifest: Digest, when: float) -> Digest:
    db.execute("INSERT OR IGNORE INTO pin VALUES (?, ?, ?, ?)", (volume_id, reference, str(manifest), when))
    row = db.execute("SELECT manifest FROM pin WHERE volume_id = ? AND reference = ?", (volume_id, reference)).fetchone()
    return Digest.parse(row[0])


def _unpublish(db: sqlite3.Connection, target: str, *, keep: str | None = None) -> Publication | None:
    """Delete the publication, and the pins of its volume if that was its last target and the volume is not ``keep``."""
    row = db.execute(f"{_PUBLICATION} WHERE target = ?", (target,)).fetchone()
    if not row:
        return None
    former = rows.publication(row)
    db.execute("DELETE FROM publication WHERE target = ?", (target,))
    if former.volume_id != keep:
        last = "volume_id = :volume AND NOT EXISTS (SELECT 1 FROM publication WHERE volume_id = :volume)"
        db.execute(f"DELETE FROM pin WHERE {last}", {"volume": former.volume_id})  # noqa: S608 - the text is ours
    return former


def _contents(db: sqlite3.Connection, manifests: str) -> frozenset[Digest]:
    query = """
        SELECT value FROM json_each(:manifests)
        UNION SELECT content FROM model_document WHERE manifest IN (SELECT value FROM json_each(:manifests))
        UNION SELECT COALESCE(model_layer.content, layer.content, model_layer.blob)
        FROM model_layer LEFT JOIN layer USING (blob, compression) WHERE manifest IN (SELECT value FROM json_each(:manifests))
    """
    return frozenset(Digest.parse(row[0]) for row in db.execute(query, {"manifests": manifests}))
