"""Ingest: the unfinished file of a layer, and its commit into content.

It knows nothing of how bytes are fetched, decoded or verified: whoever writes the file has done that when it calls ``commit``.
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

from csi_model.errors import BusyError, CorruptContentError, InvalidRequestError
from csi_model.linux.disk import fsync_directory
from csi_model.steps import step
from csi_model.store.faults import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from csi_model.oci.digest import Digest

_DECODING = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Ingest:
    """One unfinished layer file, held by one user at a time.

    ::

        ingest/<blob hex>-<decoding>/data    what has been written so far
        ingest/<blob hex>-<decoding>/*       whatever else its writer needs to resume

    The writer opens ``path`` as it likes. Leaving the session without ``commit`` or ``discard`` keeps everything for the next session of
    the same key, in this process or after a crash. What is found then is a hint and not a promise: a power cut may have lost bytes in
    the middle while the length stayed, so it is to be hashed again.

    ``commit`` passes these moments, and a crash after each leaves: *checked*, *sealed*, *synced*: an ingest that resumes; *renamed*: either
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
            NoSpaceError, UnavailableError: the disk would not; the ingest stays and commit may be tried again.
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


class KeyLocks:
    """Mutual exclusion by key among threads; a key that nobody holds or waits for takes no memory."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[str] = set()

    @contextmanager
    def hold(self, key: str, *, patience: float) -> Iterator[None]:
        """Hold ``key`` for the body.

        Raises:
            BusyError: another thread kept it for ``patience`` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: key not in self._held, timeout=patience):
                msg = f"the ingest {key} is in use; try again when its pull has ended"
                raise BusyError(msg)
            self._held.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._held.remove(key)
                self._changed.notify_all()

    def held(self) -> frozenset[str]:
        """The keys held now."""
        with self._changed:
            return frozenset(self._held)
