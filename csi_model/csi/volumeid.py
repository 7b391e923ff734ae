"""Volume ids: what the Controller makes, and what any CSI call may bring.

An id is a name for a record, never part of a path. Ids of inline volumes are kubelet's, those of static volumes are free text.
"""

from __future__ import annotations

from csi_model.errors import InvalidRequestError
from csi_model.oci.digest import Digest

_CREATED = "csi-model:v1:"
# The specification says 128 bytes; kubelet passes on what a PersistentVolume says, which may be longer.
_MAX_BYTES = 1024


def created(name: str) -> str:
    """The id of the volume that CreateVolume makes for ``name``: always the same for one name, and 109 bytes or fewer."""
    return f"{_CREATED}{Digest.of(name.encode()).hex}"


def is_created(volume_id: str) -> bool:
    """Whether the id has the form that ``created`` gives; without state, that is all there is to a created volume."""
    if not volume_id.startswith(_CREATED):
        return False
    try:
        Digest.parse(f"sha256:{volume_id.removeprefix(_CREATED)}")
    except InvalidRequestError:
        return False
    return True


def is_possible(volume_id: str) -> bool:
    """Whether a volume of that id can have been published at all."""
    return "\0" not in volume_id and 0 < len(volume_id.encode()) <= _MAX_BYTES


def require(volume_id: str) -> None:
    """Refuse an id that is missing, too long or holds a NUL.

    Raises:
        InvalidRequestError: it is; the message says which.
    """
    if not volume_id:
        msg = "volume_id is missing"
        raise InvalidRequestError(msg)
    if not is_possible(volume_id):
        msg = f"volume_id {volume_id[:64]!r}… has a NUL or more than {_MAX_BYTES} bytes"
        raise InvalidRequestError(msg)
