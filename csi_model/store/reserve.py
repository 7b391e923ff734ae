"""Blocks that the state directory keeps for the day on which its disk is full, so that the driver can still start and let go of things."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from csi_model.linux.disk import free_bytes

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger(__name__)

_STEP = 6 << 20
"""What one start takes: the database's log (4 MiB, see database.py), its index, the lock and the sample of the probe."""
_SIZE = 3 * _STEP
_ROOM = 4 * _SIZE


class Reserve:
    """The file ``reserve`` in the state directory: 18 MiB of nothing.

    SQLite cannot even be opened when not a block is free, and without records nothing can be unpublished, nor removed to make room. So a
    start that meets a full disk gives up a step of this file and tries again. In steps, for whoever filled the disk may take what
    the start has not used yet. What a running driver needs, it has: its log has its blocks from the start on (database.py).

    A crash at any moment leaves a file that is shorter than it could be, which the next ``refill`` mends; its content means nothing.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "reserve"

    def lend(self) -> bool:
        """Give a step's blocks back to the filesystem; False when nothing is left to give."""
        try:
            size = self._path.stat().st_size
            if not size:
                return False
            os.truncate(self._path, max(0, size - _STEP))
        except OSError:
            return False
        log.warning("disk_full", reserve_left=max(0, size - _STEP), effect="nothing can be pulled until there is room")
        return True

    def refill(self) -> None:
        """Take the blocks again that were lent, while there is plenty of room; a filesystem that will not give them goes without."""
        try:
            size = self._path.stat().st_size if self._path.exists() else 0
            if size >= _SIZE or free_bytes(self._path.parent) < _ROOM:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _SIZE)
            finally:
                os.close(descriptor)
        except OSError as error:
            log.warning("reserve_not_kept", reason=str(error), effect="a driver that starts on a full disk may have to wait for room")
