"""Images mounted for real, file-backed, in the tests' own mount namespace."""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from csi_model.linux import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@contextmanager
def mount_erofs(image: Path, devices: Sequence[Path], target: Path, options: Sequence[str] = ()) -> Iterator[Path]:
    """Mount an image and its devices read-only at ``target``."""
    target.mkdir(exist_ok=True)
    with ExitStack() as stack:
        context = stack.enter_context(mounts.closing(mounts.fsopen("erofs")))
        mounts.set_string(context, "source", str(image))
        for device in devices:
            mounts.set_string(context, "device", str(device))
        for option in ("ro", *options):
            mounts.set_flag(context, option)
        try:
            mounts.create_superblock(context)
        except OSError as error:
            error.add_note(mounts.kernel_messages(context))
            raise
        mount = stack.enter_context(mounts.closing(mounts.fsmount(context, mounts.MountFlag.RDONLY)))
        directory = stack.enter_context(mounts.closing(os.open(target, os.O_PATH | os.O_DIRECTORY)))
        mounts.attach_mount(mount, directory, path=target)
    try:
        yield target
    finally:
        _unmount(target)


def _unmount(target: Path) -> None:
    for attempt in range(100):
        try:
            mounts.unmount(target)
        except OSError as error:
            # A reader that has just closed its last mapping may hold the mount for a moment more.
            if error.errno != errno.EBUSY or attempt == 99:
                raise
            time.sleep(0.01)
        else:
            return


@pytest.fixture(params=["buffered", "directio"])
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The mount options of the two file-backed ways to read."""
    return ("directio",) if request.param == "directio" else ()
