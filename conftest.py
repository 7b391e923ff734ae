"""What every test may rely on: tests that mount do so in a mount namespace of their own."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path

import pytest

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests on a Kubernetes node run when they are asked for. Without root the root tests are skipped, but not in CI."""
    asked = {"kubernetes", "gate"} & set(re.findall(r"\w+", config.option.markexpr)) or any("kubernetes" in path for path in config.args)
    left_out = [] if asked else [item for item in items if item.get_closest_marker("kubernetes")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    if os.geteuid() == 0 or os.environ.get("CI") == "true":
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))
