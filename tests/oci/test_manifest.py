"""csi_model.oci.manifest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import InvalidRequestError, UnsupportedError
from csi_model.oci import mediatypes
from csi_model.oci.digest import Digest
from csi_model.oci.manifest import MAX_ENTRIES, Index, Manifest, parse_document

if TYPE_CHECKING:
    from csi_model.errors import CsiModelError

BLOB = {"mediaType": "application/x", "digest": str(Digest.of(b"x")), "size": 1}
CONFIG = BLOB | {"mediaType": mediatypes.OCI_CONFIG}
MANIFEST = {"schemaVersion": 2, "mediaType": mediatypes.OCI_MANIFEST, "config": CONFIG, "layers": [BLOB, BLOB]}
INDEX = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": [BLOB]}
SCHEMA1 = {"schemaVersion": 1, "name": "library/x", "tag": "latest", "fsLayers": [], "signatures": []}


def parse(document: object, media_type: str | None = None, *, trusted: bool = False) -> Manifest | Index:
    """Parse a document given as values."""
    return parse_document(json.dumps(document).encode(), media_type=media_type, trusted=trusted)


def without(document: dict[str, object], key: str) -> dict[str, object]:
    """The document less one key."""
    return {k: v for k, v in document.items() if k != key}


def test_a_manifest_is_read_whole() -> None:
    """Config, layers in order, artifact type, annotations and subject all arrive; unknown fields are ignored."""
    extra = {"artifactType": "application/y", "annotations": {"a": "b"}, "subject": BLOB, "future": [1]}
    read = parse(MANIFEST | extra)
    assert isinstance(read, Manifest)
    assert (read.media_type, read.artifact_type) == (mediatypes.OCI_MANIFEST, "application/y")
    assert read.config.media_type == mediatypes.OCI_CONFIG
    assert [layer.size for layer in read.layers] == [1, 1]
    assert dict(read.annotations) == {"a": "b"}
    assert read.subject is not None


def test_an_index_is_read_whole() -> None:
    """Entries, artifact type and annotations of an index arrive."""
    read = parse(INDEX | {"artifactType": "application/y", "annotations": {"a": "b"}})
    assert isinstance(read, Index)
    assert (read.media_type, read.artifact_type, len(read.manifests), dict(read.annotations)) == (
        mediatypes.OCI_INDEX,
        "application/y",
        1,
        {"a": "b"},
    )


def test_go_writes_no_layers_as_null() -> None:
    """A null list is an empty one."""
    read = parse(MANIFEST | {"layers": None})
    assert isinstance(read, Manifest)
    assert read.layers == ()


@pytest.mark.parametrize(
    ("document", "media_type", "trusted", "expected"),
    [
        (MANIFEST, None, False, mediatypes.OCI_MANIFEST),
        (MANIFEST, mediatypes.OCI_MANIFEST, False, mediatypes.OCI_MANIFEST),
        (MANIFEST, f"{mediatypes.OCI_MANIFEST}; charset=utf-8", False, mediatypes.OCI_MANIFEST),
        (MANIFEST, "application/octet-stream", False, mediatypes.OCI_MANIFEST),
        (MANIFEST, mediatypes.DOCKER_MANIFEST, True, mediatypes.DOCKER_MANIFEST),
        (without(MANIFEST, "mediaType"), mediatypes.DOCKER_MANIFEST, False, mediatypes.DOCKER_MANIFEST),
        (without(MANIFEST, "mediaType"), None, False, mediatypes.OCI_MANIFEST),
        (without(INDEX, "mediaType"), None, False, mediatypes.OCI_INDEX),
        (without(INDEX, "mediaType"), "text/plain", True, mediatypes.OCI_INDEX),
        (INDEX, mediatypes.DOCKER_INDEX, True, mediatypes.DOCKER_INDEX),
    ],
)
def test_the_type_is_settled(document: object, media_type: str | None, trusted: bool, expected: str) -> None:  # noqa: FBT001 - a table
    """The descriptor's type wins when its digest vouches for the body; otherwise body and Content-Type have to agree or be silent."""
    assert parse(document, media_type, trusted=trusted).media_type == expected


