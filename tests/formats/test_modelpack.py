"""csi_model.formats.modelpack, as classified."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import InvalidRequestError, UnsupportedError
from csi_model.formats.classify import needs_config, place
from csi_model.formats.placement import Compression, FilePlacement, TarPlacement
from csi_model.oci import mediatypes
from csi_model.oci.digest import Digest
from tests.formats.manifests import CNAI, CNCF, OCI_TAR, TITLE, blob, manifest, model_config

if TYPE_CHECKING:
    from csi_model.oci.manifest import Manifest

KINDS = ["weight", "weight.config", "doc", "code", "dataset"]
TARS = {"tar": Compression.NONE, "tar+gzip": Compression.GZIP, "tar+zstd": Compression.ZSTD}
METADATA = "file.metadata+json"


def model(*layers: dict[str, object], vendor: str = CNCF) -> Manifest:
    """A ModelPack artifact of these layers."""
    return manifest(*layers, config=f"{vendor}config.v1+json", config_body=b"config", artifact_type=f"{vendor}manifest.v1+json")


@pytest.mark.parametrize("vendor", [CNCF, CNAI])
@pytest.mark.parametrize("kind", KINDS)
def test_a_raw_layer_is_its_file(vendor: str, kind: str) -> None:
    """A raw layer of any kind lands at its path annotation, in today's and yesterday's names."""
    key = "filepath" if vendor == CNCF else "org.cnai.model.filepath"
    artifact = model(blob(f"{vendor}{kind}.v1.raw", b"x", **{key: "dir/model.safetensors"}), vendor=vendor)
    assert needs_config(artifact)
    layout = place(artifact, model_config(Digest.of(b"x")))
    assert (layout.format, layout.placements) == ("ModelPack", (FilePlacement(artifact.layers[0], "dir/model.safetensors"),))


@pytest.mark.parametrize("vendor", [CNCF, CNAI])
@pytest.mark.parametrize("encoding", TARS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tar_layer_is_unpacked_at_the_root(vendor: str, kind: str, encoding: str) -> None:
    """A tar layer's names are relative to the model's root: its path annotation moves nothing, and it deletes nothing."""
    content = b"tar" if encoding == "tar" else b"blob"
    artifact = model(blob(f"{vendor}{kind}.v1.{encoding}", content, filepath="dir/model"), vendor=vendor)
    diff_id = Digest.of(b"tar")
    assert place(artifact, model_config(diff_id)).placements == (TarPlacement(artifact.layers[0], TARS[encoding], diff_id),)


def test_one_blob_may_be_several_files() -> None:
    """Equal files are one digest under two paths."""
    artifact = model(blob(f"{CNCF}doc.v1.raw", b"x", filepath="a"), blob(f"{CNCF}doc.v1.raw", b"x", filepath="b"))
    placements = place(artifact, b"{}").placements
    assert [p.path for p in placements if isinstance(p, FilePlacement)] == ["a", "b"]


@pytest.mark.parametrize(
    "config", [b"{}", b'{"modelfs": 7}', b'{"modelfs": {"diffIds": 7}}', model_config(), model_config(*[Digest.of(b"")] * 2)]
)
def test_diff_ids_of_another_number_are_not_used(config: bytes) -> None:
    """Diff ids that cannot be matched to layers are left out; the blob's own digest still vouches for it."""
    artifact = model(blob(f"{CNCF}weight.v1.tar+gzip", b"blob"))
    assert place(artifact, config).placements == (TarPlacement(artifact.layers[0], Compression.GZIP, None),)


def test_a_copied_digest_is_no_diff_id() -> None:
    """A tool that copies a compressed layer's digest into diffIds knows no diff id, and its artifact still mounts."""
    artifact = model(blob(f"{CNCF}weight.v1.tar+gzip", b"blob"))
    assert place(artifact, model_config(Digest.of(b"blob"))).placements == (TarPlacement(artifact.layers[0], Compression.GZIP, None),)


@pytest.mark.parametrize("encoding", ["raw", "tar"])
def test_a_config_that_contradicts_the_manifest_is_refused(encoding: str) -> None:
    """An uncompressed layer's diff id is its digest, or somebody lies."""
    artifact = model(blob(f"{CNCF}weight.v1.{encoding}", b"x", filepath="x"))
    with pytest.raises(InvalidRequestError, match="is not compressed"):
        place(artifact, model_config(Digest.of(b"y")))


@pytest.mark.parametrize("config", [b"", b"[]", b'{"modelfs": {"diffIds": ["x"]}}'])
def test_a_malformed_config_is_refused(config: bytes) -> None:
    """The config is strict JSON and its diff ids are digests."""
    with pytest.raises(InvalidRequestError):
        place(model(blob(f"{CNCF}weight.v1.tar", b"x")), config)


def test_a_raw_layer_without_a_path_is_refused() -> None:
    """A file without a name cannot be placed, and the message says which annotation it lacks."""
    with pytest.raises(InvalidRequestError, match=r"layers\[0\].*org.cncf.model.filepath"):
        place(model(blob(f"{CNCF}weight.v1.raw", b"x")), b"{}")


