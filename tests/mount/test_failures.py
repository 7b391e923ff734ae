from __future__ import annotations

import errno
import os

import pytest

from csi_model.errors import DiskError, MountError, NoSpaceError
from csi_model.mount.failures import mounting, writing


def test_a_missing_file_is_told_from_a_missing_device() -> None:
    """Without the loop driver the text names the device and the host's /dev, not a layer that would have to be pulled again."""
    with pytest.raises(MountError, match="no /dev/loop-control; load the module loop"), mounting("mount it"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/dev/loop-control")
    with pytest.raises(MountError, match="pull the model again"), mounting("mount it"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/var/lib/csi-model/views/x.erofs")


def test_a_full_disk_is_told_from_a_full_mount_table() -> None:
    """ENOSPC means the disk while files are written, and the number of mounts while the kernel mounts."""
    with pytest.raises(NoSpaceError, match="disk is full"), writing("write it"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(MountError, match=r"fs\.mount-max"), mounting("mount it"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failing_disk_is_told_from_a_kernel_that_refuses() -> None:
    """The disk is blamed for its I/O errors, so that the node's admin hears of it; a path that is too long is no failing disk."""
    for number in (errno.EIO, errno.EROFS, errno.EUCLEAN):
        with pytest.raises(DiskError, match="look at the node's disk"), writing("write it"):
            raise OSError(number, os.strerror(number))
    with pytest.raises(MountError, match="too long"), writing("write it"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
