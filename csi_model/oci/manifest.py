"""Manifests and indexes, in their OCI and Docker spellings, read strictly (OCI image-spec, manifest.md and image-index.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from csi_model.errors import InvalidRequestError, UnsupportedError
from csi_model.oci import mediatypes
from csi_model.oci.descriptor import Descriptor, parse_annotations
from csi_model.oci.document import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ENTRIES = 10_000
"""Layers of a manifest and entries of an index; the largest models published one file a layer have a few thousand."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image or artifact: a config and layers, lowest first. ``media_type`` is the type that was settled on."""

    media_type: str
    artifact_type: str | None
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    subject: Descriptor | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests (or of further indexes) to choose from."""

    media_type: str
    artifact_type: str | None
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)


def parse_document(body: bytes, *, media_type: str | None, trusted: bool) -> Manifest | Index:
    """Read a manifest or an index.

    ``media_type`` is what the bringer said: a descriptor's type when ``trusted`` (the body was fetched by that descriptor's digest, and
    matches it), else the Content-Type of the answer. A trusted type outranks the body's own; an untrusted one has to agree with it, so
    that no registry makes two readers see two different things in the same bytes.

    Raises:
        InvalidRequestError: malformed, of contradicting types, or larger than we read.
        UnsupportedError: a known kind of manifest that is not read, such as schema 1.
    """
    document = parse_json(body, "the manifest")
    kind = _settle_type(document, media_type, trusted=trusted)
    if kind in mediatypes.INDEXES:
        return _index(document, kind)
    return _manifest(document, kind)


def _manifest(document: Mapping[str, object], kind: str) -> Manifest:
    if document.get("config") is None:
        msg = "the manifest has no config"
        raise InvalidRequestError(msg)
    subject = document.get("subject")
    return Manifest(
        media_type=kind,
        artifact_type=_text(document, "artifactType"),
        config=Descriptor.parse(document["config"], "the config"),
        layers=_descriptors(document, "layers"),
        annotations=parse_annotations(document.get("annotations"), "the manifest"),
        subject=Descriptor.parse(subject, "the subject") if subject is not None else None,
    )


def _index(document: Mapping[str, object], kind: str) -> Index:
    return Index(
        media_type=kind,
        artifact_type=_text(document, "artifactType"),
        manifests=_descriptors(document, "manifests"),
        annotations=parse_annotations(document.get("annotations"), "the index"),
    )


def _settle_type(document: Mapping[str, object], media_type: str | None, *, trusted: bool) -> str:
    declared = mediatypes.essence(_text(document, "mediaType"))
    given = mediatypes.essence(media_type)
    _refuse_other_schemas(document, given or declared)
    if declared is not None and given is not None and declared != given and not trusted:
        msg = f"the manifest calls itself {declared} but came as {given}; such a manifest can be read in two ways and is refused"
        raise InvalidRequestError(msg)
    has_layers, has_manifests = "layers" in document or "config" in document, "manifests" in document
    if has_layers and has_manifests:
        msg = "the document is both a manifest (layers) and an index (manifests); such a document is refused"
        raise InvalidRequestError(msg)
    kind = given or declared or (mediatypes.OCI_INDEX if has_manifests else mediatypes.OCI_MANIFEST)
    if kind not in mediatypes.INDEXES | mediatypes.MANIFESTS:
        msg = f"{kind[:160]!r} is not a manifest or index that csi-model reads; OCI and Docker schema 2 manifests and indexes are"
        raise UnsupportedError(msg)
    if has_manifests != (kind in mediatypes.INDEXES):
        msg = f"the document is not what its type {kind} says: it has {'manifests' if has_manifests else 'no manifests'}"
        raise InvalidRequestError(msg)
    return kind


def _refuse_other_schemas(document: Mapping[str, object], kind: str | None) -> None:
    if kind in mediatypes.SCHEMA1 or "fsLayers" in document or document.get("schemaVersion") == 1:
        msg = "this is a Docker schema 1 manifest, which is obsolete and not supported; push the image again with a current tool"
        raise UnsupportedError(msg)
    if kind == mediatypes.OCI_ARTIFACT_MANIFEST:
        msg = (
            "this is an OCI artifact manifest, which was withdrawn before OCI 1.1 and is not supported; push it again as an image manifest"
        )
        raise UnsupportedError(msg)
    version = document.get("schemaVersion")
    if version != 2 or not isinstance(version, int):
        msg = f"the manifest's schemaVersion is {str(version)[:40]}, not 2"
        raise InvalidRequestError(msg)


def _descriptors(document: Mapping[str, object], key: str) -> tuple[Descriptor, ...]:
    values = document.get(key)
    if values is None and key in document:
        values = []  # Go writes an empty list as null
    if not isinstance(values, list):
        msg = f"{key} of the manifest is not a list"
        raise InvalidRequestError(msg)
    if len(values) > MAX_ENTRIES:
        msg = f"the manifest has {len(values)} {key}; at most {MAX_ENTRIES} are read"
        raise InvalidRequestError(msg)
    return tuple(Descriptor.parse(value, f"{key}[{number}]") for number, value in enumerate(values))


def _text(document: Mapping[str, object], key: str) -> str | None:
    text = document.get(key)
    if text is None or isinstance(text, str):
        return text or None
    msg = f"{key} of the manifest is not a string"
    raise InvalidRequestError(msg)
