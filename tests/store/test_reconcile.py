"""Reconciliation: leftovers go, resumable work stays, and what the disk contradicts is not believed."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from csi_model.oci.digest import Digest
from csi_model.store.ingest import KEPT, sweep
from csi_model.store.keylocks import KeyLocks
from csi_model.store.records import ModelLayer, ModelRecord
from csi_model.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BLOB = Digest.of(b"weights")


def _unfinished(root: Path, name: str) -> Path:
    directory = root / "ingest" / name
    directory.mkdir(parents=True)
    (directory / "data").write_bytes(b"wei")
    return directory


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Have the next start happen so many seconds from now."""

    def move(seconds: float) -> None:
        monkeypatch.setattr("csi_model.store.reconcile.time", SimpleNamespace(time=lambda: time.time() + seconds))

    return move


def test_work_is_kept_for_a_day(root: Path, later: Callable[[float], None]) -> None:
    """Unfinished layers stay for 24 hours after the last write, so that a pod that comes back resumes, and then they go."""
    directory = _unfinished(root, f"{BLOB.hex}-none")
    later(KEPT - 60)
    with Store.open(root, writable=True) as store, store.content.ingest(BLOB, "none") as ingest:
        assert ingest.path.read_bytes() == b"wei"
    later(KEPT + 60)
    with Store.open(root, writable=True):
        assert not directory.exists()


def _pulled(store: Store, data: bytes, *, manifest: bytes | None = None) -> Digest:
    """A raw layer, and the model of it where it has one."""
    layer = store.content.add(data)
    store.state.record_layer(layer, "none", layer, len(data), b"")
    if manifest is not None:
        layers = (ModelLayer(layer, "none", layer),)
        store.state.record_model(ModelRecord(store.content.add(manifest), "ORAS artifact", len(data), authenticated=False, layers=layers))
    return layer


def test_layers_without_a_model_are_kept_for_a_day(root: Path, later: Callable[[float], None]) -> None:
    """What a pull that failed has brought is there for its next try; then it goes, with its record, and what a model needs stays."""
    with Store.open(root, writable=True) as store:
        needed, orphan = _pulled(store, b"needed", manifest=b"{}"), _pulled(store, b"orphan")
    later(KEPT - 60)
    with Store.open(root, writable=True) as store:
        assert store.content.has(orphan)
    later(KEPT + 60)
    with Store.open(root, writable=True) as store:
        assert set(store.content.digests()) == {needed, Digest.of(b"{}")}
        assert store.state.layer(orphan, "none") is None
        assert store.state.layer(needed, "none") is not None


def test_a_sealed_ingest_is_not_old(root: Path) -> None:
    """A commit that was killed after it had set the file's time to 0 is resumed like any other."""
    directory = _unfinished(root, f"{BLOB.hex}-none")
    os.utime(directory / "data", (0, 0))
    with Store.open(root, writable=True):
        assert (directory / "data").exists()


@pytest.mark.parametrize("decoding", ["gzip", "zstd", f"gzip-{'0' * 16}"])
def test_what_was_being_decoded_goes_at_once(root: Path, decoding: str) -> None:
    """A decoder's state ended with its process: what it had written, up to a whole layer, would never be used; raw work beside it stays."""
    _unfinished(root, f"{BLOB.hex}-{decoding}")
    kept = {_unfinished(root, f"{BLOB.hex}-none{guard}").name for guard in ("", f"-{'0' * 16}")}
    with Store.open(root, writable=True):
        assert {path.name for path in (root / "ingest").iterdir()} == kept


@pytest.mark.parametrize("name", [".add-0123", "litter", f"{BLOB.hex[:10]}-none", f"{BLOB.hex}-", "none"])
def test_what_is_no_ingest_goes(root: Path, name: str) -> None:
    """Temporary files of a crash and foreign directories are removed, however recent."""
    (root / "ingest").mkdir(parents=True)
    if name.startswith("."):
        (root / "ingest" / name).touch()
    else:
        _unfinished(root, name)
    with Store.open(root, writable=True):
        assert not list((root / "ingest").iterdir())


def test_a_link_in_ingest_is_removed_and_not_followed(root: Path, tmp_path: Path) -> None:
    """Tidying never reaches outside the state directory."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (root / "ingest").mkdir(parents=True)
    (root / "ingest" / "link").symlink_to(outside)
    with Store.open(root, writable=True):
        assert not list((root / "ingest").iterdir())
    assert (outside / "precious").exists()


def test_work_in_use_is_never_swept(store: Store) -> None:
    """A sweep beside running pulls leaves their directories alone, empty or old."""
    with store.content.ingest(BLOB, "none"), store.content.ingest(BLOB, "gzip") as other:
        other.path.write_bytes(b"wei")
        store.content.sweep(now=time.time() + 2 * KEPT)
        assert len(list((store.root / "ingest").iterdir())) == 2
    store.content.sweep(now=time.time() + 2 * KEPT)
    assert not list((store.root / "ingest").iterdir())


def test_work_that_ends_under_the_sweep_stops_nothing(root: Path) -> None:
    """An ingest that is committed between its listing and its turn is passed over, and the old ones after it go all the same."""

    class Overtaken(KeyLocks):
        """Locks whose first holder finds that somebody was there just before."""

        @contextmanager
        def hold(self, key: str, *, patience: float | None) -> Iterator[None]:
            if key == ended.name:
                shutil.rmtree(ended)
            with super().hold(key, patience=patience):
                yield

    ended, old = sorted(_unfinished(root, f"{Digest.of(data).hex}-none") for data in (b"a", b"b"))
    sweep(root / "ingest", Overtaken(), now=time.time() + 2 * KEPT)
    assert not old.exists()


def test_content_of_a_wrong_length_is_removed_at_start(root: Path) -> None:
    """A file shorter than when it was committed cannot be what its name says: it goes, and whole content stays."""
    with Store.open(root, writable=True) as store:
        whole, damaged = store.content.add(b"whole"), store.content.add(b"damaged")
        store.state.record_layer(whole, "none", whole, 5, b"")
        store.state.record_layer(damaged, "none", damaged, 7, b"")
        path = store.content.path(damaged)
        path.chmod(0o644)
        path.write_bytes(b"dam")
    with Store.open(root, writable=True) as store:
        assert list(store.content.digests()) == [whole]


def test_unrecorded_content_is_adopted(root: Path) -> None:
    """Content committed just before a crash, with no record yet, stays: its name says what it is."""
    with Store.open(root, writable=True) as store:
        digest = store.content.add(b"weights")
    with Store.open(root, writable=True) as store:
        assert store.content.has(digest)


def test_interrupted_probes_go(root: Path) -> None:
    """The file that tries the filesystem at start is no litter after a crash."""
    (root / "content").mkdir(parents=True)
    (root / "views").mkdir()
    (root / "content" / ".probe-1").touch()
    (root / "views" / ".probe-1").touch()
    with Store.open(root, writable=True):
        assert not list(root.rglob(".probe-*"))
