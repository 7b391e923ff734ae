"""csi_model.oci.mediatypes."""

from __future__ import annotations

import pytest

from csi_model.oci import mediatypes


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (mediatypes.OCI_MANIFEST, mediatypes.OCI_MANIFEST),
        (f"{mediatypes.DOCKER_INDEX}; charset=utf-8", mediatypes.DOCKER_INDEX),
        (" Application/Vnd.OCI.Image.Index.v1+JSON ", mediatypes.OCI_INDEX),
        (None, None),
        ("", None),
        ("application/json; charset=utf-8", None),
        ("application/octet-stream", None),
        ("text/plain", None),
    ],
)
def test_the_essence_of_a_media_type(given: str | None, expected: str | None) -> None:
    """Parameters and case do not matter, and a file server's catch-all types say nothing."""
    assert mediatypes.essence(given) == expected


def test_everything_that_is_asked_for_is_read() -> None:
    """The Accept list is exactly the manifests and indexes that we parse."""
    assert set(mediatypes.ACCEPT) == mediatypes.MANIFESTS | mediatypes.INDEXES
