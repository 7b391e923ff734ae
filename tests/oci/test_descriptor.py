"""csi_model.oci.descriptor."""

from __future__ import annotations

import pytest

from csi_model.errors import InvalidRequestError
from csi_model.oci.descriptor import Descriptor, parse_annotations
from csi_model.oci.digest import Digest
from csi_model.oci.platform import Platform

DIGEST = Digest.of(b"x")
PLAIN = {"mediaType": "application/x", "digest": str(DIGEST), "size": 1}


def test_every_field_is_read() -> None:
    """A descriptor with all its optional fields keeps each of them, and ignores fields that nobody specified."""
    value = PLAIN | {
        "annotations": {"a": "b"},
        "artifactType": "application/y",
        "platform": {"os": "linux", "architecture": "arm64"},
        "data": "e30=",
        "name": "model.layers.0",
        "urls": ["https://elsewhere.example/x"],
        "from": "something",
    }
    read = Descriptor.parse(value, "layers[0]")
    assert (read.media_type, read.digest, read.size) == ("application/x", DIGEST, 1)
    assert dict(read.annotations) == {"a": "b"}
    assert read.artifact_type == "application/y"
    assert read.platform == Platform("linux", "arm64")
    assert (read.data, read.name) == (b"{}", "model.layers.0")


def test_a_plain_descriptor_is_a_value() -> None:
    """Equal descriptors are equal keys, and annotations cannot be changed afterwards."""
    one, two = Descriptor.parse(PLAIN, "a"), Descriptor.parse(PLAIN | {"annotations": {}}, "b")
    assert one == two
    assert len({one, two}) == 1
    with pytest.raises(TypeError):
        one.annotations["x"] = "y"  # type: ignore[index]


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": 2**63},
        {"size": 1.0},
        {"size": "1"},
        {"size": True},
        {"size": None},
        {"digest": None},
        {"digest": "sha256:abc"},
        {"mediaType": ""},
        {"mediaType": None},
        {"mediaType": 7},
        {"artifactType": 7},
        {"name": []},
        {"data": 7},
        {"data": "e30"},
        {"data": "e3*0="},
        {"data": "e30=é"},
        {"annotations": {"a": 1}},
        {"annotations": []},
        {"platform": "linux/amd64"},
        {"platform": {"os": 7}},
    ],
)
def test_a_wrong_field_is_refused_by_the_descriptors_place(change: dict[str, object]) -> None:
    """A field of the wrong type or range is refused, and the message says in which descriptor."""
    with pytest.raises(InvalidRequestError, match=r"layers\[3\]"):
        Descriptor.parse(PLAIN | change, "layers[3]")


@pytest.mark.parametrize("value", [None, [], "x", 7])
def test_what_is_no_object_is_no_descriptor(value: object) -> None:
    """A descriptor is a JSON object."""
    with pytest.raises(InvalidRequestError, match="config is not a descriptor"):
        Descriptor.parse(value, "config")


def test_missing_annotations_are_none_at_all() -> None:
    """No annotations and empty annotations are the same."""
    assert parse_annotations(None, "it") == parse_annotations({}, "it") == {}
