"""The kernel's mount calls, one small function each (Linux 5.2's file-descriptor API, and umount2).

A mount is made detached, given its flags, and only then attached, so that no path ever shows it without them. Calls raise the
kernel's own ``OSError``; descriptors that are returned belong to the caller and are close-on-exec.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from csi_model.linux.syscall import function, raw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Numbers from 424 on are the same on every architecture (asm-generic/unistd.h).
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _FSPICK, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 433, 442

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_FROM_EMPTY_PATH = 0x04
_MOVE_TO_EMPTY_PATH = 0x40
_FS_CLOEXEC = 1
_FSPICK_NOFOLLOW = 2
_SET_FLAG, _SET_STRING, _CREATE, _RECONFIGURE = 0, 1, 6, 7
_UMOUNT_NOFOLLOW = 8
_MS_BIND, _MS_REMOUNT = 0x1000, 0x20
_MS_PRIVATE = 1 << 18


class MountFlag(enum.IntFlag):
    """Attributes of one mount (linux/mount.h, MOUNT_ATTR_*); RDONLY, NOSUID and NODEV have the same values as mount(2)'s MS_*."""

    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def fsopen(filesystem: str) -> int:
    """Begin a mount of this filesystem type; gives a context to configure."""
    return raw("fsopen", _FSOPEN, filesystem.encode(), _FS_CLOEXEC, path=filesystem)


def fspick(path: Path | str) -> int:
    """Begin to reconfigure the filesystem that is mounted at ``path``."""
    return raw("fspick", _FSPICK, _AT_FDCWD, os.fsencode(path), _FS_CLOEXEC | _FSPICK_NOFOLLOW, path=path)


def set_string(context: int, key: str, value: str) -> None:
    """Give the context ``key=value``; the kernel takes at most 255 bytes of value."""
    raw(f"fsconfig {key}", _FSCONFIG, context, _SET_STRING, key.encode(), os.fsencode(value), 0, path=value)


def set_flag(context: int, key: str) -> None:
    """Give the context the option ``key``."""
    raw(f"fsconfig {key}", _FSCONFIG, context, _SET_FLAG, key.encode(), None, 0)


def create_superblock(context: int) -> None:
    """Make the superblock that the context describes."""
    raw("fsconfig create", _FSCONFIG, context, _CREATE, None, None, 0)


def reconfigure_superblock(context: int) -> None:
    """Apply the context's options to the live filesystem that ``fspick`` found."""
    raw("fsconfig reconfigure", _FSCONFIG, context, _RECONFIGURE, None, None, 0)


def fsmount(context: int, flags: MountFlag) -> int:
    """A detached mount of the context's superblock, with these flags; it goes away when closed unattached."""
    return raw("fsmount", _FSMOUNT, context, _FS_CLOEXEC, int(flags))


def kernel_messages(context: int) -> str:
    """What the kernel says went wrong in this context, as lines of text; empty when it says nothing."""
    lines: list[str] = []
    while True:
        try:
            line = os.read(context, 4096)
        except OSError as error:
            if error.errno == errno.ENODATA:  # no message is left
                return "; ".join(lines)
            raise
        lines.append(line.decode(errors="replace").strip())


def clone_tree(directory: int) -> int:
    """A detached copy of the one mount, or the directory of it, that the descriptor (O_PATH will do) holds."""
    return raw("open_tree", _OPEN_TREE, directory, b"", _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_EMPTY_PATH)


def protect(mount: int, flags: MountFlag) -> None:
    """Set flags on a detached mount, and take it out of the peer group that it was cloned from (mount_setattr, Linux 5.12)."""
    attributes = _MountAttributes(attr_set=int(flags), propagation=_MS_PRIVATE)
    raw("mount_setattr", _MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, attributes, ctypes.sizeof(attributes))


def attach_mount(mount: int, target: int, *, path: object = None) -> None:
    """Attach a detached mount on the directory that the descriptor ``target`` holds; ``path`` only names it in errors."""
    flags = _MOVE_FROM_EMPTY_PATH | _MOVE_TO_EMPTY_PATH
    raw("move_mount", _MOVE_MOUNT, mount, b"", target, b"", flags, path=path)


def bind(source: Path | str, target: Path | str) -> None:
    """Show the directory ``source`` at ``target`` (mount(2), any kernel)."""
    _mount(source, target, _MS_BIND)


def remount_bind(target: Path | str, flags: MountFlag) -> None:
    """Set flags on the one mount at ``target`` (mount(2), any kernel)."""
    _mount(None, target, _MS_BIND | _MS_REMOUNT | int(flags))


def unmount(target: Path | str) -> None:
    """Take away the topmost mount at ``target``; never lazy, and never through a symlink."""
    function("umount2", ctypes.c_char_p(os.fsencode(target)), ctypes.c_int(_UMOUNT_NOFOLLOW), path=target)


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """Close the descriptor at the end, whatever happens."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _mount(source: Path | str | None, target: Path | str, flags: int) -> None:
    encoded = None if source is None else os.fsencode(source)
    function(
        "mount",
        ctypes.c_char_p(encoded),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_char_p(None),
        ctypes.c_ulong(flags),
        ctypes.c_char_p(None),
        path=target,
    )
