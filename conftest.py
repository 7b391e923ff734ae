"""What every test may rely on: tests that mount do so in a mount namespace of their own."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


def _enter_private_mount_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None):
        raise OSError(ctypes.get_errno(), "cannot enter a private mount namespace")


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
