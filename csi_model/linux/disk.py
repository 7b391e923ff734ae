"""What a filesystem says of itself, and making directory entries durable."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.linux.syscall import function

if TYPE_CHECKING:
    from pathlib import Path


_KEEP_SIZE = 1


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes and inodes of a filesystem; ``free`` is what a process like ours may still take."""

    total: int
    free: int
    inodes_total: int
    inodes_free: int


def space(path: Path | str) -> Space:
    """The space of the filesystem that holds ``path``; filesystems without an inode limit say 0 inodes in total."""
    answer = os.statvfs(path)
    return Space(
        total=answer.f_blocks * answer.f_frsize,
        free=answer.f_bavail * answer.f_frsize,
        inodes_total=answer.f_files,
        inodes_free=answer.f_favail,
    )


def free_bytes(path: Path | str) -> int:
    """Bytes that can still be written to the filesystem that holds ``path``."""
    return space(path).free


def fsync_directory(path: Path | str) -> None:
    """Make the names in a directory durable: creations, renames and removals that came before."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allocate_ahead(descriptor: int, offset: int, length: int) -> bool:
    """Give a file blocks for a range past its end, which stays where it is (fallocate, FALLOC_FL_KEEP_SIZE); False where that cannot be.

    Blocks past the end that nothing was written to go with the next ``ftruncate``, also to the length that the file has.
    """
    try:
        function("fallocate", ctypes.c_int(descriptor), ctypes.c_int(_KEEP_SIZE), ctypes.c_int64(offset), ctypes.c_int64(length))
    except OSError as error:
        if error.errno in {errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return False
        raise
    return True


def sync_filesystem(descriptor: int) -> None:
    """Make everything durable that was written to the filesystem of this descriptor, by anybody (syncfs)."""
    function("syncfs", ctypes.c_int(descriptor))
