"""Volume ids: what the Controller makes, and what any CSI call may bring.

An id is a name for a record, never part of a path. Ids of inline volumes are kubelet's, those of static volumes are free text.
"""

from __future__ import annotations

from csi_model.errors import InvalidRequestError, NotFoundError
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


def demand(volume_id: str) -> None:
    """Refuse a call that names no volume.

    Raises:
        InvalidRequestError: the id is missing.
    """
    if not volume_id:
        msg = "volume_id is missing"
        raise InvalidRequestError(msg)


def require(volume_id: str) -> None:
    """Refuse to make a volume of an id that is missing, too long or holds a NUL.

    Raises:
        InvalidRequestError: it is; the message says which.
    """
    demand(volume_id)
    if not is_possible(volume_id):
        raise InvalidRequestError(_impossible(volume_id))


def find(volume_id: str) -> None:
    """Refuse to look for a volume whose id no volume can have: to who asks about one, it is not there.

    Raises:
        NotFoundError: it has a NUL or is too long.
    """
    if not is_possible(volume_id):
        raise NotFoundError(_impossible(volume_id))


def _impossible(volume_id: str) -> str:
    return f"volume_id {volume_id[:64]!r}… has a NUL or more than {_MAX_BYTES} bytes"