@pytest.mark.parametrize(
    ("document", "media_type", "trusted", "error", "why"),
    [
        (MANIFEST, mediatypes.DOCKER_MANIFEST, False, InvalidRequestError, "read in two ways"),
        (MANIFEST, mediatypes.OCI_INDEX, False, InvalidRequestError, "read in two ways"),
        (MANIFEST, mediatypes.OCI_INDEX, True, InvalidRequestError, "not what its type"),
        (INDEX, mediatypes.OCI_MANIFEST, True, InvalidRequestError, "not what its type"),
        (MANIFEST | {"manifests": [BLOB]}, None, False, InvalidRequestError, "both a manifest"),
        (INDEX | {"layers": []}, mediatypes.OCI_INDEX, True, InvalidRequestError, "both a manifest"),
        (INDEX | {"config": CONFIG}, None, False, InvalidRequestError, "both a manifest"),
        (MANIFEST | {"mediaType": 7}, None, False, InvalidRequestError, "mediaType of the manifest"),
        (MANIFEST | {"artifactType": 7}, None, False, InvalidRequestError, "artifactType of the manifest"),
        (MANIFEST | {"schemaVersion": 3}, None, False, InvalidRequestError, "schemaVersion is 3"),
        (MANIFEST | {"schemaVersion": 2.0}, None, False, InvalidRequestError, "schemaVersion"),
        (without(MANIFEST, "schemaVersion"), None, False, InvalidRequestError, "schemaVersion is None"),
        (without(MANIFEST, "config"), None, False, InvalidRequestError, "no config"),
        (without(MANIFEST, "layers"), None, False, InvalidRequestError, "layers of the manifest is not a list"),
        (MANIFEST | {"layers": {}}, None, False, InvalidRequestError, "layers of the manifest is not a list"),
        (MANIFEST | {"layers": [BLOB, None]}, None, False, InvalidRequestError, r"layers\[1\]"),
        (MANIFEST | {"layers": [BLOB] * (MAX_ENTRIES + 1)}, None, False, InvalidRequestError, "10001 layers; at most 10000"),
        (MANIFEST | {"annotations": {"a": 1}}, None, False, InvalidRequestError, "annotations"),
        (MANIFEST | {"subject": {}}, None, False, InvalidRequestError, "subject"),
        (INDEX | {"manifests": [1]}, None, False, InvalidRequestError, r"manifests\[0\]"),
        (MANIFEST | {"mediaType": "application/vnd.acme+json"}, None, False, UnsupportedError, "acme"),
        (without(MANIFEST, "mediaType"), "text/html", False, UnsupportedError, "text/html"),
        (SCHEMA1, None, False, UnsupportedError, "schema 1"),
        (without(MANIFEST, "mediaType"), "application/vnd.docker.distribution.manifest.v1+prettyjws", True, UnsupportedError, "schema 1"),
        (MANIFEST | {"fsLayers": []}, None, False, UnsupportedError, "schema 1"),
        ({"mediaType": mediatypes.OCI_ARTIFACT_MANIFEST, "blobs": []}, None, False, UnsupportedError, "OCI artifact manifest"),
    ],
)
def test_ambiguous_and_malformed_manifests_are_refused(
    document: object,
    media_type: str | None,
    trusted: bool,  # noqa: FBT001 - a table
    error: type[CsiModelError],
    why: str,
) -> None:
    """Whatever could be read in two ways, or in none, is refused with its reason."""
    with pytest.raises(error, match=why):
        parse(document, media_type, trusted=trusted)


def test_the_most_layers_are_read() -> None:
    """Ten thousand layers are still a manifest."""
    read = parse(MANIFEST | {"layers": [BLOB] * MAX_ENTRIES})
    assert isinstance(read, Manifest)
    assert len(read.layers) == MAX_ENTRIES
