"""Disk errors are told apart by errno, and none of them is taken for corruption."""

from __future__ import annotations

import errno
import os

import pytest

from csi_model.errors import CsiModelError, DiskDeniedError, DiskError, DiskMissingError, NoSpaceError
from csi_model.store.faults import disk_errors


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.ENOENT, DiskMissingError),
        (errno.EACCES, DiskDeniedError),
        (errno.EPERM, DiskDeniedError),
        (errno.EIO, DiskError),
        (errno.EROFS, DiskError),
        (errno.EMFILE, DiskError),
    ],
)
def test_errno_decides(number: int, expected: type[CsiModelError]) -> None:
    """Each errno becomes the error of ours that tells its reader what to do, with what was being done and the cause attached."""
    cause = OSError(number, os.strerror(number))
    with pytest.raises(expected, match="cannot commit the layer") as caught, disk_errors("cannot commit the layer"):
        raise cause
    assert type(caught.value) is expected
    assert caught.value.__cause__ is cause
    assert os.strerror(number) in str(caught.value)


def test_other_errors_pass() -> None:
    """What is no OSError is not touched."""
    with pytest.raises(KeyError), disk_errors("cannot commit the layer"):
        raise KeyError
