"""csi_model.oci.imageconfig."""

from __future__ import annotations

import json

import pytest

from csi_model.errors import InvalidRequestError
from csi_model.oci.digest import Digest
from csi_model.oci.imageconfig import ImageConfig
from csi_model.oci.platform import Platform

ONE = Digest.of(b"1")


def parse(config: object) -> ImageConfig:
    """Parse a config given as values."""
    return ImageConfig.parse(json.dumps(config).encode())


def test_platform_and_diff_ids_are_read() -> None:
    """An image config gives the platform and the diff ids; what the image would run is ignored."""
    config = {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": [str(ONE)]}}
    assert parse(config) == ImageConfig(Platform("linux", "amd64"), (ONE,))


@pytest.mark.parametrize("diff_ids", [[], None])
def test_an_image_may_have_no_layers(diff_ids: object) -> None:
    """Go writes an empty list as null; both are no diff ids."""
    assert parse({"rootfs": {"type": "layers", "diff_ids": diff_ids}}).diff_ids == ()


@pytest.mark.parametrize("config", [{}, {"rootfs": None}])
def test_a_config_without_rootfs_is_told_apart(config: object) -> None:
    """No rootfs is not the same as a rootfs with no layers."""
    assert parse(config) == ImageConfig(None, None)


@pytest.mark.parametrize(
    "rootfs",
    [[], {"type": "rootfs", "diff_ids": []}, {"diff_ids": []}, {"type": "layers", "diff_ids": "x"}, {"type": "layers", "diff_ids": ["x"]}],
)
def test_a_malformed_rootfs_is_refused(rootfs: object) -> None:
    """A rootfs is of type layers and lists digests."""
    with pytest.raises(InvalidRequestError):
        parse({"rootfs": rootfs})
