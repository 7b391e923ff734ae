"""csi_model.formats.oras, as classified."""

from __future__ import annotations

import pytest

from csi_model.errors import InvalidRequestError, UnsupportedError
from csi_model.formats.classify import needs_config, place
from csi_model.formats.placement import Compression, FilePlacement, TarPlacement
from csi_model.oci import mediatypes
from csi_model.oci.digest import Digest
from tests.formats.manifests import OCI_TAR, blob, manifest

UNPACK = {"io.deis.oras.content.unpack": "true"}
UNKNOWN = "application/vnd.unknown.artifact.v1"


@pytest.mark.parametrize(
    "media_type", [OCI_TAR, f"{OCI_TAR}+gzip", "application/octet-stream", "application/vnd.acme.weights", "application/gzip"]
)
def test_a_titled_layer_is_its_file_whatever_its_type(media_type: str) -> None:
    """A plain file is shown byte for byte: its default media type is an image layer's, and it may well be a real archive."""
    artifact = manifest(blob(media_type, b"x", title="dir/model.bin"), artifact_type=UNKNOWN)
    assert not needs_config(artifact)
    layout = place(artifact, None)
    assert (layout.format, layout.placements) == ("ORAS artifact", (FilePlacement(artifact.layers[0], "dir/model.bin"),))


def test_an_unpacked_layer_is_a_directory() -> None:
    """With the unpack annotation the layer is a compressed tar whose names begin with the title, checked against its tar's digest."""
    digest = Digest.of(b"tar")
    artifact = manifest(
        blob(f"{OCI_TAR}+gzip", b"x", title="a/b", **UNPACK, **{"io.deis.oras.content.digest": str(digest)}),
        artifact_type=UNKNOWN,
    )
    assert place(artifact, None).placements == (TarPlacement(artifact.layers[0], Compression.DETECT, digest, prefix="a/b", strip="a/b"),)


def test_the_working_directory_unpacks_to_the_root() -> None:
    """Pushing "." gives a tar whose names are relative to the root."""
    artifact = manifest(blob(f"{OCI_TAR}+gzip", b"x", title=".", **UNPACK))
    assert place(artifact, None).placements == (TarPlacement(artifact.layers[0], Compression.DETECT),)


def test_unpack_has_to_be_true() -> None:
    """Only the value that oras writes unpacks."""
    artifact = manifest(blob(OCI_TAR, b"x", title="x.tar", **{"io.deis.oras.content.unpack": "false"}))
    assert place(artifact, None).placements == (FilePlacement(artifact.layers[0], "x.tar"),)


def test_old_oras_borrowed_the_image_config() -> None:
    """An empty config of the image config's type, or an unpack annotation under one, does not make files an image."""
    titled = blob(OCI_TAR, b"x", title="model.bin")
    directory = blob(f"{OCI_TAR}+gzip", b"y", title="dir", **UNPACK)
    for artifact in (
        manifest(titled, config=mediatypes.OCI_CONFIG),
        manifest(titled, directory, config=mediatypes.OCI_CONFIG, config_body=b'{"a": 1}'),
    ):
        assert not needs_config(artifact)
        assert place(artifact, None).format == "ORAS artifact"


def test_files_under_a_real_image_config_are_files() -> None:
    """One layer that is no image layer makes the whole an artifact."""
    artifact = manifest(blob("text/plain", b"x", title="x"), config=mediatypes.OCI_CONFIG, config_body=b'{"a": 1}')
    assert place(artifact, None).placements == (FilePlacement(artifact.layers[0], "x"),)


def test_untitled_layers_are_left_out() -> None:
    """A layer without a title is not shown, as oras pull does not write it; the others keep their order."""
    artifact = manifest(blob("a/b", b"1", title="one"), blob("a/b", b"2"), blob("a/b", b"3", title=""), blob("a/b", b"4", title="four"))
    assert [p.path for p in place(artifact, None).placements if isinstance(p, FilePlacement)] == ["one", "four"]


@pytest.mark.parametrize(
    ("artifact_type", "config", "named"),
    [(UNKNOWN, mediatypes.OCI_EMPTY, UNKNOWN), (None, "application/vnd.acme.rocket.config.v1+json", "acme.rocket")],
)
def test_an_artifact_without_titles_is_refused_by_its_type(artifact_type: str | None, config: str, named: str) -> None:
    """When no layer has a title, the message gives the artifact's type and says what would do."""
    with pytest.raises(UnsupportedError, match=rf"{named}.*csi-model mounts"):
        place(manifest(blob("a/b", b"x"), config=config, artifact_type=artifact_type), None)


@pytest.mark.parametrize(
    "title",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a/..",
        ".",
        "..",
        "./x",
        "a//b",
        "a/",
        "a\\..\\b",
        "C:\\x",
        "a\x00b",
        "a\nb",
        "\x7f",
        "n" * 256,
        "é" * 128,
        "a/" * 2048 + "a",
    ],
)
@pytest.mark.parametrize("annotations", [{}, UNPACK])
def test_unsafe_titles_are_refused(title: str, annotations: dict[str, str]) -> None:
    """A title is a relative path of plain names, whether it names a file or a directory."""
    if title == "." and annotations:
        return  # a directory's "." is the root: see above
    with pytest.raises(InvalidRequestError, match=r"title of layers\[0\]"):
        place(manifest(blob("a/b", b"x", title=title, **annotations)), None)


@pytest.mark.parametrize(
    "title", ["x", "a/b/c", "..x", "x..", "a b", "naïve", "名前", "é" * 127, "/".join(["n" * 255] * 16), ".hidden", ".wh.x", "a:b"]
)
def test_plain_titles_are_accepted(title: str) -> None:
    """Any name that Linux can hold and that stays where it is put is kept as it is."""
    artifact = manifest(blob("a/b", b"x", title=title))
    assert place(artifact, None).placements == (FilePlacement(artifact.layers[0], title),)


def test_a_malformed_tar_digest_is_refused() -> None:
    """What the tar must hash to is a digest, or the artifact is broken."""
    with pytest.raises(InvalidRequestError):
        place(manifest(blob(OCI_TAR, b"x", title="a", **UNPACK, **{"io.deis.oras.content.digest": "x"})), None)
