"""Diff ids: what a config says that the uncompressed layers hash to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import InvalidRequestError
from csi_model.formats.placement import Compression

if TYPE_CHECKING:
    from csi_model.oci.descriptor import Descriptor
    from csi_model.oci.digest import Digest


def check_uncompressed(layer: Descriptor, compression: Compression, diff_id: Digest | None, where: str) -> None:
    """Refuse a config that contradicts its manifest, before a byte of the layer is fetched.

    Raises:
        InvalidRequestError: the layer is not compressed, yet its diff id is not its digest.
    """
    same_algorithm = diff_id is not None and diff_id.algorithm == layer.digest.algorithm
    if compression is Compression.NONE and same_algorithm and diff_id != layer.digest:
        msg = f"{where} is not compressed, yet the config gives it the diff id {diff_id} where its digest is {layer.digest}"
        raise InvalidRequestError(msg)
