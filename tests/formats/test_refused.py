"""csi_model.formats.refused, as classified."""

from __future__ import annotations

import pytest

from csi_model.errors import UnsupportedError
from csi_model.formats.classify import needs_config, place, refuse_index
from csi_model.oci import mediatypes
from csi_model.oci.manifest import Index, Manifest
from tests.formats.manifests import CNCF, OCI_TAR, blob, image_config, manifest

VND = "application/vnd."


def image(layer: str, **annotations: str) -> Manifest:
    """A titled layer under an image config."""
    return manifest(blob(layer, b"x", title="x", **annotations), config=mediatypes.DOCKER_CONFIG, config_body=b"config")


def artifact(kind: str, layer: str = "application/octet-stream") -> Manifest:
    """A titled layer in an artifact of a type."""
    return manifest(blob(layer, b"x", title="x"), artifact_type=kind)


def configured(kind: str, layer: str = "application/octet-stream") -> Manifest:
    """A titled layer under a config of a type."""
    return manifest(blob(layer, b"x", title="x"), config=kind, config_body=b"config")


REFUSED = [
    (image(f"{VND}ollama.image.model"), "an Ollama model, which is not supported yet"),
    (image(f"{VND}ollama.image.tensor; name=blk.0"), "an Ollama model"),
    (image("Application/VND.Ollama.image.model"), "an Ollama model"),
    (artifact(f"{VND}kitops.modelkit.manifest.v1+json"), "a KitOps ModelKit, which is not supported yet"),
    (configured(f"{VND}kitops.modelkit.config.v1+json", f"{VND}kitops.modelkit.model.v1.tar"), "a KitOps ModelKit"),
    (configured(f"{VND}jozu.model.config.v1+json"), "a KitOps ModelKit"),
    (configured(f"{VND}docker.ai.model.config.v0.1+json"), "a Docker Model Runner model, which is not supported yet"),
    (configured(f"{VND}docker.ai.model.config.v0.2+json", f"{VND}docker.ai.gguf.v3"), "a Docker Model Runner model"),
    (configured(f"{VND}cncf.helm.config.v1+json", f"{VND}cncf.helm.chart.content.v1.tar+gzip"), "a Helm chart"),
    (image(f"{VND}dev.cosign.simplesigning.v1+json"), "a cosign signature"),
    (artifact(f"{VND}dev.cosign.artifact.sig.v1+json"), "a cosign signature"),
    (artifact(f"{VND}dev.sigstore.bundle.v0.3+json"), "a Sigstore bundle"),
    (image(f"{VND}in-toto+json"), "an in-toto attestation"),
    (image(f"{VND}dsse.envelope.v1+json"), "an in-toto attestation"),
    (artifact("application/vnd.in-toto+json"), "an in-toto attestation"),
    (artifact(f"{VND}cncf.notary.signature", "application/jose+json"), "a Notation signature"),
    (configured(f"{VND}cncf.notary.signature", "application/cose"), "a Notation signature"),
    (artifact(f"{VND}amazon.soci.index.v1+json"), "a SOCI index"),
    (artifact(f"{VND}amazon.soci.index.v2+json"), "a SOCI index"),
    (image(f"{VND}oci.image.layer.nydus.blob.v1"), "a Nydus image"),
    (image(OCI_TAR, **{"containerd.io/snapshot/nydus-bootstrap": "true"}), "a Nydus image"),
    (image(f"{VND}erofs.layer.v1"), "an image with EROFS layers"),
    (image(f"{OCI_TAR}+gzip+encrypted"), "an encrypted image"),
    (artifact(f"{CNCF}manifest.v1+json", f"{CNCF}weight.v1.tar+encrypted"), "an encrypted image"),
    (configured(f"{VND}cncf.flux.config.v1+json", f"{VND}cncf.flux.content.v1.tar+gzip"), "a Flux artifact"),
    (configured(f"{VND}wasm.config.v0+json", "application/wasm"), "a WebAssembly module"),
    (image(f"{VND}module.wasm.content.layer.v1+wasm"), "a WebAssembly module"),
    (configured(f"{VND}docker.plugin.v1+json", f"{VND}docker.image.rootfs.diff.tar.gzip"), "a Docker plugin"),
]


@pytest.mark.parametrize(("of_format", "name"), REFUSED)
def test_known_formats_are_refused_by_name(of_format: Manifest, name: str) -> None:
    """A format that csi-model does not mount is named, with what it does mount, before its config is asked for."""
    for refuse in (needs_config, lambda refused: place(refused, image_config())):
        with pytest.raises(UnsupportedError, match=f"this is {name}.*; csi-model mounts OCI and Docker images, ModelPack"):
            refuse(of_format)


@pytest.mark.parametrize(
    ("artifact_type", "refused"),
    [
        (None, False),
        ("application/vnd.acme.platforms", False),
        (f"{CNCF}manifest.v1+json", False),
        (f"{VND}kitops.modelkit.index.v1+json", True),
        (f"{VND}amazon.soci.index.v1+json", True),
    ],
)
def test_an_index_of_a_refused_format_is_refused(artifact_type: str | None, refused: bool) -> None:  # noqa: FBT001 - a table
    """The entries of a ModelKit index differ by model, so choosing one by platform would be a guess."""
    index = Index(mediatypes.OCI_INDEX, artifact_type, ())
    if refused:
        with pytest.raises(UnsupportedError):
            refuse_index(index)
    else:
        refuse_index(index)
