"""Copies of byte ranges out of layer files, done by the kernel where it can."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Self

from csi_model.errors import CorruptContentError
from csi_model.linux import pages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from csi_model.oci.digest import Digest

_STEP = 8 << 20
_WORTH_PUSHING = 1 << 20  # a request to the disk for each small file costs more than it saves
_NO_COPY_RANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}


def unwatched(_count: int) -> None:
    """Nobody wants to know how far a copy is, nor to stop it."""


class LayerFiles:
    """The layer files of a view, to copy from; keeps the one used last open. A context manager, for one thread.

    ``copied`` is called with the count of bytes after each 8 MiB at most; what it raises ends the copy.
    """

    def __init__(self, paths: Mapping[Digest, Path], copied: Callable[[int], None] = unwatched) -> None:
        self._paths = paths
        self._copied = copied
        self._open: tuple[Digest, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self._close()

    def path(self, layer: Digest) -> Path:
        """Where a layer's file lies."""
        return self._paths[layer]

    def copy(self, layer: Digest, offset: int, length: int, destination: int, position: int) -> None:
        """Copy a range of a layer to ``position`` of the descriptor ``destination``, starting the write-back of large ones along the way.

        Filesystems with shared extents (XFS, btrfs) may share instead of copying.

        Raises:
            CorruptContentError: the layer file ends before the range does.
        """
        source = self._descriptor(layer)
        end = offset + length
        while offset < end:
            copied = _copy_some(source, destination, min(_STEP, end - offset), offset, position)
            if not copied:
                msg = f"the layer file {self._paths[layer]} ends at byte {offset}, before byte {end}; remove the model and pull it again"
                raise CorruptContentError(msg)
            if copied >= _WORTH_PUSHING:
                pages.start_writeback(destination, position, copied)
            offset += copied
            position += copied
            self._copied(copied)

    def _descriptor(self, layer: Digest) -> int:
        if self._open is None or self._open[0] != layer:
            self._close()
            self._open = (layer, os.open(self._paths[layer], os.O_RDONLY | os.O_CLOEXEC))
        return self._open[1]

    def _close(self) -> None:
        if self._open:
            descriptor = self._open[1]
            self._open = None
            os.close(descriptor)


def _copy_some(source: int, destination: int, length: int, offset: int, position: int) -> int:
    try:
        return os.copy_file_range(source, destination, length, offset, position)
    except OSError as error:
        if error.errno not in _NO_COPY_RANGE:
            raise
    data = os.pread(source, min(length, 1 << 20), offset)
    return os.pwrite(destination, data, position) if data else 0
