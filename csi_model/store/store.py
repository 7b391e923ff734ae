"""The store: everything csi-model keeps on a node, in one directory that one process may write to."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Self

from csi_model.errors import BusyError, NoSpaceError, NotFoundError, UnsupportedError
from csi_model.store.content import ALGORITHMS, ContentStore
from csi_model.store.faults import disk_errors
from csi_model.store.rebuild import open_or_rebuild
from csi_model.store.reconcile import reconcile
from csi_model.store.reserve import Reserve
from csi_model.store.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType


class Store:
    """The state directory, open. Close it, or use it as a context manager.

    ::

        content/<algorithm>/<hex>    verified bytes (content.py)
        ingest/<hex>-<decoding>/     unfinished layers (ingest.py)
        views/                       images and link folders of views, written by mount/
        mounts/                      where views are mounted, by mount/
        state.db                     what files cannot say (state.py)
        reserve, spare/              blocks and inodes to start with on a full disk (reserve.py)
        lock                         held with flock by the one process that writes; holds its process id

    A writer sets right what crashes left before anybody else sees the store (reconcile.py). A reader takes no lock, works beside a
    running writer, and changes nothing (SQLite keeps its shared-memory index beside ``state.db`` for readers too).
    """

    def __init__(self, root: Path, content: ContentStore, state: State, resources: ExitStack) -> None:
        self.root = root
        self.content = content
        self.state = state
        self.views = root / "views"
        self.mounts = root / "mounts"
        self.reserve = Reserve(root)
        self._resources = resources

    @classmethod
    def open(cls, root: Path, *, writable: bool) -> Self:
        """Open the store in ``root``; a writer creates what is missing.

        Raises:
            BusyError: another process writes to it.
            NotFoundError: a reader finds no store there.
            UnsupportedError: the directory is spread over filesystems, or a newer csi-model wrote it.
            NoSpaceError: the disk is full, and so many starts met it so that the reserve is spent.
        """
        if not writable:
            return cls._open_for_reading(root)
        while True:
            try:
                store = cls._open_for_writing(root)
            except NoSpaceError:
                if not Reserve(root).lend():
                    raise
            else:
                store.reserve.refill()
                return store

    @classmethod
    def _open_for_writing(cls, root: Path) -> Self:
        with ExitStack() as resources:
            with disk_errors(f"cannot prepare the state directory {root}"):
                # Private models lie below; pods reach views through their mounts, never through this path.
                root.mkdir(mode=0o700, parents=True, exist_ok=True)
                root.chmod(0o700)  # kubelet makes directories for everybody
                resources.enter_context(_sole_writer(root))
                for name in ("content", *(f"content/{algorithm}" for algorithm in ALGORITHMS), "ingest", "views", "mounts"):
                    (root / name).mkdir(mode=0o755, exist_ok=True)
                _demand_one_filesystem(root)
            content = ContentStore(root)
            state = resources.enter_context(open_or_rebuild(root, content))
            reconcile(root, content, state)
            return cls(root, content, state, resources.pop_all())

    @classmethod
    def _open_for_reading(cls, root: Path) -> Self:
        if not (root / "state.db").is_file():
            msg = f"there is no store in {root}; `csi-model pull` or `csi-model serve` makes one, or name another with --state-dir"
            raise NotFoundError(msg)
        with ExitStack() as resources:
            state = resources.enter_context(State.open_for_reading(root / "state.db"))
            return cls(root, ContentStore(root), state, resources.pop_all())

    def close(self) -> None:
        """Close the database and let go of the lock; twice is fine."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def _sole_writer(root: Path) -> Iterator[None]:
    """Hold the lock. The kernel frees it when the process ends in whatever way, so a process id found in it may be stale, a lock never."""
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            who = f"process {owner}" if owner.isdigit() else "another process"
            msg = f"{who} owns the state directory {root}; stop it first, or use another one with --state-dir"
            raise BusyError(msg) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _demand_one_filesystem(root: Path) -> None:
    """Rename for real: bind mounts of one filesystem have one device number and refuse renames all the same."""
    probe = root / "ingest" / f".probe-{secrets.token_hex(8)}"
    moved = root / "content" / probe.name
    try:
        probe.touch()
        try:
            probe.rename(moved)
            moved.rename(root / "views" / probe.name)
        except OSError as error:
            msg = f"{root} is spread over several filesystems; content, ingest and views must share one: mount the disk at {root} itself"
            raise UnsupportedError(msg) from error
    finally:
        for path in (probe, moved, root / "views" / probe.name):
            with suppress(FileNotFoundError):
                path.unlink()
