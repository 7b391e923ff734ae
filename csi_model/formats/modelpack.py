"""ModelPack artifacts (modelpack/model-spec), in today's cncf names and the cnai names of v0.0.1 to v0.0.6.

Also what borrows ModelPack's artifact type: RamaLama pushes plain files of any media type that carry ModelPack's path annotation, and
Docker Model Runner once named raw layers after the file format. The annotation ``typeflag`` is not looked at: three tools write three
different things.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from csi_model.errors import InvalidRequestError, UnsupportedError
from csi_model.formats.annotations import file_mode, file_path
from csi_model.formats.diffids import check_uncompressed
from csi_model.formats.placement import Compression, FilePlacement, ModelLayout, Placement, TarPlacement
from csi_model.oci.digest import Digest
from csi_model.oci.document import parse_json

if TYPE_CHECKING:
    from csi_model.oci.descriptor import Descriptor
    from csi_model.oci.manifest import Manifest

_ARTIFACT = re.compile(r"application/vnd\.(cncf|cnai)\.model\.(manifest|config)\.v1\+json")
_CONFIG = re.compile(r"application/vnd\.(cncf|cnai)\.model\.config\.v1\+json")
_LAYER = re.compile(r"application/vnd\.(?:cncf|cnai)\.model\.(?:[a-z0-9]+(?:[.-][a-z0-9]+)*)\.v1\.(?P<encoding>[a-z0-9.+_-]+)")
_MODEL_TYPE = re.compile(r"application/vnd\.(cncf|cnai)\.model\.")

_TARS = {"tar": Compression.NONE, "tar+gzip": Compression.GZIP, "tar+zstd": Compression.ZSTD}
_RAW = {"raw", "gguf", "safetensors"}


def is_modelpack(manifest: Manifest) -> bool:
    """Whether the artifact's type or its config's is ModelPack's."""
    return any(_ARTIFACT.fullmatch(kind) for kind in (manifest.artifact_type or "", manifest.config.media_type))


def has_config(manifest: Manifest) -> bool:
    """Whether the config is ModelPack's own; RamaLama leaves it empty, the oldest modctl wrote an image config."""
    return _CONFIG.fullmatch(manifest.config.media_type) is not None


def place(manifest: Manifest, config: bytes | None) -> ModelLayout:
    """A raw layer is the file at its path annotation; a tar layer's names are relative to the root, whatever its annotation.

    Raises:
        InvalidRequestError: a raw layer without a path, a bad path, a malformed config or one that contradicts the manifest.
        UnsupportedError: a layer in an encoding that the specification does not have.
    """
    diff_ids = _diff_ids(config, len(manifest.layers)) if config is not None else (None,) * len(manifest.layers)
    placements = tuple(
        _place(layer, diff_id, f"layers[{number}]") for number, (layer, diff_id) in enumerate(zip(manifest.layers, diff_ids, strict=True))
    )
    return ModelLayout("ModelPack", placements)


def _place(layer: Descriptor, diff_id: Digest | None, where: str) -> Placement:
    compression = _compression(layer, where)
    check_uncompressed(layer, compression or Compression.NONE, diff_id, where)
    if compression is not None:
        # A compressed layer never unpacks to its own digest: a tool that writes so has copied digests and knows no diff ids.
        known = diff_id if compression is Compression.NONE or diff_id != layer.digest else None
        return TarPlacement(layer, compression, known)
    path = file_path(layer, where)
    if path is None:
        msg = f"{where} is a raw ModelPack layer without the annotation org.cncf.model.filepath, so its file has no name"
        raise InvalidRequestError(msg)
    return FilePlacement(layer, path, file_mode(layer, where))


def _compression(layer: Descriptor, where: str) -> Compression | None:
    """How a tar layer is compressed; None for a raw one."""
    # The oldest artifacts say what a layer is in the descriptor's artifactType, beside an image layer's media type.
    kind = layer.artifact_type if layer.artifact_type and _MODEL_TYPE.match(layer.artifact_type) else layer.media_type
    if not _MODEL_TYPE.match(kind):
        return None
    match = _LAYER.fullmatch(kind)
    encoding = match["encoding"] if match else None
    if encoding in _TARS:
        return _TARS[encoding]
    if encoding in _RAW:
        return None
    msg = f"{where} has the ModelPack layer type {kind[:160]!r}, which is not supported; raw, tar, tar+gzip and tar+zstd are"
    raise UnsupportedError(msg)


def _diff_ids(config: bytes, layers: int) -> tuple[Digest | None, ...]:
    """The config's diff ids in the order of the layers; all None when their number says that they are something else."""
    modelfs = parse_json(config, "the model config").get("modelfs")
    values = modelfs.get("diffIds") if isinstance(modelfs, Mapping) else None
    if not isinstance(values, list) or len(values) != layers:
        return (None,) * layers
    return tuple(Digest.parse(value) for value in values)
