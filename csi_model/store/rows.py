"""Publications and views as rows of their tables; the globs, which are lists, are kept as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from csi_model.oci.digest import Digest
from csi_model.store.records import Publication, ViewRecord

if TYPE_CHECKING:
    from collections.abc import Iterable


def as_json(values: Iterable[str]) -> str:
    """A list of texts, as SQLite's json_each reads it."""
    return json.dumps(list(values))


def publication(row: tuple[str, str, str, str, str, str, str, str, float]) -> Publication:
    """The record that a row holds."""
    target, volume_id, reference, manifest, view_id, path, include, exclude, when = row
    return Publication(target, volume_id, reference, Digest.parse(manifest), view_id, path, texts(include), texts(exclude), when)


def publication_row(record: Publication) -> tuple[str | float, ...]:
    """The row that holds a record, in the order of the table's columns."""
    globs = as_json(record.include), as_json(record.exclude)
    return (record.target, record.volume_id, record.reference, str(record.manifest), record.view_id, record.path, *globs, record.when)


def view(row: tuple[str, str, str, str, str, str, int, int, float]) -> ViewRecord:
    """The record that a row holds."""
    view_id, manifest, strategy, path, include, exclude, size, inodes, last_used = row
    return ViewRecord(view_id, Digest.parse(manifest), strategy, path, texts(include), texts(exclude), size, inodes, last_used)


def view_row(record: ViewRecord) -> tuple[str | int | float, ...]:
    """The row that holds a record, in the order of the table's columns."""
    what = (record.view_id, str(record.manifest), record.strategy, record.path)
    return (*what, as_json(record.include), as_json(record.exclude), record.bytes, record.inodes, record.last_used)


def texts(text: str) -> tuple[str, ...]:
    """The list that ``as_json`` wrote."""
    return tuple(json.loads(text))
