"""Recognition: a manifest among content tells of its model; nothing else does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from csi_model.oci.digest import Digest
from csi_model.store.recognise import models_in
from csi_model.store.records import ModelLayer

if TYPE_CHECKING:
    from csi_model.store.store import Store

TAR, MISSING = b"an uncompressed tar", b"a tar that was never pulled"
IMAGE_CONFIG = json.dumps(
    {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(TAR)), str(Digest.of(MISSING))]},
    }
).encode()


def _descriptor(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": str(Digest.of(data)), "size": len(data)}


def _image() -> bytes:
    layers = [_descriptor("layer.v1.tar+gzip", b"gzip of TAR"), _descriptor("layer.v1.tar+gzip", b"gzip of MISSING")]
    return json.dumps({"schemaVersion": 2, "config": _descriptor("config.v1+json", IMAGE_CONFIG), "layers": layers}).encode()


def test_an_image_is_recognised_with_the_layers_that_are_here(store: Store) -> None:
    """A compressed layer is found by its diff id; one whose file is not here is known and has no content."""
    tar, config, manifest = store.content.add(TAR), store.content.add(IMAGE_CONFIG), store.content.add(_image())
    (model,) = models_in(store.content)
    assert (model.manifest, model.authenticated, model.documents) == (manifest, True, (config,))
    assert model.layers == (ModelLayer(Digest.of(b"gzip of TAR"), "gzip", tar), ModelLayer(Digest.of(b"gzip of MISSING"), "gzip", None))


def test_what_is_no_manifest_or_lacks_its_config_is_passed_over(store: Store) -> None:
    """JSON files, indexes, broken documents and damaged ones are no models, and none of them stops the search."""
    store.content.add(b'{"weights": [1, 2]}')
    store.content.add(b'{"schemaVersion": 2, "manifests": []}')
    store.content.add(b'{"schemaVersion": 2, "layers"')
    store.content.add(bytes(5 << 20))
    damaged = store.content.path(store.content.add(b'{"schemaVersion": 2}'))
    damaged.chmod(0o644)
    damaged.write_bytes(b'{"schemaVersion": 3}')
    store.content.add(_image())
    assert not list(models_in(store.content))
