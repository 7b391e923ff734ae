"""What the state directory keeps for the day on which its disk is full, so that the driver can still start and let go of things."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from csi_model.linux.disk import free_bytes, space

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)

_STEP = 6 << 20
"""What one start takes: the database's log (4 MiB, see database.py), its index, the lock and the sample of the probe."""
_SIZE = 3 * _STEP
_ROOM = 4 * _SIZE
_INODES_STEP = 8
"""What one start takes of these: the database's log and index, the four files of the probe, and the driver's two sockets."""
_INODES = 3 * _INODES_STEP
_INODES_ROOM = 4 * _INODES


class Reserve:
    """The file ``reserve`` in the state directory, 18 MiB of nothing, and 24 empty files in ``spare/`` for the sake of their inodes.

    SQLite cannot even be opened when not a block or not an inode is free, and without records nothing can be unpublished, nor removed to
    make room. So a start that meets a full disk gives up a step of what it is short of and tries again. In steps, for whoever filled the
    disk may take what the start has not used yet. What a running driver needs, it has: its log has its blocks from the start on (database.py).

    A crash at any moment leaves less than there could be, which the next ``refill`` mends; its content means nothing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / "reserve"
        self._spare = root / "spare"

    def lacks_inodes(self) -> bool:
        """Whether fewer inodes are free than a start takes; never on filesystems that do not count them."""
        found = space(self._root)
        return bool(found.inodes_total) and found.inodes_free < _INODES_STEP

    def lend(self) -> bool:
        """Give a step of what is short back to the filesystem; False when nothing of it is left to give."""
        try:
            if self.lacks_inodes():
                if self._lend_inodes():
                    return True
                if free_bytes(self._root) >= _STEP:
                    return False
            return self._lend_blocks()
        except OSError:
            return False

    def refill(self) -> None:
        """Take again what was lent, while there is plenty of room; a filesystem that will not give it goes without."""
        try:
            self._take_blocks()
            self._take_inodes()
        except OSError as error:
            log.warning("reserve_not_kept", reason=str(error), effect="a driver that starts on a full disk may have to wait for room")

    def _lend_blocks(self) -> bool:
        size = self._path.stat().st_size
        if not size:
            return False
        os.truncate(self._path, max(0, size - _STEP))
        log.warning("disk_full", reserve_left=max(0, size - _STEP), effect="nothing can be pulled until there is room")
        return True

    def _lend_inodes(self) -> bool:
        files = sorted(self._spare.iterdir()) if self._spare.is_dir() else []
        for file in files[:_INODES_STEP]:
            file.unlink()
        if files:
            log.warning("no_inode_free", spare_left=len(files[_INODES_STEP:]), effect="nothing can be pulled until there are some")
        return bool(files)

    def _take_blocks(self) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        if size >= _SIZE or free_bytes(self._root) < _ROOM:
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _SIZE)
        finally:
            os.close(descriptor)

    def _take_inodes(self) -> None:
        if space(self._root).inodes_free < _INODES_ROOM:
            return
        self._spare.mkdir(mode=0o700, exist_ok=True)
        there = {file.name for file in self._spare.iterdir()}
        for name in {f"{number:02}" for number in range(_INODES)} - there:
            (self._spare / name).touch(0o600)
