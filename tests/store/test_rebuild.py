"""Rebuilding: a damaged database never stops the node, and what can be read from it, or told by the content, is kept."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from csi_model.oci.digest import Digest
from csi_model.store.records import ModelLayer, ModelRecord, Publication
from csi_model.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path

RAW = Digest.of(b"raw layer")
_PAGE = 4096


def _manifest(config: bytes) -> bytes:
    """A ModelPack manifest of one raw layer, as its producers write it."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.cncf.model.manifest.v1+json",
            "config": {"mediaType": "application/vnd.cncf.model.config.v1+json", "digest": str(Digest.of(config)), "size": len(config)},
            "layers": [
                {
                    "mediaType": "application/vnd.cncf.model.weight.v1.raw",
                    "digest": str(RAW),
                    "size": 9,
                    "annotations": {"org.cncf.model.filepath": "model.bin"},
                }
            ],
        }
    ).encode()


def _config() -> bytes:
    descriptor = {"name": "tiny"}
    return json.dumps({"descriptor": descriptor, "modelfs": {"type": "layers", "diffIds": [str(RAW)]}, "config": {}}).encode()


def _publication(manifest: Digest) -> Publication:
    return Publication("/pods/a/mount", "volume-a", "r:v1", manifest, "view1", "", (), (), 1.0)


def _fill(root: Path) -> Digest:
    """A store with one published model; returns its manifest."""
    with Store.open(root, writable=True) as store:
        store.content.add(b"raw layer")
        config = store.content.add(_config())
        manifest = store.content.add(_manifest(_config()))
        store.state.record_layer(RAW, "none", RAW, 9, bytes(16))
        store.state.record_model(
            ModelRecord(manifest, "ModelPack", 9, authenticated=False, layers=(ModelLayer(RAW, "none", RAW),), documents=(config,))
        )
        store.state.record_resolution("r:v1", manifest, 1.0)
        store.state.publish(_publication(manifest))
    return manifest


def _root_page(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0])


def _destroy_page(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * _PAGE)
        file.write(b"\xff" * _PAGE)


def test_garbage_becomes_a_working_store_that_knows_its_models(root: Path) -> None:
    """When no record can be read, the node goes on: content stays, and models are recognised by their manifests, as private ones."""
    manifest = _fill(root)
    (root / "state.db").write_bytes(b"garbage" * 5000)
    with Store.open(root, writable=True) as store:
        assert store.state.integrity() == ()
        assert store.state.publications() == ()
        config = Digest.of(_config())
        layers = (ModelLayer(RAW, "none", RAW),)
        assert store.state.models() == (ModelRecord(manifest, "ModelPack", 9, authenticated=True, layers=layers, documents=(config,)),)
        assert store.content.read(RAW, 10) == b"raw layer"
        store.state.publish(_publication(manifest))
    assert (root / "state.damaged.db").read_bytes().startswith(b"garbage")


def test_a_database_that_is_gone_is_rebuilt_from_content(root: Path) -> None:
    """Somebody who removes the records removes no model with them; the log of the old ones is not taken for that of the new."""
    manifest = _fill(root)
    (root / "state.db").rename(root / "state.db-wal")
    with Store.open(root, writable=True) as store:
        assert [model.manifest for model in store.state.models()] == [manifest]
        assert store.state.integrity() == ()
        assert (root / "state.damaged.db-wal").exists()
        assert store.state.publications() == ()


@pytest.mark.parametrize("table", ["layer", "model", "model_layer", "resolution"])
def test_undamaged_tables_are_salvaged(root: Path, table: str) -> None:
    """Damage in one table costs that table: publications and pins are all there, and the published model's content is still needed."""
    manifest = _fill(root)
    _destroy_page(root / "state.db", _root_page(root / "state.db", table))
    with Store.open(root, writable=True) as store:
        assert store.state.integrity() == ()
        assert store.state.publications() == (_publication(manifest),)
        assert store.state.pinned("volume-a", "r:v1") == manifest
        assert (store.state.resolution("r:v1") is None) == (table == "resolution")
        assert (store.state.layer(RAW, "none") is None) == (table == "layer")
        assert {manifest, RAW} <= store.state.contents_of(store.state.held())
    with Store.open(root, writable=True) as store:
        assert store.state.publications() == (_publication(manifest),)


def test_a_salvaged_public_model_stays_public(root: Path) -> None:
    """What a readable record says of a model outranks what its manifest cannot say."""
    manifest = _fill(root)
    _destroy_page(root / "state.db", _root_page(root / "state.db", "view"))
    with Store.open(root, writable=True) as store:
        model = store.state.model(manifest)
        assert model is not None
        assert not model.authenticated
    assert (root / "state.damaged.db").exists()


def test_rows_that_make_no_sense_are_left_behind(root: Path) -> None:
    """A digest that is none and globs that are no list never enter the new database."""
    manifest = _fill(root)
    with closing(sqlite3.connect(root / "state.db", isolation_level=None)) as connection:
        connection.execute("INSERT INTO resolution VALUES ('bad', 'sha256:short', 1.0)")
        connection.execute(
            "INSERT INTO publication SELECT '/bad', volume_id, reference, manifest, view_id, path, '[', '[]', 1.0 FROM publication"
        )
        connection.execute("INSERT INTO model_document VALUES (?, ?)", (str(RAW), str(RAW)))  # of a model that is not there
    _destroy_page(root / "state.db", _root_page(root / "state.db", "view"))
    with Store.open(root, writable=True) as store:
        assert [record.reference for record in store.state.resolutions()] == ["r:v1"]
        assert store.state.publications() == (_publication(manifest),)


def test_a_rebuild_cut_short_before_the_swap_begins_again(root: Path) -> None:
    """A half-finished new database beside the damaged one is thrown away."""
    manifest = _fill(root)
    _destroy_page(root / "state.db", _root_page(root / "state.db", "layer"))
    (root / "state.rebuilt.db").write_bytes(b"half")
    (root / "state.rebuilt.db-wal").write_bytes(b"half")
    with Store.open(root, writable=True) as store:
        assert store.state.publications() == (_publication(manifest),)
    assert not list(root.glob("state.rebuilt.db*"))


def test_a_rebuild_cut_short_in_the_swap_is_finished(root: Path) -> None:
    """When the damaged database has moved away and the new one has not yet its name, the next start gives it the name."""
    manifest = _fill(root)
    shutil.move(root / "state.db", root / "state.rebuilt.db")
    with Store.open(root, writable=True) as store:
        assert store.state.publications() == (_publication(manifest),)


def test_damage_twice_keeps_the_latest(root: Path) -> None:
    """Only one damaged database is kept, so that damage cannot fill the disk."""
    _fill(root)
    for garbage in (b"first", b"again"):
        (root / "state.db").write_bytes(garbage * 5000)
        Store.open(root, writable=True).close()
    assert (root / "state.damaged.db").read_bytes().startswith(b"again")
    assert len(list(root.glob("state.*"))) == 2
