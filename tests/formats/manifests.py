"""Manifests for tests, made the way that registries bring them: as JSON that is parsed."""

from __future__ import annotations

import json

from csi_model.oci import mediatypes
from csi_model.oci.digest import Digest
from csi_model.oci.manifest import Manifest, parse_document

OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
DOCKER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
CNCF = "application/vnd.cncf.model."
CNAI = "application/vnd.cnai.model."
TITLE = "org.opencontainers.image.title"
FILEPATH = "org.cncf.model.filepath"
EMPTY = b"{}"


def blob(media_type: str, content: bytes, *, artifact_type: str | None = None, **annotations: str) -> dict[str, object]:
    """A descriptor of ``content``; annotations by the names ``title`` and ``filepath``, or as they are."""
    keys = {"title": TITLE, "filepath": FILEPATH}
    described: dict[str, object] = {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}
    if artifact_type:
        described["artifactType"] = artifact_type
    if annotations:
        described["annotations"] = {keys.get(key, key): value for key, value in annotations.items()}
    return described


def manifest(
    *layers: dict[str, object], config: str = mediatypes.OCI_EMPTY, config_body: bytes = EMPTY, artifact_type: str | None = None
) -> Manifest:
    """A manifest of these layers."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": blob(config, config_body),
        "layers": list(layers),
    }
    if artifact_type:
        document["artifactType"] = artifact_type
    parsed = parse_document(json.dumps(document).encode(), media_type=None, trusted=False)
    assert isinstance(parsed, Manifest)
    return parsed


def image_config(*diff_ids: Digest) -> bytes:
    """An image config with these diff ids."""
    rootfs = {"type": "layers", "diff_ids": [str(digest) for digest in diff_ids]}
    return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).encode()


def model_config(*diff_ids: Digest) -> bytes:
    """A ModelPack config with these diff ids."""
    return json.dumps({"descriptor": {}, "config": {}, "modelfs": {"type": "layers", "diffIds": [str(d) for d in diff_ids]}}).encode()
