"""csi_model.oci.layouturl."""

from __future__ import annotations

import pytest

from csi_model.errors import InvalidRequestError
from csi_model.oci.layouturl import LayoutLocation


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/srv/models",
        "oci-layout:/srv/models",
        "oci-layout+://bucket/x",
        "oci-layout+S3://bucket/x",
        "oci-layout://host/x",
        "oci-layout+file://host/x",
        "oci-layout:///a//b",
        "oci-layout:////a",
        "oci-layout:///a/./b",
        "oci-layout:///a/..",
        "oci-layout:///a/b//",
        "oci-layout:///a\\..\\b",
        "oci-layout+https://host/a/%2e%2e/b",
        "oci-layout+https://host/a%2fb",
        "oci-layout+https://host/a?b",
        "oci-layout+https://host/a#b",
        "oci-layout+https://user@host/a",
        "oci-layout+https://user:pass@host/a",
        "oci-layout+https://host:port/a",
        "oci-layout+https://[::1]/a",
        "oci-layout:///a\nb",
        "oci-layout:///a\x00b",
    ],
)
def test_a_location_that_could_be_spelled_in_another_way_is_refused(text: str) -> None:
    """No location has two spellings, so that none slips past a prefix."""
    with pytest.raises(InvalidRequestError):
        LayoutLocation.parse(text)


@pytest.mark.parametrize("text", ["oci-layout:///", "oci-layout:///srv/x", "oci-layout+s3://bucket/", "oci-layout+http://h:80/a/b"])
def test_locations_survive_text(text: str) -> None:
    """A location parses from its own text."""
    location = LayoutLocation.parse(text)
    assert str(location) == text
    assert LayoutLocation.parse(str(location)) == location
