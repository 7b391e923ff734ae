"""The kernel's refusals, put into words that say what to do: the one place where mount/ turns ``OSError`` into our errors."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from csi_model.errors import DiskError, MountError, NoSpaceError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOUNTING = {
    errno.ENOSPC: "this mount namespace is full; raise the sysctl fs.mount-max",
    errno.EPERM: "not permitted; the driver needs CAP_SYS_ADMIN (a privileged container)",
    errno.ENODEV: "this kernel has no EROFS; load the module erofs or use another strategy",
    errno.ENOENT: "a layer file or the view's image is missing; pull the model again",
    errno.EINVAL: "this kernel does not know the image's features or an option; its log says more",
    errno.ENOTBLK: "this kernel or the store's filesystem cannot mount an image from a file",
    errno.EMFILE: "too many open files; raise the limit of open files",
}
_FAILING = frozenset({errno.EIO, errno.EROFS, errno.EUCLEAN})


def explain(error: OSError) -> str:
    """What a failed mount operation means, for people."""
    known = _MOUNTING.get(error.errno or 0)
    if error.errno == errno.ENOENT and str(error.filename).startswith("/dev/"):
        known = f"there is no {error.filename}; load the module loop, and give the driver's container the host's /dev"
    return f"{error.strerror} ({known})" if known else str(error.strerror)


@contextmanager
def mounting(doing: str) -> Iterator[None]:
    """Translate what the kernel says to mount operations.

    Raises:
        MountError: it refused.
    """
    try:
        yield
    except OSError as error:
        msg = f"cannot {doing}: {explain(error)}"
        raise MountError(msg) from error


@contextmanager
def writing(doing: str) -> Iterator[None]:
    """Translate what the kernel says to writing a view's files.

    Raises:
        NoSpaceError: the disk or a quota is full.
        DiskError: the disk fails, or became read-only.
        MountError: anything else.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            msg = f"cannot {doing}: the state directory's disk is full; free space or remove models (csi-model rm)"
            raise NoSpaceError(msg) from error
        msg = f"cannot {doing}: {error.strerror}{f' ({error.filename})' if error.filename else ''}"
        if error.errno in _FAILING:
            msg = f"{msg}; look at the node's disk and kernel log"
            raise DiskError(msg) from error
        raise MountError(msg) from error
