"""Formats that are known and refused, by name, so that nobody has to guess why a model does not mount."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from csi_model.errors import UnsupportedError

if TYPE_CHECKING:
    from csi_model.oci.manifest import Index, Manifest

SUPPORTED = "csi-model mounts OCI and Docker images, ModelPack artifacts, and ORAS artifacts whose layers carry titles"

_LATER = "is not supported yet"
_NEVER = "holds no files to mount"
_NOT_READ = "is not supported"

# Matched against an artifact's type and against each layer's, in this order.
_TYPES: tuple[tuple[str, str, str], ...] = (
    (r"application/vnd\.ollama\.", "an Ollama model", _LATER),
    (r"application/vnd\.(kitops|jozu)\.", "a KitOps ModelKit", _LATER),
    (r"application/vnd\.docker\.ai\.", "a Docker Model Runner model", _LATER),
    (r"application/vnd\.cncf\.helm\.", "a Helm chart", _NOT_READ),
    (r"application/vnd\.dev\.cosign\.", "a cosign signature or attestation", _NEVER),
    (r"application/vnd\.dev\.sigstore\.", "a Sigstore bundle", _NEVER),
    (r"application/(vnd\.in-toto|vnd\.dsse\.envelope)", "an in-toto attestation", _NEVER),
    (r"application/vnd\.cncf\.notary\.", "a Notation signature", _NEVER),
    (r"application/vnd\.amazon\.soci\.", "a SOCI index", _NEVER),
    (r"application/vnd\.cncf\.flux\.", "a Flux artifact", _NOT_READ),
    (r"application/vnd\.(module\.)?wasm\.", "a WebAssembly module", _NOT_READ),
    (r"application/vnd\.docker\.plugin", "a Docker plugin", _NOT_READ),
    (r"application/vnd\.oci\.image\.layer\.nydus\.", "a Nydus image", _NOT_READ),
    (r"application/vnd\.erofs\.layer\.", "an image with EROFS layers", _NOT_READ),
    (r".*\+encrypted$", "an encrypted image", _NOT_READ),
)
_PATTERNS = tuple((re.compile(pattern), name, why) for pattern, name, why in _TYPES)
_NYDUS = "application/vnd.oci.image.layer.nydus.blob.v1"
_NYDUS_MARKS = frozenset({"containerd.io/snapshot/nydus-blob", "containerd.io/snapshot/nydus-bootstrap"})


def refuse_known(manifest: Manifest) -> None:
    """Pass a manifest that is of no refused format.

    Layers are looked at first: Ollama's config calls itself a Docker image config.

    Raises:
        UnsupportedError: it is of one; the message names it.
    """
    for layer in manifest.layers:
        # Nydus marks layers that otherwise call themselves an image's.
        _refuse_type(_NYDUS if not _NYDUS_MARKS.isdisjoint(layer.annotations) else layer.media_type)
    _refuse_type(manifest.artifact_type)
    _refuse_type(manifest.config.media_type)


def refuse_index(index: Index) -> None:
    """Pass an index that may be one of platforms.

    Raises:
        UnsupportedError: it is an index of a refused format, such as a ModelKit index, whose entries differ by model and not by platform.
    """
    _refuse_type(index.artifact_type)


def _refuse_type(media_type: str | None) -> None:
    for pattern, name, why in _PATTERNS:
        if media_type is not None and pattern.match(media_type.lower()):
            msg = f"this is {name}, which {why}; {SUPPORTED}"
            raise UnsupportedError(msg)