@pytest.mark.parametrize("encoding", ["zip", "tar+bzip2", "tar+encrypted", "raw+gzip"])
def test_an_encoding_that_the_specification_lacks_is_refused(encoding: str) -> None:
    """An unknown ModelPack encoding is never shown as raw bytes."""
    with pytest.raises(UnsupportedError):
        place(model(blob(f"{CNCF}weight.v1.{encoding}", b"x", filepath="x")), b"{}")


def test_a_later_version_of_a_layer_type_is_refused() -> None:
    """What a v2 layer means is not guessed."""
    with pytest.raises(UnsupportedError, match=r"weight\.v2\.raw"):
        place(model(blob(f"{CNCF}weight.v2.raw", b"x", filepath="x")), b"{}")


@pytest.mark.parametrize("encoding", ["gguf", "safetensors"])
def test_layers_named_after_their_file_format_are_raw(encoding: str) -> None:
    """Docker Model Runner once wrote weight.v1.gguf for what is a raw layer."""
    artifact = model(blob(f"{CNCF}weight.v1.{encoding}", b"x", filepath="model.bin"))
    assert place(artifact, b"{}").placements == (FilePlacement(artifact.layers[0], "model.bin"),)


def test_ramalama_pushes_plain_files_under_modelpacks_name() -> None:
    """Under a ModelPack artifact type with an empty config, layers of any type are the files that their path annotation names."""
    artifact = manifest(
        blob("application/octet-stream", b"x", filepath="model.gguf", title="sha256-0123"),
        blob("text/plain", b"y", title="README.md"),
        artifact_type=f"{CNCF}manifest.v1+json",
    )
    assert not needs_config(artifact)
    placements = place(artifact, None).placements
    assert [p.path for p in placements if isinstance(p, FilePlacement)] == ["model.gguf", "README.md"]


def test_the_oldest_artifacts_say_tar_beside_an_image_type() -> None:
    """The first modctl wrote image configs and image layer types, with the model's type in the layer's artifactType."""
    artifact = manifest(
        blob(OCI_TAR, b"x", artifact_type=f"{CNAI}layer.v1.tar", **{"org.cnai.model.filepath": "dir/x"}),
        config=mediatypes.OCI_CONFIG,
        config_body=b"config",
        artifact_type=f"{CNAI}manifest.v1+json",
    )
    assert not needs_config(artifact)
    assert place(artifact, None).placements == (TarPlacement(artifact.layers[0], Compression.NONE, None),)


def test_the_config_type_alone_tells_a_modelpack() -> None:
    """Without an artifact type, or beside a foreign one, the config's type says what it is."""
    layer = blob(f"{CNCF}weight.v1.tar", b"x", title="x")
    for artifact_type in (None, "application/vnd.acme"):
        artifact = manifest(layer, config=f"{CNCF}config.v1+json", config_body=b"config", artifact_type=artifact_type)
        assert place(artifact, b"{}").format == "ModelPack"


@pytest.mark.parametrize(
    ("metadata", "mode"),
    [
        ({}, 0o444),
        ({"mode": 0o644}, 0o444),
        ({"mode": 0o755}, 0o555),
        ({"mode": 0o100}, 0o555),
        ({"mode": 0o4755}, 0o555),
        ({"mode": None}, 0o444),
        ({"mode": 420, "uid": 1000, "typeflag": 53, "name": "../x"}, 0o444),
    ],
)
@pytest.mark.parametrize("key", [f"org.cncf.model.{METADATA}", f"org.cnai.model.{METADATA}", "org.cnai.model.file.metadata"])
def test_only_the_executable_bit_is_taken_from_metadata(key: str, metadata: dict[str, object], mode: int) -> None:
    """Files are read-only, executable when any executable bit was set, and nothing else of the metadata is used."""
    artifact = model(blob(f"{CNCF}code.v1.raw", b"x", filepath="run", **{key: json.dumps(metadata)}))
    assert place(artifact, b"{}").placements == (FilePlacement(artifact.layers[0], "run", mode),)


@pytest.mark.parametrize("metadata", ["", "x", "[]", '{"mode": "0755"}', '{"mode": true}', '{"mode": 493.0}'])
def test_malformed_metadata_is_refused(metadata: str) -> None:
    """Metadata is an object whose mode is a number; an empty annotation says nothing."""
    artifact = model(blob(f"{CNCF}code.v1.raw", b"x", filepath="run", **{f"org.cncf.model.{METADATA}": metadata}))
    if metadata:
        with pytest.raises(InvalidRequestError, match="file metadata of layers"):
            place(artifact, b"{}")
    else:
        assert place(artifact, b"{}").placements == (FilePlacement(artifact.layers[0], "run"),)


def test_the_path_annotation_outranks_the_title() -> None:
    """Today's path annotation wins over the older one, and that over the title."""
    old = "org.cnai.model.filepath"
    for said, expected in [
        ({"filepath": "new", old: "old", TITLE: "title"}, "new"),
        ({old: "old", TITLE: "title"}, "old"),
        ({TITLE: "title"}, "title"),
    ]:
        artifact = model(blob(f"{CNCF}doc.v1.raw", b"x", **said))
        assert place(artifact, b"{}").placements == (FilePlacement(artifact.layers[0], expected),)
