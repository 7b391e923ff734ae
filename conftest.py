"""What every test may rely on: tests that mount do so in a mount namespace of their own."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


def _enter_private_mount_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "cannot enter a mount namespace")
    # In a chroot "/" is no mount point; whoever made that chroot has decided what the mount around it is shared with.
    if libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None):
        if ctypes.get_errno() != errno.EINVAL:
            raise OSError(ctypes.get_errno(), "cannot make the mount namespace private")
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            libc.mount(None, line.split()[4], None, ctypes.c_ulong(_MS_PRIVATE), None)


def pytest_configure() -> None:
    """As root, nothing that any test mounts is ever seen outside this process and its children."""
    if os.geteuid() == 0:
        _enter_private_mount_namespace()


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Without root the root tests are skipped, except in CI, where a skipped proof is a failure."""
    if os.geteuid() == 0 or os.environ.get("CI") == "true":
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))
