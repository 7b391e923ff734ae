"""Walking paths without following symlinks, and asking what mount a place belongs to (openat2, statx)."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.linux.syscall import function, raw

if TYPE_CHECKING:
    from pathlib import Path

_OPENAT2 = 437  # Linux 5.6
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08
_AT_EMPTY_PATH = 0x1000
_STATX_MOUNT_ID = 0x1000
_STATX_ATTRIBUTE_MOUNT_ROOT = 0x2000  # Linux 5.8


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _Statx(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("inode_fields", ctypes.c_uint8 * 40),
        ("attributes_mask", ctypes.c_uint64),
        ("times", ctypes.c_uint8 * 64),
        ("device_numbers", ctypes.c_uint8 * 16),
        ("mount_id", ctypes.c_uint64),
        ("spare", ctypes.c_uint8 * 104),
    )


@dataclass(frozen=True, slots=True)
class MountPlace:
    """Which mount a descriptor's file lies in, and whether it is that mount's root, that is, a place where something is mounted."""

    mount_id: int
    is_root: bool


def open_beneath(directory: int, path: Path | str, flags: int) -> int:
    """Open a relative path below the directory; symlinks (ELOOP) and ways out (EXDEV) are refused in every component."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH)
    return raw("openat2", _OPENAT2, directory, os.fsencode(path), how, ctypes.sizeof(how), path=path)


def mount_place(descriptor: int) -> MountPlace:
    """Where in the tree of mounts an open descriptor (O_PATH will do) stands."""
    answer = _Statx()
    function(
        "statx",
        ctypes.c_int(descriptor),
        ctypes.c_char_p(b""),
        ctypes.c_int(_AT_EMPTY_PATH),
        ctypes.c_uint(_STATX_MOUNT_ID),
        ctypes.byref(answer),
    )
    return MountPlace(answer.mount_id, bool(answer.attributes & _STATX_ATTRIBUTE_MOUNT_ROOT))
