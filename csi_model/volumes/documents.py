"""Documents: manifests and configs, from the store where they are and from the source where they are not."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from csi_model.errors import CorruptContentError, DiskMissingError, InvalidRequestError, UnsupportedError
from csi_model.formats.classify import needs_config, place, refuse_index
from csi_model.oci.document import MAX_DOCUMENT
from csi_model.oci.manifest import Index, Manifest, parse_document
from csi_model.oci.platform import Platform, choose

if TYPE_CHECKING:
    from csi_model.formats.placement import ModelLayout
    from csi_model.oci.descriptor import Descriptor
    from csi_model.oci.digest import Digest
    from csi_model.sources.protocol import Source
    from csi_model.store.content import ContentStore

log = structlog.get_logger(__name__)

_MAX_NESTING = 4
"""Indexes within indexes; real ones nest once."""


@dataclass(frozen=True, slots=True)
class ModelDocuments:
    """What a manifest says: its digest, itself, and where its layers land. ``bodies`` are the verified bytes that were read for it."""

    digest: Digest
    manifest: Manifest
    layout: ModelLayout
    bodies: tuple[tuple[Digest, bytes], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all layers as they are in the registry."""
        return sum(layer.size for layer in self.manifest.layers)


def fetch(source: Source, descriptor: Descriptor) -> ModelDocuments:
    """Read what ``descriptor`` names: a manifest, or an index from which this node's platform is chosen, and the config.

    Raises:
        UnsupportedError: a format, or a nesting, that is not read.
        NotFoundError: nothing in the index is for this platform.
        CorruptContentError: bytes that do not match their descriptor.
    """
    for depth in range(_MAX_NESTING + 1):
        body = source.fetch_document(descriptor)
        # The first type is the registry's word alone; the others stand in an index that was verified.
        parse_document(body, media_type=descriptor.media_type, trusted=depth > 0)
        document = _by_itself(body)
        if isinstance(document, Manifest):
            config = _fetch_config(source, document.config) if needs_config(document) else None
            bodies = [(descriptor.digest, body)]
            if config is not None:
                bodies.append((document.config.digest, config))
            return ModelDocuments(descriptor.digest, document, place(document, config), tuple(bodies))
        refuse_index(document)
        descriptor = choose(Platform.host(), document.manifests)
    msg = f"{source.name} nests indexes more than {_MAX_NESTING} deep; name a manifest's digest instead"
    raise UnsupportedError(msg)


def load(content: ContentStore, digest: Digest) -> ModelDocuments | None:
    """The same from the store, for a manifest that was fetched before; None when some of it is not there, or damaged.

    What is damaged stays until it is fetched again and ``ContentStore.add`` replaces it: readers beside a driver come here, too.
    """
    try:
        manifest = _by_itself(content.read(digest, MAX_DOCUMENT))
        if isinstance(manifest, Index):
            return None
        config = content.read(manifest.config.digest, MAX_DOCUMENT) if needs_config(manifest) else None
    except DiskMissingError:
        return None
    except CorruptContentError as error:
        log.error("document_damaged", error=str(error))  # noqa: TRY400 - it is handled here
        return None
    return ModelDocuments(digest, manifest, place(manifest, config))


def _by_itself(body: bytes) -> Manifest | Index:
    """Go by what the document calls itself. In the store that is all there is, so that what is refused there is refused when it comes."""
    return parse_document(body, media_type=None, trusted=True)


def _fetch_config(source: Source, descriptor: Descriptor) -> bytes:
    if descriptor.size > MAX_DOCUMENT:
        msg = f"the config of {source.name} has {descriptor.size} bytes; at most {MAX_DOCUMENT} are read"
        raise InvalidRequestError(msg)
    body = descriptor.data if descriptor.data is not None else _read_all(source, descriptor)
    if len(body) != descriptor.size or hashlib.new(descriptor.digest.algorithm, body).hexdigest() != descriptor.digest.hex:
        msg = f"the config of {source.name} does not match its digest {descriptor.digest}"
        raise CorruptContentError(msg)
    return body


def _read_all(source: Source, descriptor: Descriptor) -> bytes:
    body = bytearray(descriptor.size)
    reader = source.open(descriptor)
    try:
        filled = 0
        while filled < len(body):
            count = reader.readinto(memoryview(body)[filled:])
            if not count:
                break
            filled += count
    finally:
        reader.close()
    return bytes(body[:filled])
