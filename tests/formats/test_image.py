"""csi_model.formats.image, as classified."""

from __future__ import annotations

import json

import pytest

from csi_model.errors import InvalidRequestError
from csi_model.formats.classify import needs_config, place
from csi_model.formats.placement import Compression, TarPlacement
from csi_model.oci import mediatypes
from csi_model.oci.digest import Digest
from tests.formats.manifests import DOCKER_TAR, OCI_TAR, blob, image_config, manifest

DIFF_ID = Digest.of(b"tar")
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"


@pytest.mark.parametrize(
    ("media_type", "compression"),
    [
        (OCI_TAR, Compression.NONE),
        (f"{OCI_TAR}+gzip", Compression.GZIP),
        (f"{OCI_TAR}+zstd", Compression.ZSTD),
        (NONDISTRIBUTABLE, Compression.NONE),
        (f"{NONDISTRIBUTABLE}+gzip", Compression.GZIP),
        (f"{NONDISTRIBUTABLE}+zstd", Compression.ZSTD),
        (DOCKER_TAR, Compression.DETECT),
        (f"{DOCKER_TAR}.gzip", Compression.GZIP),
        (f"{DOCKER_TAR}.zstd", Compression.ZSTD),
        (FOREIGN, Compression.DETECT),
        (f"{FOREIGN}.gzip", Compression.GZIP),
    ],
)
def test_every_image_layer_is_a_tar_with_whiteouts(media_type: str, compression: Compression) -> None:
    """Each image layer type is decoded as it says, checked against its diff id, and may delete from lower layers."""
    content = b"tar" if compression is Compression.NONE else b"blob"
    image = manifest(blob(media_type, content), config=mediatypes.OCI_CONFIG, config_body=b"config")
    assert needs_config(image)
    layout = place(image, image_config(DIFF_ID))
    assert layout.placements == (TarPlacement(image.layers[0], compression, DIFF_ID, whiteouts=True),)


@pytest.mark.parametrize(("config", "name"), [(mediatypes.OCI_CONFIG, "OCI image"), (mediatypes.DOCKER_CONFIG, "Docker image")])
def test_images_are_named(config: str, name: str) -> None:
    """People are told whether it is OCI's or Docker's."""
    image = manifest(blob(f"{OCI_TAR}+gzip", b"blob"), config=config, config_body=b"config")
    assert place(image, image_config(DIFF_ID)).format == name


def test_layers_keep_their_order() -> None:
    """The lowest layer comes first, each with its own diff id."""
    image = manifest(blob(f"{OCI_TAR}+gzip", b"1"), blob(f"{OCI_TAR}+zstd", b"2"), config=mediatypes.OCI_CONFIG, config_body=b"config")
    ids = (Digest.of(b"a"), Digest.of(b"b"))
    placements = place(image, image_config(*ids)).placements
    assert [placement.layer for placement in placements] == list(image.layers)
    assert [placement.diff_id for placement in placements if isinstance(placement, TarPlacement)] == list(ids)


@pytest.mark.parametrize("diff_ids", [(), (DIFF_ID,), (DIFF_ID,) * 3])
def test_diff_ids_have_to_be_as_many_as_layers(diff_ids: tuple[Digest, ...]) -> None:
    """A config that lists other layers than the manifest is refused."""
    image = manifest(blob(f"{OCI_TAR}+gzip", b"1"), blob(f"{OCI_TAR}+gzip", b"2"), config=mediatypes.OCI_CONFIG, config_body=b"config")
    with pytest.raises(InvalidRequestError, match="2 layers, but its config lists"):
        place(image, image_config(*diff_ids))


def test_a_plain_layer_is_its_own_diff_id() -> None:
    """A config that gives an uncompressed layer another diff id than its digest is refused before anything is fetched."""
    image = manifest(blob(OCI_TAR, b"tar"), config=mediatypes.OCI_CONFIG, config_body=b"config")
    with pytest.raises(InvalidRequestError, match=r"layers\[0\] is not compressed"):
        place(image, image_config(Digest.of(b"other")))


def test_an_image_without_rootfs_is_unpacked_like_any() -> None:
    """Titled tar layers under a config of only os and architecture, as KEP 4639 pushes them with oras, merge into one directory."""
    config = json.dumps({"architecture": "amd64", "os": "linux"}).encode()
    image = manifest(
        blob(f"{OCI_TAR}+gzip", b"0", title="layer0.tar"),
        blob(f"{OCI_TAR}+gzip", b"1", title="layer1.tar"),
        config=mediatypes.OCI_CONFIG,
        config_body=config,
        artifact_type=mediatypes.OCI_CONFIG,
    )
    assert needs_config(image)
    assert place(image, config).placements == tuple(TarPlacement(layer, Compression.GZIP, None, whiteouts=True) for layer in image.layers)


def test_an_image_of_no_layers_is_empty() -> None:
    """An image from scratch with nothing in it is an empty directory."""
    assert place(manifest(config=mediatypes.OCI_CONFIG, config_body=b"config"), image_config()).placements == ()
