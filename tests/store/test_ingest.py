"""Ingest: kept for resuming, committed in a crash-safe order, one user at a time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import BusyError, CorruptContentError, DiskMissingError, InvalidRequestError
from csi_model.oci.digest import Digest
from csi_model.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = b"weights" * 1000
BLOB = Digest.of(DATA)


def test_a_committed_ingest_is_sealed_content(store: Store) -> None:
    """Commit moves the file to its digest, 0444 and mtime 0, and leaves no ingest."""
    with store.content.ingest(BLOB, "none") as ingest:
        assert ingest.length() == 0
        ingest.path.write_bytes(DATA)
        path = ingest.commit(BLOB, len(DATA))
    assert path == store.content.path(BLOB)
    assert path.read_bytes() == DATA
    assert (path.stat().st_mode & 0o7777, path.stat().st_mtime) == (0o444, 0)
    assert not list((store.root / "ingest").iterdir())


def test_leaving_without_commit_keeps_the_bytes_for_the_next_process(root: Path) -> None:
    """Unfinished work is found again by its key, also after a restart, and is no content until then."""
    with Store.open(root, writable=True) as store, store.content.ingest(BLOB, "none") as ingest:
        ingest.path.write_bytes(DATA[:100])
    with Store.open(root, writable=True) as store:
        assert not store.content.has(BLOB)
        with store.content.ingest(BLOB, "gzip") as other:
            assert other.length() == 0
        with store.content.ingest(BLOB, "none") as ingest:
            assert ingest.path.read_bytes() == DATA[:100]


def test_a_failed_writer_keeps_its_bytes(store: Store) -> None:
    """An exception in the session is no reason to throw the bytes away."""

    def fail() -> None:
        with store.content.ingest(BLOB, "none") as ingest:
            ingest.path.write_bytes(DATA[:100])
            msg = "the registry went away"
            raise ConnectionError(msg)

    with pytest.raises(ConnectionError):
        fail()
    with store.content.ingest(BLOB, "none") as ingest:
        assert ingest.length() == 100


def test_discard_starts_from_nothing_within_the_session(store: Store) -> None:
    """After discard the same session can write anew, and what stays unwritten leaves no directory."""
    with store.content.ingest(BLOB, "none") as ingest:
        ingest.path.write_bytes(b"wrong")
        ingest.discard()
        assert ingest.length() == 0
        ingest.path.write_bytes(DATA)
        ingest.discard()
    assert not list((store.root / "ingest").iterdir())


def test_truncate_cuts_and_never_extends(store: Store) -> None:
    """Cutting keeps the first bytes; a length beyond the end would invent zeros and is refused."""
    with store.content.ingest(BLOB, "none") as ingest:
        ingest.truncate(0)
        assert ingest.path.read_bytes() == b""
        ingest.path.write_bytes(DATA)
        ingest.truncate(7)
        assert ingest.path.read_bytes() == b"weights"
        with pytest.raises(InvalidRequestError, match="cannot be cut to 8"):
            ingest.truncate(8)


@pytest.mark.parametrize("length", [len(DATA) - 1, len(DATA) + 1])
def test_a_wrong_length_is_never_committed(store: Store, length: int) -> None:
    """A file shorter or longer than said gets no name, and its bytes stay."""
    with store.content.ingest(BLOB, "none") as ingest:
        ingest.path.write_bytes((DATA + b"x")[:length])
        with pytest.raises(CorruptContentError, match=f"should have {len(DATA)} bytes and its ingest has {length}"):
            ingest.commit(BLOB, len(DATA))
        assert ingest.length() == length
    assert not store.content.has(BLOB)


def test_a_folder_of_ingests_that_is_gone_is_missing(store: Store) -> None:
    """Somebody who tidies the state directory makes no model unknown: the disk is blamed, with what brings the folder back."""
    (store.root / "ingest").rmdir()
    with pytest.raises(DiskMissingError, match="a start of the driver"), store.content.ingest(BLOB, "none"):
        pass


def test_commit_without_a_file_is_missing(store: Store) -> None:
    """Committing before anything was written says that nothing is there."""
    with store.content.ingest(BLOB, "none") as ingest, pytest.raises(DiskMissingError, match=str(BLOB)):
        ingest.commit(BLOB, 0)


def test_an_empty_layer_can_be_committed(store: Store) -> None:
    """A layer of no bytes is content like any other."""
    empty = Digest.of(b"")
    with store.content.ingest(empty, "none") as ingest:
        ingest.truncate(0)
        ingest.commit(empty, 0)
    assert store.content.size(empty) == 0


def test_content_that_is_there_already_stays(store: Store) -> None:
    """When another layer gave the same bytes, its file keeps its inode, with the views linked to it, and ours goes."""
    kept = store.content.path(store.content.add(DATA)).stat().st_ino
    with store.content.ingest(Digest.of(b"compressed"), "gzip") as ingest:
        ingest.path.write_bytes(DATA)
        ingest.commit(BLOB, len(DATA))
    assert store.content.path(BLOB).stat().st_ino == kept
    assert not list((store.root / "ingest").iterdir())


def test_commit_replaces_content_of_a_wrong_length(store: Store) -> None:
    """A damaged file that still bears the name is repaired by the next commit."""
    path = store.content.path(store.content.add(DATA))
    path.chmod(0o644)
    path.write_bytes(DATA[:10])
    with store.content.ingest(BLOB, "none") as ingest:
        ingest.path.write_bytes(DATA)
        ingest.commit(BLOB, len(DATA))
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("decoding", ["", "../x", "none/..", "None", "-", "a b"])
def test_a_decoding_is_never_a_path(store: Store, decoding: str) -> None:
    """What would leave the ingest directory, or look like another key, is refused."""
    with pytest.raises(InvalidRequestError), store.content.ingest(BLOB, decoding):
        pass


def test_one_user_at_a_time(store: Store) -> None:
    """A second user of the same key waits and is then told so; another key is free; the key is free after its user has left."""
    with store.content.ingest(BLOB, "none"):
        with store.content.ingest(BLOB, "gzip"):
            pass
        with pytest.raises(BusyError, match="at work on"), store.content.ingest(BLOB, "none", patience=0.05):
            pass
    with store.content.ingest(BLOB, "none"):
        pass


def test_the_next_user_gets_its_turn(store: Store) -> None:
    """A waiting user goes on as soon as the first has left, and sees its bytes."""
    seen: list[int] = []

    def second() -> None:
        with store.content.ingest(BLOB, "none", patience=30) as ingest:
            seen.append(ingest.length())

    thread = threading.Thread(target=second)
    with store.content.ingest(BLOB, "none") as ingest:
        thread.start()
        thread.join(0.05)
        assert not seen
        ingest.path.write_bytes(DATA)
    thread.join(10)
    assert seen == [len(DATA)]


def test_bytes_are_synced_before_they_are_named(store: Store, calls: list[str]) -> None:
    """The order that a power cut respects: length and mode settled, file synced, renamed, directory synced."""
    with store.content.ingest(BLOB, "none") as ingest:
        ingest.path.write_bytes(DATA)
        target = ingest.commit(BLOB, len(DATA))
        data = ingest.path
    assert calls == [f"fsync {data}", f"rename {data} {target}", f"fsync {target.parent}"]


_COMMIT = f"""
with store.content.ingest(Digest.of({DATA!r}), "none") as ingest:
    ingest.path.write_bytes({DATA!r})
    ingest.commit(Digest.of({DATA!r}), {len(DATA)})
