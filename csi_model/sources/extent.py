"""Which part of a blob is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import InvalidRequestError

if TYPE_CHECKING:
    from csi_model.oci.descriptor import Descriptor


def extent_end(descriptor: Descriptor, offset: int, length: int | None) -> int:
    """Where ``length`` bytes from ``offset`` end; all that are left when it is None.

    Raises:
        InvalidRequestError: not inside the blob.
    """
    end = descriptor.size if length is None else offset + length
    if not 0 <= offset <= end <= descriptor.size:
        msg = f"bytes {offset} to {end} are not inside blob {descriptor.digest}, which has {descriptor.size}"
        raise InvalidRequestError(msg)
    return end
