"""Detached EROFS mounts of a view's image and its layers, in the three ways that kernels know.

What is returned is a descriptor of a mount that has no place yet: it can be read through (``dir_fd``), attached, or closed and gone.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import structlog

from csi_model.linux import mounts, readahead
from csi_model.linux.loops import loop_device
from csi_model.linux.mounts import MountFlag
from csi_model.mount.strategy import Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

log = structlog.get_logger(__name__)

PROTECTION = MountFlag.RDONLY | MountFlag.NOSUID | MountFlag.NODEV
"""Carried by every view and every target. Not NOEXEC: a model may bring a program."""
READ_AHEAD = 1 << 20
OPTION_LIMIT = 255
"""Bytes of a mount option's value, such as the path of an image or of a layer file (fsconfig, FSCONFIG_SET_STRING)."""

# Serialises creation so that a new backing device belongs to the mount just made (another program's, at worst, is raised as well).
_creating = threading.Lock()


def mount_erofs(image: Path, devices: Sequence[Path], strategy: Strategy) -> int:
    """Mount an image, detached, with its layer files as extra devices in slot order.

    ``OSError`` with the kernel's own message when it refuses.
    """
    with ExitStack() as stack:
        if strategy is Strategy.EROFS_LOOP:
            # The devices free themselves when the mount goes; holding them open here bridges the time until it exists.
            source, *extra = [stack.enter_context(loop_device(path)) for path in (image, *devices)]
            device = f"7:{source.removeprefix('/dev/loop')}"
        else:
            source, *extra = [_named(path) for path in (image, *devices)]
            device = None
        context = stack.enter_context(mounts.closing(mounts.fsopen("erofs")))
        try:
            mount = _create(context, source, extra, direct=strategy is Strategy.EROFS_DIRECT, device=device)
        except OSError as error:
            said = mounts.kernel_messages(context)
            raise OSError(error.errno, f"{error.strerror}{f' ({said})' if said else ''}", error.filename) from error
    return mount


def _create(context: int, source: str, extra: Sequence[str], *, direct: bool, device: str | None) -> int:
    mounts.set_string(context, "source", source)
    for path in extra:
        mounts.set_string(context, "device", path)
    if direct:
        mounts.set_flag(context, "directio")
    mounts.set_flag(context, "ro")
    if device:
        mounts.create_superblock(context)
        _raise_read_ahead(device)
    else:
        with _creating:
            before = _backing_devices()
            mounts.create_superblock(context)
            for name in _backing_devices() - before:
                _raise_read_ahead(name)
    return mounts.fsmount(context, PROTECTION)


def _named(path: Path) -> str:
    """The file's path, which goes into an option as it is: mountinfo shows it, and so the view is recognised after a restart."""
    if len(os.fsencode(path)) > OPTION_LIMIT:
        raise OSError(
            errno.ENAMETOOLONG, f"mount options take {OPTION_LIMIT} bytes; choose a state directory with a shorter path", str(path)
        )
    return str(path)


def _backing_devices() -> frozenset[str]:
    try:
        return frozenset(name for name in readahead.known_devices() if name.startswith("erofs-"))
    except OSError as error:
        log.warning("read_ahead_unknown", reason=str(error), effect="mmap reads with direct I/O may be three times slower")
        return frozenset()


def _raise_read_ahead(device: str) -> None:
    """The default of 128 KiB makes reads by mmap three times slower with direct I/O; a slow mount still beats none."""
    try:
        if readahead.read_ahead(device) < READ_AHEAD:
            readahead.set_read_ahead(device, READ_AHEAD)
    except OSError as error:
        log.warning(
            "read_ahead_not_raised", device=device, reason=str(error), effect="mmap reads with direct I/O may be three times slower"
        )
