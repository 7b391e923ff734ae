"""Loop devices: a file seen as a read-only block device that frees itself after its last user.

LOOP_CONFIGURE needs Linux 5.8.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTROL = "/dev/loop-control"
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_READ_ONLY, _AUTOCLEAR, _DIRECT_IO = 1, 4, 16
_ATTEMPTS = 64
_BLOCK_SIZE = 512


class _Info(ctypes.Structure):
    _fields_ = (
        ("lo_device", ctypes.c_uint64),
        ("lo_inode", ctypes.c_uint64),
        ("lo_rdevice", ctypes.c_uint64),
        ("lo_offset", ctypes.c_uint64),
        ("lo_sizelimit", ctypes.c_uint64),
        ("lo_number", ctypes.c_uint32),
        ("lo_encrypt_type", ctypes.c_uint32),
        ("lo_encrypt_key_size", ctypes.c_uint32),
        ("lo_flags", ctypes.c_uint32),
        ("lo_file_name", ctypes.c_char * 64),
        ("lo_crypt_name", ctypes.c_char * 64),
        ("lo_encrypt_key", ctypes.c_char * 32),
        ("lo_init", ctypes.c_uint64 * 2),
    )


class _Config(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", _Info),
        ("reserved", ctypes.c_uint64 * 8),
    )


@contextmanager
def loop_device(backing: Path) -> Iterator[str]:
    """The path of a new read-only loop device over a file, with direct I/O where the disk allows it.

    The device lives while it is open here or mounted, and then frees itself (autoclear). ``block_size`` is given explicitly: on a
    disk of 4 KiB sectors the kernel would else choose direct I/O that fails every read at a 512-byte offset; so it falls back to
    buffered reads instead.
    """
    file = os.open(backing, os.O_RDONLY | os.O_CLOEXEC)
    try:
        path, device = _configured(file, backing)
    finally:
        os.close(file)
    try:
        yield path
    finally:
        os.close(device)


def _configured(file: int, backing: Path) -> tuple[str, int]:
    config = _Config(fd=file, block_size=_BLOCK_SIZE)
    config.info.lo_flags = _READ_ONLY | _AUTOCLEAR | _DIRECT_IO
    config.info.lo_file_name = os.fsencode(backing)[-63:]
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # EBUSY: someone else took the free number first
                    raise OSError(error.errno, f"LOOP_CONFIGURE: {error.strerror}", str(backing)) from error
            else:
                return path, device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device after many attempts", str(backing))


def backing_file(name: str) -> Path | None:
    """The file behind the loop device called ``loopN``, or None when it has none; ``(deleted)`` is cut off."""
    try:
        text = Path(f"/sys/block/{name}/loop/backing_file").read_text()
    except FileNotFoundError:
        return None
    return Path(text.rstrip("\n").removesuffix(" (deleted)"))
