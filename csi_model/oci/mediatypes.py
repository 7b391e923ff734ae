"""Media types of manifests, indexes and image configs, in their OCI and Docker spellings (OCI image-spec, media-types.md)."""

from __future__ import annotations

from typing import Final

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_ARTIFACT_MANIFEST: Final = "application/vnd.oci.artifact.manifest.v1+json"
"""From a release candidate of OCI 1.1, withdrawn before the release."""

DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
IMAGE_CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})

ACCEPT: Final = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX)
"""What to ask a registry for, in this order."""

SCHEMA1: Final = frozenset(
    {"application/vnd.docker.distribution.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws"}
)


def essence(media_type: str | None) -> str | None:
    """The type without its parameters, in lower case; None for types that say nothing of what the bytes are.

    Registries made of plain file servers answer ``application/octet-stream`` and the like for a manifest.
    """
    if media_type is None:
        return None
    bare = media_type.partition(";")[0].strip().lower()
    return None if bare in {"", "application/json", "application/octet-stream", "text/plain"} else bare
