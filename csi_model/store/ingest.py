"""Ingest: the unfinished file of a layer, its commit into content, and the end of what nobody finishes.

It knows nothing of how bytes are fetched, decoded or verified: whoever writes the file has done that when it calls ``commit``.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

import structlog

from csi_model.errors import BusyError, CorruptContentError, InvalidRequestError
from csi_model.formats.placement import Compression
from csi_model.linux.disk import fsync_directory
from csi_model.steps import step
from csi_model.store.faults import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_model.oci.digest import Digest
    from csi_model.store.keylocks import KeyLocks

log = structlog.get_logger(__name__)

_DECODING = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_BLOB = r"([0-9a-f]{64}|[0-9a-f]{128})"
_NAME = re.compile(f"{_BLOB}-{_DECODING.pattern}")
_RESUMES = re.compile(f"{_BLOB}-{Compression.NONE.value}(-[a-z0-9]+)*")

KEPT = 24 * 3600.0
"""Seconds for which unfinished work is kept since it was last written to."""


class Ingest:
    """One unfinished layer file, held by one user at a time.

    ::

        ingest/<blob hex>-<decoding>/data    what has been written so far
        ingest/<blob hex>-<decoding>/*       whatever else its writer needs to resume

    The writer opens ``path`` as it likes. Leaving the session without ``commit`` or ``discard`` keeps what was written, unless that is
    nothing, for the next session of the same key in this process. After a crash only a blob that is the layer file itself is kept: what
    was decoded cannot go on without its decoder, and the next start removes it. What is found then is a hint and not a promise: a power
    cut may have lost bytes in the middle while the length stayed, so it is to be hashed again.

    ``commit`` passes these moments, and a crash after each leaves: *checked*, *sealed*, *synced*: the ingest; *renamed*: either
    that or the finished content, depending on what the filesystem had written; *durable*: the content, and an ingest directory without
    data that the next start removes; *done*: the content, and perhaps an
    empty ingest directory. Bytes that nobody has verified never have a name in content.
    """

    __slots__ = ("_content", "_directory", "path")

    path: Path
    """The data file. It need not exist yet."""

    def __init__(self, directory: Path, content: Path) -> None:
        self._directory = directory
        self._content = content
        self.path = directory / "data"

    @classmethod
    @contextmanager
    def session(cls, root: Path, blob: Digest, decoding: str, *, content: Path, locks: KeyLocks, patience: float) -> Iterator[Self]:
        """Hold the ingest of this key; see ``ContentStore.ingest``."""
        if not _DECODING.fullmatch(decoding):
            msg = f"{decoding!r} does not name a decoding; expected lower-case letters, digits and dashes"
            raise InvalidRequestError(msg)
        key = f"{blob.hex}-{decoding}"
        with locks.hold(key, patience=patience):
            directory = root / key
            with disk_errors(f"cannot create the ingest of {blob}"):
                directory.mkdir(mode=0o700, exist_ok=True)
                ingest = cls(directory, content)
                if ingest.path.exists():
                    ingest.path.chmod(0o600)  # a commit that was killed may have sealed it
            step("ingest.created")
            try:
                yield ingest
            finally:
                with suppress(OSError):  # what is not empty is for the next session; what is gone was committed
                    if not ingest.path.stat().st_size:
                        ingest.path.unlink()
                with suppress(OSError):
                    directory.rmdir()

    def length(self) -> int:
        """How long the data file is now; 0 when there is none."""
        with disk_errors(f"cannot look at {self.path}"):
            try:
                return self.path.stat().st_size
            except FileNotFoundError:
                return 0

    def truncate(self, length: int) -> None:
        """Cut the data file down to its first ``length`` bytes, or create it empty.

        Raises:
            InvalidRequestError: that would make it longer.
        """
        if length > self.length():
            msg = f"{self.path} has {self.length()} bytes and cannot be cut to {length}"
            raise InvalidRequestError(msg)
        with disk_errors(f"cannot truncate {self.path}"):
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, length)
            finally:
                os.close(fd)

    def commit(self, digest: Digest, size: int) -> Path:
        """Make the data file the content of ``digest`` and return its path there; the ingest is over.

        The caller has hashed every byte of the file since it was last written and found ``digest``; here only the length is checked
        again. The content is on disk when this returns. When the same content is there already, it stays and ours is dropped.

        Raises:
            CorruptContentError: the file has another length; the ingest stays as it is.
            NoSpaceError, DiskError: the disk would not; the ingest stays and commit may be tried again.
        """
        target = self._content / digest.algorithm / digest.hex
        with disk_errors(f"cannot commit content {digest}"):
            if target.is_file() and target.stat().st_size == size:
                self.discard()
                fsync_directory(target.parent)  # another session may have just renamed it
                return target
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                found = os.fstat(fd).st_size
                if found != size:
                    msg = f"content {digest} should have {size} bytes and its ingest has {found}; pull it again"
                    raise CorruptContentError(msg)
                step("commit.checked")
                os.fchmod(fd, 0o444)
                os.utime(fd, (0, 0))
                step("commit.sealed")
                os.fsync(fd)
                step("commit.synced")
            finally:
                os.close(fd)
            # Over content of another length, which cannot be what its name says, the rename is the repair.
            self.path.rename(target)
            step("commit.renamed")
            fsync_directory(target.parent)
            step("commit.durable")
            self.discard()
            step("commit.done")
        return target

    def discard(self) -> None:
        """Forget everything written so far; the session may go on from nothing."""
        with disk_errors(f"cannot discard {self._directory}"):
            for entry in self._directory.iterdir():
                entry.unlink()


def sweep(root: Path, locks: KeyLocks, *, now: float) -> None:
    """Remove unfinished work that nobody wrote to for 24 hours, and ingests that hold nothing; work in use is left alone."""
    for name in sorted(entry.name for entry in root.iterdir() if _NAME.fullmatch(entry.name)):
        # What was listed may have been committed since, by a session that ended before its key was locked here.
        with suppress(BusyError, FileNotFoundError), locks.hold(name, patience=0):
            parts = list((root / name).iterdir())
            # Not the modification time: a commit that was killed may have set that to 0.
            age = now - max((part.lstat().st_ctime for part in parts), default=0)
            if age > KEPT:
                log.info("unfinished work removed", ingest=name, age_seconds=round(age) if parts else None)
                shutil.rmtree(root / name)


def remove_litter(root: Path) -> None:
    """Remove what a crash left that nobody goes on from: what is no ingest, and what was being decoded, up to a whole layer of it.

    Only for a start: a running ``ContentStore.add`` has a file here, and a running pull its ingest.
    """
    for entry in root.iterdir():
        if not stat.S_ISDIR(entry.lstat().st_mode):
            entry.unlink()
        elif not _RESUMES.fullmatch(entry.name):
            shutil.rmtree(entry)
