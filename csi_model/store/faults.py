"""Translation of the disk's errors into ours; nothing else."""

from __future__ import annotations

import errno

from csi_model.errors import CsiModelError, DiskDeniedError, DiskError, DiskMissingError, NoSpaceError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EACCES, errno.EPERM})


def disk_errors(what: str) -> _DiskErrors:
    """A context that raises an OSError of its body as ours, with ``what`` was being done in the message.

    An I/O error says nothing about digests, so it is never CorruptContentError; nor does any say something of models and registries, so
    what is not there is not NotFoundError, and what may not be done not DeniedError.

    Raises:
        NoSpaceError: the disk or its quota is full.
        DiskMissingError: a file or directory is not there.
        DiskDeniedError: this process may not.
        DiskError: anything else, such as an I/O error, a read-only filesystem or too many open files.
    """
    return _DiskErrors(what)


class _DiskErrors:
    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise as_ours(error, self._what) from error


def as_ours(error: OSError, what: str) -> CsiModelError:
    """The error of ours that says what ``error`` says."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return NoSpaceError(f"{what}: {reason}; free space with `csi-model rm`, or give the state directory a larger disk")
    if error.errno == errno.ENOENT:
        return DiskMissingError(f"{what}: {reason}; another try pulls files again, and a start of the driver makes folders again")
    if error.errno in _REFUSED:
        return DiskDeniedError(
            f"{what}: {reason}; it takes root, no immutable flag (lsattr), and leave of SELinux or AppArmor (the audit log)"
        )
    return DiskError(f"{what}: {reason}; look at the node's disk and kernel log")
