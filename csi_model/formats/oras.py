"""Generic artifacts, as ``oras push`` and ``podman artifact add`` make them: titled layers.

A layer is its file, byte for byte, whatever its media type says: a plain file's default type is an image layer's. Only the unpack
annotation makes it a directory; the Python package oras pushes directories without it, and those are shown as one archive, as
``oras pull`` writes them. A layer without a title is left out, again as ``oras pull`` does; with no title at all there is nothing to
show, and the artifact is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from csi_model.errors import UnsupportedError
from csi_model.formats.annotations import TITLE, check_path, file_mode, file_path
from csi_model.formats.placement import Compression, FilePlacement, ModelLayout, Placement, TarPlacement
from csi_model.formats.refused import SUPPORTED
from csi_model.oci.digest import Digest

if TYPE_CHECKING:
    from csi_model.oci.descriptor import Descriptor
    from csi_model.oci.manifest import Manifest

UNPACK: Final = "io.deis.oras.content.unpack"
_TAR_DIGEST = "io.deis.oras.content.digest"


def place(manifest: Manifest) -> ModelLayout:
    """Titled layers as files, or as directories where they are to be unpacked.

    Raises:
        InvalidRequestError: a title that is no safe relative path, or a malformed digest annotation.
        UnsupportedError: no layer has a title; the message gives the artifact's type, for it is of a format that we do not know.
    """
    placed = (_place(layer, f"layers[{number}]") for number, layer in enumerate(manifest.layers))
    placements = tuple(placement for placement in placed if placement is not None)
    if not placements:
        kind = manifest.artifact_type or manifest.config.media_type
        msg = f"this is an artifact of type {kind[:160]!r}, none of whose layers has a title, so it holds no files to mount; {SUPPORTED}"
        raise UnsupportedError(msg)
    return ModelLayout("ORAS artifact", placements)


def _place(layer: Descriptor, where: str) -> Placement | None:
    title = layer.annotations.get(TITLE)
    if title and layer.annotations.get(UNPACK) == "true":
        # The names in the tar begin with the title; "." is what pushing the working directory itself gives.
        directory = "" if title == "." else check_path(title, f"{TITLE} of {where}")
        said = layer.annotations.get(_TAR_DIGEST)
        diff_id = Digest.parse(said) if said else None
        return TarPlacement(layer, Compression.DETECT, diff_id, prefix=directory, strip=directory)
    path = file_path(layer, where)
    return FilePlacement(layer, path, file_mode(layer, where)) if path is not None else None
