"""Translation of the disk's errors into ours; nothing else."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from csi_model.errors import CsiModelError, DeniedError, DiskError, NoSpaceError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EACCES, errno.EPERM})


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Raise an OSError of the body as ours, with ``what`` was being done in the message.

    An I/O error says nothing about digests, so it is never CorruptContentError.

    Raises:
        NoSpaceError: the disk or its quota is full.
        NotFoundError: a file or directory is not there.
        DeniedError: this user may not.
        DiskError: anything else, such as an I/O error, a read-only filesystem or too many open files.
    """
    try:
        yield
    except OSError as error:
        raise as_ours(error, what) from error


def as_ours(error: OSError, what: str) -> CsiModelError:
    """The error of ours that says what ``error`` says."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return NoSpaceError(f"{what}: {reason}; free space with `csi-model rm`, or give the state directory a larger disk")
    if error.errno == errno.ENOENT:
        return NotFoundError(f"{what}: {reason}")
    if error.errno in _REFUSED:
        return DeniedError(f"{what}: {reason}; the state directory belongs to root")
    return DiskError(f"{what}: {reason}; look at the node's disk and kernel log")
