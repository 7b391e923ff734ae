"""What our errors are called in events: one table, looked up along the error's MRO as for gRPC codes."""

from __future__ import annotations

from csi_model.errors import (
    BusyError,
    ConflictError,
    CorruptContentError,
    CsiModelError,
    DeniedError,
    DiskError,
    InvalidRequestError,
    MisconfiguredError,
    MountError,
    NoSpaceError,
    NotFoundError,
    StoppedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

REASONS: dict[type[CsiModelError], str | None] = {
    InvalidRequestError: "InvalidVolume",
    MisconfiguredError: "DriverMisconfigured",
    NotFoundError: "ModelNotFound",
    ConflictError: "VolumeConflict",
    UnsupportedError: "ModelUnsupported",
    UnauthenticatedError: "ModelUnauthorized",
    DeniedError: "ModelForbidden",
    NoSpaceError: "NoSpace",
    UnavailableError: "RegistryUnavailable",
    DiskError: "DiskFailed",
    CorruptContentError: "ModelCorrupt",
    MountError: "MountFailed",
    # No refusals: kubelet asks again and finds the pull under way, the other call ended or the driver back.
    BusyError: None,
    StoppedError: None,
}
_BUG = "DriverError"


def reason_of(error: Exception) -> str | None:
    """The event's reason, or None for an error that is none to the pod's owner."""
    for kind in type(error).__mro__:
        if kind in REASONS:
            return REASONS[kind]
    return _BUG


def text_of(error: Exception) -> str:
    """What to say of it; of a bug of ours no more than kubelet is told, for its text may hold anything."""
    return str(error) if isinstance(error, CsiModelError) else "the publish failed inside csi-model; the driver's log has the details"
