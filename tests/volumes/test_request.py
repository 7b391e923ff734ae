from __future__ import annotations

import pytest

from csi_model.errors import InvalidRequestError
from csi_model.volumes.request import PullPolicy, VolumeRequest


def test_all_attributes_are_read() -> None:
    """Every attribute is parsed; globs are separated by commas or line ends."""
    request = VolumeRequest.parse(
        {
            "reference": "oci://registry.example/llm/tiny:v1",
            "pullPolicy": "Always",
            "path": "/models",
            "include": "*.json, a/**\n",
            "exclude": "b",
        }
    )
    assert str(request.reference) == "registry.example/llm/tiny:v1"
    assert request.pull_policy is PullPolicy.ALWAYS
    assert (request.selection.path, request.selection.include, request.selection.exclude) == ("models", ("*.json", "a/**"), ("b",))


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({}, "reference"),
        ({"reference": ""}, "reference"),
        ({"reference": "r.example/a", "insecure": "true"}, "'insecure'"),
        ({"reference": "r.example/a", "pullPolicy": "always"}, "IfNotPresent"),
        ({"reference": "r.example/a", "path": "../x"}, r"\.\."),
        ({"reference": "r.example/A"}, "capitals"),
    ],
)
def test_what_cannot_be_read_is_named(attributes: dict[str, str], named: str) -> None:
    """A missing, unknown or malformed attribute is refused by its name or with what was expected."""
    with pytest.raises(InvalidRequestError, match=named):
        VolumeRequest.parse(attributes)
