"""Generated models, written straight into the storage folder of a docker-registry.

Weights are normally distributed bfloat16 numbers, whose high bytes compress and whose low bytes do not, as those of real models.
Everything comes from fixed seeds, so a rerun makes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SHARDS = 8
"""Files of a model, and layers of its images."""
MANY = 163
"""Layers of the image that has many."""
RAW, TAR, GZIP, ZSTD, MANY_TARS = "raw", "tar", "gzip", "zstd", "163-layers"
TLS = "tar over TLS"
"""The image that TAR is, from a registry and a file server that speak TLS."""
VARIANTS = (TAR, MANY_TARS, GZIP, ZSTD, RAW, TLS)

_BLOCK = 16 << 20
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MODELPACK = "application/vnd.cncf.model"
_LAYER_TYPES = {
    RAW: f"{_MODELPACK}.weight.v1.raw",
    TAR: _OCI_LAYER,
    MANY_TARS: _OCI_LAYER,
    GZIP: f"{_OCI_LAYER}+gzip",
    ZSTD: f"{_OCI_LAYER}+zstd",
}


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer in the registry: of the file ``name``, ``bytes`` long, ``diff_id`` uncompressed."""

    digest: str
    bytes: int
    diff_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model in the registry. ``weights`` are the bytes of its files, ``reference`` lacks the host."""

    variant: str
    reference: str
    weights: int
    blobs: tuple[Blob, ...]

    @property
    def bytes(self) -> int:
        """What travels."""
        return sum(blob.bytes for blob in self.blobs)


class RegistryFolder:
    """The storage of a docker-registry (its "filesystem" driver), filled without the registry."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "data" / "docker" / "registry" / "v2"
        self.root.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where a blob's bytes are."""
        encoded = digest.partition(":")[2]
        return self.root / "blobs" / "sha256" / encoded[:2] / encoded / "data"

    def adopt(self, repository: str, file: Path, digest: str) -> None:
        """Move a finished file in as a blob of ``repository``."""
        place = self.path(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(place)
        self._link(f"repositories/{repository}/_layers/sha256/{digest[7:]}", digest)

    def add(self, repository: str, data: bytes) -> str:
        """Write a small blob."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        place = self.root / f"incoming-{digest[7:]}"
        place.write_bytes(data)
        self.adopt(repository, place, digest)
        return digest

    def tag(self, repository: str, manifest: dict[str, object], tag: str) -> None:
        """Add a manifest and point a tag to it."""
        digest = self.add(repository, json.dumps(manifest).encode())
        home = f"repositories/{repository}/_manifests"
        self._link(f"{home}/revisions/sha256/{digest[7:]}", digest)
        self._link(f"{home}/tags/{tag}/current", digest)
        self._link(f"{home}/tags/{tag}/index/sha256/{digest[7:]}", digest)

    def _link(self, folder: str, digest: str) -> None:
        place = self.root / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / "link").write_text(digest)


def generate(registry: RegistryFolder, variant: str, size: int, *, name: str | None = None, seed: int = 0, layers: int = SHARDS) -> Model:
    """One variant of a model of about ``size`` bytes, made two layers at a time; what is there already is taken as it is.

    Made in a process of its own, so that its memory goes with it.
    """
    repository = f"bench/{name or variant}-{size >> 20}m"
    known = registry.root / f"{repository.replace('/', '-')}.json"
    if not known.exists():
        began = time.monotonic()
        arguments = [registry.root, repository, variant, size, seed, MANY if variant == MANY_TARS else layers, known]
        subprocess.run([sys.executable, "-m", "benchmarks.generate", *map(str, arguments)], check=True)
        print(f"generated {repository} in {time.monotonic() - began:.0f} s", flush=True)
    saved = json.loads(known.read_text())
    return Model(variant, f"{repository}:v1", saved["weights"], tuple(Blob(**blob) for blob in saved["blobs"]))


def _make(root: str, repository: str, variant: str, size: str, seed: str, layers: str, known: str) -> None:
    registry = RegistryFolder(Path(root).parents[3])
    each = int(size) // int(layers) // 4096 * 4096
    with ProcessPoolExecutor(2) as pool:
        jobs = [pool.submit(make_layer, registry, repository, variant, each, int(seed) + n, n) for n in range(int(layers))]
        made = [job.result() for job in jobs]
    registry.tag(repository, _manifest(registry, repository, variant, made), "v1")
    Path(known).write_text(json.dumps({"weights": each * int(layers), "blobs": [asdict(blob) for blob in made]}))


def make_layer(registry: RegistryFolder, repository: str, variant: str, size: int, seed: int, number: int) -> Blob:
    """Write one layer holding one file of weights into the registry."""
    file = f"model-{number + 1:05}.safetensors"
    partial = registry.root / f"incoming-{repository.replace('/', '-')}-{number}"
    blob, plain = hashlib.sha256(), hashlib.sha256()
    encode, finish = _encoder(variant)
    length = 0
    with partial.open("wb") as output:
        for block in _contents(variant, file, size, seed):
            plain.update(block)
            packed = encode(block)
            blob.update(packed)
            length += output.write(packed)
        packed = finish()
        blob.update(packed)
        length += output.write(packed)
    digest = f"sha256:{blob.hexdigest()}"
    registry.adopt(repository, partial, digest)
    return Blob(digest, length, f"sha256:{plain.hexdigest()}", file)


def weights(size: int, seed: int) -> Iterator[bytes]:
    """``size`` bytes of bfloat16 weights."""
    import numpy as np  # here, so that the process that measures does not carry it

    random = np.random.default_rng(seed)
    for start in range(0, size, _BLOCK):
        count = min(_BLOCK, size - start) // 2
        numbers = random.standard_normal(count, dtype=np.float32) * np.float32(0.02)
        yield (numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes()


def _contents(variant: str, name: str, size: int, seed: int) -> Iterator[bytes]:
    if variant == RAW:
        yield from weights(size, seed)
        return
    entry = tarfile.TarInfo(f"models/{name}")
    entry.size, entry.mode, entry.mtime = size, 0o644, 1_700_000_000
    yield entry.tobuf(tarfile.PAX_FORMAT)
    yield from weights(size, seed)
    yield bytes(-size % 512 + 1024)


def _encoder(variant: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if variant == GZIP:
        gzip = zlib.compressobj(6, wbits=31)
        return gzip.compress, gzip.flush
    if variant == ZSTD:
        zstd = zstandard.ZstdCompressor(level=3).compressobj()
        return zstd.compress, zstd.flush
    return lambda block: block, lambda: b""


def _manifest(registry: RegistryFolder, repository: str, variant: str, blobs: Sequence[Blob]) -> dict[str, object]:
    diff_ids = [blob.diff_id for blob in blobs]
    if variant == RAW:
        config_type = f"{_MODELPACK}.config.v1+json"
        config: dict[str, object] = {
            "descriptor": {"name": repository, "version": "v1"},
            "modelfs": {"type": "layers", "diffIds": diff_ids},
            "config": {"format": "safetensors"},
        }
    else:
        config_type = "application/vnd.oci.image.config.v1+json"
        config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    body = json.dumps(config).encode()
    layers: list[dict[str, object]] = [{"mediaType": _LAYER_TYPES[variant], "digest": blob.digest, "size": blob.bytes} for blob in blobs]
    if variant == RAW:
        layers = [{**layer, "annotations": {"org.cncf.model.filepath": blob.name}} for layer, blob in zip(layers, blobs, strict=True)]
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        **({"artifactType": f"{_MODELPACK}.manifest.v1+json"} if variant == RAW else {}),
        "config": {"mediaType": config_type, "digest": registry.add(repository, body), "size": len(body)},
        "layers": layers,
    }


if __name__ == "__main__":
    _make(*sys.argv[1:])
