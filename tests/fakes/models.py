"""Small models in a fake registry: artifacts of raw files, images of tar layers."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

from csi_model.oci import mediatypes
from csi_model.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from csi_model.oci.descriptor import Descriptor
    from tests.fakes.registry import FakeRegistry

Entry = dict[str, object]
"""An entry of an index, as JSON has it."""
OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
_TITLE = "org.opencontainers.image.title"
_IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"


def tar_of(files: Mapping[str, bytes], *, mtime: int = 1_700_000_000) -> bytes:
    """A plain tar of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(data), mtime
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def push_artifact(registry: FakeRegistry, repository: str, files: Mapping[str, bytes], *, tag: str = "v1") -> str:
    """An ORAS artifact of raw files; returns its reference."""
    layers = [{**_described(registry.add_blob(data)), "annotations": {_TITLE: name}} for name, data in files.items()]
    config = registry.add_blob(b"{}", mediatypes.OCI_EMPTY)
    return push_manifest(
        registry, repository, {"artifactType": "application/x-test", "config": _described(config), "layers": layers}, tag=tag
    )


def push_tars(
    registry: FakeRegistry, repository: str, *tars: bytes, tag: str = "v1", media_type: str = OCI_TAR, diff_ids: tuple[bytes, ...] = ()
) -> str:
    """An image whose layers are these blobs, lowest first; ``diff_ids`` are the uncompressed tars where the blobs are not."""
    config = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(tar)) for tar in diff_ids or tars]},
    }
    layers = [_described(registry.add_blob(tar, media_type)) for tar in tars]
    body = registry.add_blob(json.dumps(config).encode(), _IMAGE_CONFIG)
    return push_manifest(registry, repository, {"config": _described(body), "layers": layers}, tag=tag)


def push_manifest(registry: FakeRegistry, repository: str, document: Mapping[str, object], *, tag: str = "v1") -> str:
    """A manifest with these fields; returns its reference."""
    body = json.dumps({"schemaVersion": 2, "mediaType": mediatypes.OCI_MANIFEST, **document}).encode()
    registry.add_manifest(repository, body, tag=tag)
    return f"{registry.host}/{repository}:{tag}"


def push_index(registry: FakeRegistry, repository: str, entries: Sequence[Entry], *, tag: str = "v1", **more: object) -> str:
    """An image index of these entries, which the repository already serves; returns its reference."""
    body = json.dumps({"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": list(entries), **more}).encode()
    registry.add_manifest(repository, body, tag=tag, media_type=mediatypes.OCI_INDEX)
    return f"{registry.host}/{repository}:{tag}"


def _described(descriptor: Descriptor) -> dict[str, object]:
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}
