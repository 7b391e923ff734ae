"""Writing a layer file: through the page cache, or past it."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import structlog

from csi_model.linux import pages
from csi_model.linux.direct import ALIGNMENT, open_direct
from csi_model.linux.disk import allocate_ahead
from csi_model.mount.strategy import WriteMode
from csi_model.pull.pool import PIECE
from csi_model.store.faults import disk_errors

if TYPE_CHECKING:
    from pathlib import Path

    from csi_model.pull.pool import Piece

log = structlog.get_logger(__name__)

_WRITEBACK = 2 * PIECE
_MOST_AHEAD = 16 * PIECE


class LayerWriter:
    """Appends pieces to an ingest's file, from ``offset`` (a multiple of ``PIECE``) on.

    Buffered, each 8 MiB is sent to the disk as soon as it is written, so that the closing fsync finds little to do and the pages stay
    clean for the reader. It goes to blocks that were allocated ahead, as many as the file has and at most 64 MiB, which takes ext4 two thirds of
    the CPU time of finding each when it is written. Direct, the last block is padded and the file cut to its true length by ``finish``; a crash before that
    leaves a file that is too long by less than a block, which resuming cuts off. The file's length never runs ahead of its bytes (what is
    allocated ahead lies past its end), since resuming trusts that length until the digest says otherwise.
    """

    def __init__(self, path: Path, mode: WriteMode, *, offset: int) -> None:
        self._path = path
        self._end = offset
        self._pushed = offset
        with disk_errors(f"cannot write {path}"):
            self._fd, self._direct = _open(path, mode)
        self._allocated = offset

    def write(self, piece: Piece) -> None:
        """Write the next piece.

        Raises:
            NoSpaceError, UnavailableError: the disk would not.
        """
        length = piece.length
        if self._direct:
            length = -(-length // ALIGNMENT) * ALIGNMENT
        with disk_errors(f"cannot write {self._path}"), piece.whole[:length] as data:
            data[piece.length :] = bytes(length - piece.length)
            if not self._direct and piece.offset >= max(self._allocated, _WRITEBACK):
                ahead = min(piece.offset, _MOST_AHEAD)
                self._allocated = piece.offset + ahead
                allocate_ahead(self._fd, piece.offset, ahead)
            done = 0
            while done < length:
                done += os.pwrite(self._fd, data[done:], piece.offset + done)
            self._end = piece.offset + piece.length
            if not self._direct and self._end - self._pushed >= _WRITEBACK:
                pages.start_writeback(self._fd, self._pushed, self._end - self._pushed)
                self._pushed = self._end

    def finish(self) -> None:
        """Give the file its true length; whoever commits it syncs it.

        Raises:
            NoSpaceError, UnavailableError: the disk would not.
        """
        with disk_errors(f"cannot write {self._path}"):
            os.ftruncate(self._fd, self._end)

    def close(self) -> None:
        """Close the file; it keeps what was written."""
        os.close(self._fd)


def _open(path: Path, mode: WriteMode) -> tuple[int, bool]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    if mode is WriteMode.DIRECT:
        try:
            return open_direct(path, flags), True
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
                raise
            log.warning("the state directory's filesystem has no direct I/O; writing through the page cache", path=str(path))
    return os.open(path, flags, 0o600), False
