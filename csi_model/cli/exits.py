"""Exit codes: one table, looked up along the error's MRO."""

from __future__ import annotations

from csi_model.errors import (
    BusyError,
    ConflictError,
    CorruptContentError,
    CsiModelError,
    DeniedError,
    DiskDeniedError,
    DiskError,
    InvalidRequestError,
    MountError,
    NoSpaceError,
    NotFoundError,
    StateDamagedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

FAILED = 1
INTERRUPTED = 130

CODES: dict[type[CsiModelError], int] = {
    InvalidRequestError: 2,
    NotFoundError: 3,
    UnauthenticatedError: 4,
    DeniedError: 4,
    DiskDeniedError: 4,
    DiskError: 11,
    BusyError: 5,
    ConflictError: 5,
    UnavailableError: 6,
    CorruptContentError: 7,
    StateDamagedError: 7,
    NoSpaceError: 8,
    UnsupportedError: 9,
    MountError: 10,
}

MEANINGS = {
    0: "done",
    FAILED: "`doctor` found something that would fail, kubelet refused the driver, or a bug: then with a traceback",
    2: "the command line, a reference, a path or a configuration file is malformed",
    3: "the reference, the path in it, the mount or the state directory does not exist",
    4: "the registry asks for credentials or refused those that it was given, or a file may not be read",
    5: "another process owns the state directory, the model is still mounted, or the target or a port is in use",
    6: "a registry or service does not answer, or not now; try again",
    7: "bytes whose size or digest is not what was promised",
    8: "the disk cannot hold it",
    9: "a format, feature or kernel capability that csi-model does not have",
    10: "the kernel refused to mount or unmount",
    11: "the disk of the state directory failed, or something is missing from it; `csi-model doctor` looks at it",
    INTERRUPTED: "stopped by Ctrl-C or SIGTERM; what was pulled so far is kept",
}
"""What each code means, for docs/cli.md."""


def code_of(error: CsiModelError) -> int:
    """The exit code of the nearest class in the error's MRO."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), FAILED)
