"""Image configs: the platform of an image and the digests of its uncompressed layers (OCI image-spec, config.md).

Only to be used on a config whose media type says that it is one; what an image would run is none of our business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from csi_model.errors import InvalidRequestError
from csi_model.oci.digest import Digest
from csi_model.oci.document import parse_json
from csi_model.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """``diff_ids`` is None for a config without rootfs, as artifact tools write that borrow the image config's type."""

    platform: Platform | None
    diff_ids: tuple[Digest, ...] | None

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a config.

        Raises:
            InvalidRequestError: malformed.
        """
        config = parse_json(body, "the image config")
        platform = Platform.parse(config, "the image config")
        return cls(platform if platform.known else None, _diff_ids(config.get("rootfs")))


def _diff_ids(rootfs: object) -> tuple[Digest, ...] | None:
    if rootfs is None:
        return None
    if not isinstance(rootfs, Mapping) or rootfs.get("type") != "layers":
        msg = "rootfs of the image config is not of type layers"
        raise InvalidRequestError(msg)
    values = rootfs.get("diff_ids")
    if not isinstance(values, list | None):
        msg = "rootfs.diff_ids of the image config is not a list"
        raise InvalidRequestError(msg)
    return tuple(Digest.parse(value) for value in values or ())
