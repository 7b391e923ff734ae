"""Content: verified bytes on disk, each file named by its digest. What exists is what is on disk; nothing here counts or caches."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from typing import TYPE_CHECKING

import structlog

from csi_model.errors import CorruptContentError, InvalidRequestError
from csi_model.linux.disk import fsync_directory
from csi_model.oci.digest import Digest
from csi_model.steps import step
from csi_model.store.faults import disk_errors
from csi_model.store.ingest import Ingest, remove_litter, sweep
from csi_model.store.keylocks import KeyLocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

log = structlog.get_logger(__name__)

ALGORITHMS = ("sha256", "sha512")
"""Directories below ``content/``; nearly all content goes by SHA-256, but a descriptor may name SHA-512."""


class ContentStore:
    """Read-only files named by what they contain, and the unfinished ones that may become such files.

    ::

        content/sha256/<hex>           0444, mtime 0 (hard links of it in a view show both), true length
        content/sha512/<hex>           the same, where a descriptor names SHA-512
        ingest/<hex>-<decoding>/data   unfinished (ingest.py)
        ingest/.add-<random>           a document on its way into content; junk after a crash

    A name appears by rename alone, after the file's bytes and mode are on disk, and the directory is synced before anyone is told. So a
    crash leaves a name with all of its bytes or no name. Removal is an unlink that needs no sync: a name that a crash brings back is
    still true. Files that are open, mounted or hard-linked keep their bytes after removal.

    Safe to use from many threads. Processes are kept apart by the store's lock, except for readers, who never write.
    """

    def __init__(self, root: Path) -> None:
        self._content = root / "content"
        self._ingest = root / "ingest"
        self._locks = KeyLocks()
        self._dropped: set[Digest] = set()
        self._dropped_lock = threading.Lock()

    def path(self, digest: Digest) -> Path:
        """Where the content of this digest is, or would be."""
        return self._content / digest.algorithm / digest.hex

    def has(self, digest: Digest) -> bool:
        """Whether its bytes are here, complete and verified."""
        with disk_errors(f"cannot look at content {digest}"):
            return self.path(digest).is_file()

    def size(self, digest: Digest) -> int:
        """Its length in bytes.

        Raises:
            DiskMissingError: it is not here.
        """
        with disk_errors(f"cannot look at content {digest}"):
            return self.path(digest).stat().st_size

    def open(self, digest: Digest) -> int:
        """A file descriptor to read it with; the caller closes it.

        Raises:
            DiskMissingError: it is not here.
        """
        with disk_errors(f"cannot open content {digest}"):
            return os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)

    def read(self, digest: Digest, limit: int) -> bytes:
        """All of a small document, checked against its digest once more.

        Raises:
            DiskMissingError: it is not here.
            InvalidRequestError: it is longer than ``limit``.
            CorruptContentError: the disk gave back other bytes than were stored.
        """
        with disk_errors(f"cannot read content {digest}"), self.path(digest).open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            msg = f"content {digest} is longer than the {limit} bytes that a document of its kind may have"
            raise InvalidRequestError(msg)
        if hashlib.new(digest.algorithm, data).hexdigest() != digest.hex:
            msg = f"content {digest} is damaged on this disk; its next pull repairs it"
            raise CorruptContentError(msg)
        return data

    def add(self, data: bytes, *, algorithm: str = "sha256") -> Digest:
        """Store a small document durably and return its digest; storing it twice is storing it once, and repairs what was damaged.

        Raises:
            NoSpaceError: the disk is full; nothing is left behind.
        """
        digest = Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
        target = self.path(digest)
        with disk_errors(f"cannot store content {digest}"):
            if target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data:
                fsync_directory(target.parent)  # another thread may have just renamed it
                return digest
            temporary = self._ingest / f".add-{secrets.token_hex(8)}"
            try:
                _write_sealed(temporary, data)
                temporary.rename(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            step("add.renamed")
            fsync_directory(target.parent)
            step("add.durable")
        return digest

    def remove(self, digest: Digest) -> None:
        """Take the name away; open files, mounts and hard links keep the bytes. Absent content is fine."""
        with disk_errors(f"cannot remove content {digest}"):
            self.path(digest).unlink(missing_ok=True)

    def drop(self, digest: Digest) -> None:
        """Remove content whose bytes turned out not to be what its name says, and remember it for ``take_dropped``."""
        self.remove(digest)
        with self._dropped_lock:
            self._dropped.add(digest)

    def take_dropped(self) -> frozenset[Digest]:
        """What was dropped since the last call. Views that were made of it hold the damaged bytes, whatever is pulled in their place."""
        if not self._dropped:  # nearly always, and then without a lock
            return frozenset()
        with self._dropped_lock:
            dropped, self._dropped = frozenset(self._dropped), set()
        return dropped

    def digests(self) -> Iterator[Digest]:
        """Everything that is here; files that bear no digest's name are logged and passed over."""
        for algorithm in ALGORITHMS:
            with disk_errors(f"cannot list {self._content / algorithm}"):
                names = sorted(entry.name for entry in (self._content / algorithm).iterdir())
            for name in names:
                try:
                    yield Digest.parse(f"{algorithm}:{name}")
                except InvalidRequestError:
                    log.warning("foreign file among content", path=str(self._content / algorithm / name))

    def ingest(self, blob: Digest, decoding: str, *, patience: float = 30.0) -> AbstractContextManager[Ingest]:
        """Work on the unfinished file of ``blob`` decoded as ``decoding``; see ``Ingest``.

        One user at a time within the process: others wait up to ``patience`` seconds for their turn.

        Raises:
            BusyError: the turn did not come.
        """
        return Ingest.session(self._ingest, blob, decoding, content=self._content, locks=self._locks, patience=patience)

    def sweep(self, *, now: float) -> None:
        """Remove unfinished work that was last written to more than 24 hours before ``now``; work in use stays."""
        with disk_errors(f"cannot tidy {self._ingest}"):
            sweep(self._ingest, self._locks, now=now)

    def remove_litter(self) -> None:
        """Remove what a crash left in ``ingest/`` that nobody can resume. For a starting writer, before anything else runs."""
        with disk_errors(f"cannot tidy {self._ingest}"):
            remove_litter(self._ingest)


def _write_sealed(path: Path, data: bytes) -> None:
    """Write a new file with content's mode and time, and have all of it on disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        step("add.written")
        os.fchmod(fd, 0o444)
        os.utime(fd, (0, 0))
        os.fsync(fd)
        step("add.synced")
    finally:
        os.close(fd)