"""


@pytest.mark.parametrize("step", ["commit.checked", "commit.sealed", "commit.synced", "commit.renamed", "commit.durable", "commit.done"])
def test_a_killed_commit_leaves_all_or_a_resumable_part(step: str, root: Path, killed_at: Callable[[str, str], None]) -> None:
    """Whenever the process dies in a commit, the next start has whole content and an empty ingest, or no content and all of the ingest."""
    killed_at(step, _COMMIT)
    with Store.open(root, writable=True) as store:
        if step in {"commit.renamed", "commit.durable", "commit.done"}:
            assert store.content.path(BLOB).read_bytes() == DATA
            assert not list((root / "ingest").iterdir())
        else:
            assert not store.content.has(BLOB)
            with store.content.ingest(BLOB, "none") as ingest:
                assert ingest.path.read_bytes() == DATA
                assert ingest.path.stat().st_mode & 0o777 == 0o600
                with ingest.path.open("r+b") as file:  # a sealed file can be written again
                    file.write(DATA)
                ingest.commit(BLOB, len(DATA))
        assert store.content.read(BLOB, len(DATA)) == DATA


def test_a_kill_before_any_byte_leaves_nothing(root: Path, killed_at: Callable[[str, str], None]) -> None:
    """An ingest that was only begun is gone after the next start."""
    killed_at("ingest.created", _COMMIT)
    with Store.open(root, writable=True):
        assert not list((root / "ingest").iterdir())
