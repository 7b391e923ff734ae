"""Volume capabilities: any access mode is fine, since every volume is read-only; block devices and mount options are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import InvalidRequestError, UnsupportedError
from csi_model.generated import csi_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

_MODES = frozenset(csi_pb2.VolumeCapability.AccessMode.Mode.values()) - {csi_pb2.VolumeCapability.AccessMode.UNKNOWN}
# What every mount has anyway; asking for it changes nothing.
_FORCED_OPTIONS = frozenset({"ro", "nosuid", "nodev"})


def require(capability: csi_pb2.VolumeCapability) -> None:
    """Refuse a capability that is incomplete, or that a read-only filesystem volume cannot have.

    Mount options may hold secrets and are not repeated in the message.

    Raises:
        InvalidRequestError: access type or access mode is missing.
        UnsupportedError: a block volume, an unknown access mode, or mount options.
    """
    kind = capability.WhichOneof("access_type")
    if kind is None:
        msg = "volume_capability says neither mount nor block; csi-model offers mount"
        raise InvalidRequestError(msg)
    # kubelet marks a block volume with this filesystem type where it has nothing but a mount capability to say it with.
    if kind == "block" or capability.mount.fs_type == "block":
        msg = "csi-model has no block volumes; use volumeMode: Filesystem"
        raise UnsupportedError(msg)
    mode = capability.access_mode.mode
    if mode == csi_pb2.VolumeCapability.AccessMode.UNKNOWN:
        msg = "volume_capability has no access mode"
        raise InvalidRequestError(msg)
    if mode not in _MODES:
        msg = f"access mode {mode} is not supported; use ReadOnlyMany"
        raise UnsupportedError(msg)
    if not _FORCED_OPTIONS.issuperset(capability.mount.mount_flags):
        msg = "csi-model takes no mount options: every volume is mounted ro,nosuid,nodev; remove mountOptions"
        raise UnsupportedError(msg)


def require_all(capabilities: Iterable[csi_pb2.VolumeCapability]) -> None:
    """Refuse a list that is empty or has a capability that ``require`` refuses.

    Raises:
        InvalidRequestError: empty, or as ``require``.
        UnsupportedError: as ``require``.
    """
    given = list(capabilities)
    if not given:
        msg = "volume_capabilities is missing"
        raise InvalidRequestError(msg)
    for capability in given:
        require(capability)
