"""Models recognised among content by their manifests, for a state database that has lost its records of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import CsiModelError
from csi_model.formats.classify import needs_config, place
from csi_model.formats.placement import Compression, FilePlacement
from csi_model.oci.document import MAX_DOCUMENT
from csi_model.oci.manifest import Manifest, parse_document
from csi_model.store.records import ModelLayer, ModelRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_model.formats.placement import Placement
    from csi_model.oci.digest import Digest
    from csi_model.store.content import ContentStore


def models_in(content: ContentStore) -> Iterator[ModelRecord]:
    """Every model whose manifest is content, with those of its layers that can be told to be here.

    Whether its registry wanted credentials is not written in a manifest, so each counts as one that did: the next publish asks.
    """
    for digest in content.digests():
        if content.size(digest) <= MAX_DOCUMENT and (model := _recognise(content, digest)):
            yield model


def _recognise(content: ContentStore, digest: Digest) -> ModelRecord | None:
    try:
        body = content.read(digest, MAX_DOCUMENT)
        if not body.startswith(b"{"):
            return None
        manifest = parse_document(body, media_type=None, trusted=True)
        if not isinstance(manifest, Manifest):
            return None
        configured = needs_config(manifest)
        layout = place(manifest, content.read(manifest.config.digest, MAX_DOCUMENT) if configured else None)
    except CsiModelError:
        return None  # most content is no manifest, and one that cannot be read keeps nothing
    return ModelRecord(
        manifest=digest,
        format=layout.format,
        size=sum(layer.size for layer in manifest.layers),
        authenticated=True,
        layers=tuple(_layer(content, placement) for placement in layout.placements),
        documents=(manifest.config.digest,) if configured else (),
    )


def _layer(content: ContentStore, placement: Placement) -> ModelLayer:
    blob = placement.layer.digest
    compression, diff_id = Compression.NONE, None
    if not isinstance(placement, FilePlacement):
        compression, diff_id = placement.compression, placement.diff_id
    file = blob if compression is Compression.NONE else diff_id
    return ModelLayer(blob, compression.value, file if file and content.has(file) else None)
