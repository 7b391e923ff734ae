"""Images: OCI's and Docker's, among them Modelcars (OCI image-spec, layer.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import InvalidRequestError
from csi_model.formats.diffids import check_uncompressed
from csi_model.formats.placement import Compression, ModelLayout, TarPlacement
from csi_model.oci.imageconfig import ImageConfig

if TYPE_CHECKING:
    from csi_model.oci.digest import Digest
    from csi_model.oci.manifest import Manifest

_OCI = "application/vnd.oci.image.layer."
_DOCKER = "application/vnd.docker.image.rootfs."

LAYERS = {
    f"{_OCI}v1.tar": Compression.NONE,
    f"{_OCI}v1.tar+gzip": Compression.GZIP,
    f"{_OCI}v1.tar+zstd": Compression.ZSTD,
    f"{_OCI}nondistributable.v1.tar": Compression.NONE,
    f"{_OCI}nondistributable.v1.tar+gzip": Compression.GZIP,
    f"{_OCI}nondistributable.v1.tar+zstd": Compression.ZSTD,
    f"{_DOCKER}diff.tar": Compression.DETECT,
    f"{_DOCKER}diff.tar.gzip": Compression.GZIP,
    f"{_DOCKER}diff.tar.zstd": Compression.ZSTD,
    f"{_DOCKER}foreign.diff.tar": Compression.DETECT,
    f"{_DOCKER}foreign.diff.tar.gzip": Compression.GZIP,
    f"{_DOCKER}foreign.diff.tar.zstd": Compression.ZSTD,
}


def place(manifest: Manifest, config: bytes) -> ModelLayout:
    """Every layer is a tar that lands at the root, with whiteouts.

    A config without rootfs is accepted, and then there are no diff ids to check: artifact tools write images so, and the Kubernetes
    proposal for image volumes (KEP 4639) shows one.

    Raises:
        InvalidRequestError: the config is malformed or contradicts the manifest.
    """
    said = ImageConfig.parse(config).diff_ids
    if said is not None and len(said) != len(manifest.layers):
        msg = f"the image has {len(manifest.layers)} layers, but its config lists {len(said)} diff ids"
        raise InvalidRequestError(msg)
    diff_ids: tuple[Digest | None, ...] = said if said is not None else (None,) * len(manifest.layers)
    placements = []
    for number, (layer, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True)):
        compression = LAYERS[layer.media_type]
        check_uncompressed(layer, compression, diff_id, f"layers[{number}]")
        placements.append(TarPlacement(layer, compression, diff_id, whiteouts=True))
    docker = "docker" in manifest.config.media_type
    return ModelLayout("Docker image" if docker else "OCI image", tuple(placements))
