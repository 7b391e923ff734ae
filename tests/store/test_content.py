"""Content: named by digest, sealed, durable in the right order, and equal to a plain dict under any sequence of operations."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from csi_model.errors import CorruptContentError, DiskError, DiskMissingError, InvalidRequestError
from csi_model.oci.digest import Digest
from csi_model.store.content import ContentStore
from csi_model.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable


def test_added_bytes_are_read_back_by_their_digest(store: Store) -> None:
    """What was added is there under its SHA-256, with its length, through every way to look at it."""
    digest = store.content.add(b"weights")
    assert digest == Digest.of(b"weights")
    assert store.content.has(digest)
    assert store.content.size(digest) == 7
    assert store.content.read(digest, 7) == b"weights"
    fd = store.content.open(digest)
    try:
        assert os.read(fd, 100) == b"weights"
    finally:
        os.close(fd)
    assert list(store.content.digests()) == [digest]


def test_sha512_content_has_its_own_place(store: Store) -> None:
    """Content named by SHA-512 is kept and found like any other."""
    digest = store.content.add(b"weights", algorithm="sha512")
    assert digest.algorithm == "sha512"
    assert store.content.read(digest, 7) == b"weights"


def test_content_is_sealed(store: Store) -> None:
    """A content file is 0444 with mtime 0, since hard links in a view show both."""
    status = store.content.path(store.content.add(b"weights")).stat()
    assert (status.st_mode & 0o7777, status.st_mtime) == (0o444, 0)


class _Sick(type(Path())):  # type: ignore[misc]
    """A path on a disk whose inodes are damaged."""

    def is_file(self) -> bool:
        raise OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN))


def test_content_that_the_disk_cannot_look_at_is_the_disks_fault(root: Path) -> None:
    """A damaged inode is neither absent content nor a bug of ours."""
    with pytest.raises(DiskError, match="kernel log"):
        ContentStore(_Sick(root)).has(Digest.of(b"weights"))


def test_absent_content_is_missing(store: Store) -> None:
    """Looking at, opening and reading what is not there say so; removing it is fine."""
    digest = Digest.of(b"absent")
    assert not store.content.has(digest)
    for look in (store.content.size, store.content.open, lambda digest: store.content.read(digest, 10)):
        with pytest.raises(DiskMissingError, match=str(digest)):
            look(digest)
    store.content.remove(digest)


def test_read_is_bounded(store: Store) -> None:
    """A document longer than the limit is refused before all of it is in memory."""
    with pytest.raises(InvalidRequestError, match="longer than the 6 bytes"):
        store.content.read(store.content.add(b"weights"), 6)


def test_damage_is_noticed_when_a_document_is_read(store: Store) -> None:
    """Flipped bytes of the right length never come back as the document."""
    digest = store.content.add(b"weights")
    path = store.content.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"Weights")
    with pytest.raises(CorruptContentError, match="damaged"):
        store.content.read(digest, 10)


@pytest.mark.parametrize("damage", [b"we", b"Weights"], ids=["length", "bytes"])
def test_adding_repairs_a_damaged_file(store: Store, damage: bytes) -> None:
    """A name over too few bytes, or over others, is replaced when the same document is added again; who has it open reads on."""
    digest = store.content.add(b"weights")
    path = store.content.path(digest)
    path.chmod(0o644)
    path.write_bytes(damage)
    with path.open("rb") as reader:
        store.content.add(b"weights")
        assert reader.read() == damage
    assert store.content.read(digest, 10) == b"weights"
    assert path.stat().st_mode & 0o7777 == 0o444


def test_removal_leaves_hard_links_their_bytes(store: Store) -> None:
    """A view made of hard links outlives the removal of its content."""
    digest = store.content.add(b"weights")
    link = store.views / "weights"
    link.hardlink_to(store.content.path(digest))
    store.content.remove(digest)
    assert not store.content.has(digest)
    assert link.read_bytes() == b"weights"


def test_foreign_files_are_no_content(store: Store) -> None:
    """A file whose name is no digest is passed over, not listed and not removed."""
    foreign = store.root / "content" / "sha256" / "README"
    foreign.touch()
    digest = store.content.add(b"weights")
    assert list(store.content.digests()) == [digest]
    assert foreign.exists()


def test_a_document_is_synced_before_it_is_named(store: Store, calls: list[str]) -> None:
    """The order that a power cut respects: file synced, then renamed, then its directory synced."""
    digest = store.content.add(b"weights")
    temporary = calls[0].removeprefix("fsync ")
    assert Path(temporary).parent == store.root / "ingest"
    target = store.content.path(digest)
    assert calls == [f"fsync {temporary}", f"rename {temporary} {target}", f"fsync {target.parent}"]


@pytest.mark.parametrize("step", ["add.written", "add.synced", "add.renamed", "add.durable"])
def test_a_killed_add_leaves_all_or_nothing(step: str, root: Path, killed_at: Callable[[str, str], None]) -> None:
    """Whenever the process dies while it adds a document, the next start finds it whole or not at all, and no litter."""
    killed_at(step, "store.content.add(b'weights')")
    with Store.open(root, writable=True) as store:
        whole = step in {"add.renamed", "add.durable"}
        assert list(store.content.digests()) == ([Digest.of(b"weights")] if whole else [])
        assert not list((root / "ingest").iterdir())
        store.content.add(b"weights")
        assert store.content.read(Digest.of(b"weights"), 10) == b"weights"


_BODIES = {"empty": b"", "one": b"a", "page": b"b" * 5000, "long": b"c" * 70_000}
_NAMES = st.sampled_from(sorted(_BODIES))
_KEYS = st.tuples(_NAMES, st.sampled_from(["none", "gzip"]))


class ContentMachine(RuleBasedStateMachine):
    """Documents, ingests, commits, removals and restarts in any order, against two dicts."""

    stored: Bundle[Digest] = Bundle("stored")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="content-machine-"))
        self.store = Store.open(self.root, writable=True)
        self.content: dict[Digest, bytes] = {}
        self.unfinished: dict[tuple[str, str], bytes] = {}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)

    @rule(target=stored, name=_NAMES)
    def add(self, name: str) -> Digest:
        data = _BODIES[name]
        digest = self.store.content.add(data)
        self.content[digest] = data
        return digest

    @rule(digest=consumes(stored))
    def remove(self, digest: Digest) -> None:
        self.store.content.remove(digest)
        self.content.pop(digest, None)

    @rule(key=_KEYS, more=st.integers(0, 5000))
    def write_some(self, key: tuple[str, str], more: int) -> None:
        data, decoding = _BODIES[key[0]], key[1]
        with self.store.content.ingest(Digest.of(data), decoding) as ingest:
            already = self.unfinished.get(key, b"")
            assert ingest.length() == len(already)
            with ingest.path.open("ab") as file:
                file.write(data[len(already) : len(already) + more])
            self.unfinished[key] = data[: len(already) + more]

    @rule(key=_KEYS, less=st.integers(0, 5000))
    def cut(self, key: tuple[str, str], less: int) -> None:
        data, decoding = _BODIES[key[0]], key[1]
        with self.store.content.ingest(Digest.of(data), decoding) as ingest:
            kept = min(ingest.length(), less)
            ingest.truncate(kept)
            self.unfinished[key] = self.unfinished.get(key, b"")[:kept]

    @rule(key=_KEYS)
    def discard(self, key: tuple[str, str]) -> None:
        with self.store.content.ingest(Digest.of(_BODIES[key[0]]), key[1]) as ingest:
            ingest.discard()
        self.unfinished.pop(key, None)

    @rule(target=stored, key=_KEYS)
    def finish_and_commit(self, key: tuple[str, str]) -> Digest:
        data, decoding = _BODIES[key[0]], key[1]
        digest = Digest.of(data)
        with self.store.content.ingest(digest, decoding) as ingest:
            with ingest.path.open("ab") as file:
                file.write(data[ingest.length() :])
            assert ingest.commit(digest, len(data)) == self.store.content.path(digest)
        self.content[digest] = data
        self.unfinished.pop(key, None)
        return digest

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store.open(self.root, writable=True)
        self.unfinished = {key: partial for key, partial in self.unfinished.items() if key[1] == "none"}

    @invariant()
    def content_is_what_the_dict_says(self) -> None:
        assert {digest: self.store.content.read(digest, 1 << 20) for digest in self.store.content.digests()} == self.content
        for digest in self.content:
            status = self.store.content.path(digest).stat()
            assert (status.st_mode & 0o7777, status.st_mtime) == (0o444, 0)

    @invariant()
    def ingest_holds_what_is_unfinished_and_nothing_else(self) -> None:
        found = {path.name: (path / "data").read_bytes() for path in (self.root / "ingest").iterdir()}
        partials = {key: partial for key, partial in self.unfinished.items() if partial}  # nothing resumes from nothing
        expected = {f"{Digest.of(_BODIES[name]).hex}-{decoding}": partial for (name, decoding), partial in partials.items()}
        assert found == expected


TestContentMachine = ContentMachine.TestCase
TestContentMachine.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
