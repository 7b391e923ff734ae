"""Generated models: weights that compress as real bfloat16 weights do, in every packing that is compared, pushed to a registry."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import zstandard
from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Variant:
    """One packing of a model: how many layers its bytes are spread over and how each is encoded."""

    name: str
    layers: int
    encoding: str


VARIANTS = (
    Variant("tar", 6, "tar"),
    Variant("gzip", 6, "gzip"),
    Variant("zstd", 6, "zstd"),
    Variant("raw", 6, "raw"),
    Variant("163 layers", 163, "tar"),
)


def weights(size: int, seed: int) -> bytes:
    """``size`` bytes of normally distributed bfloat16 values."""
    values = np.random.default_rng(seed).standard_normal(size // 2 + 1, dtype=np.float32) * np.float32(0.02)
    return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()[:size]


def push(host: str, repository: str, variant: Variant, size: int) -> str:
    """Generate a model of ``size`` bytes and push it; returns its reference."""
    connection = http.client.HTTPConnection(host)
    layers, diff_ids = [], []
    for data, diff_id, described in _layers(variant, size // variant.layers):
        digest = _upload(connection, repository, data)
        layers.append({"digest": digest, "size": len(data), **described})
        diff_ids.append(diff_id)
    config = json.dumps(
        {} if variant.encoding == "raw" else {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    kind = "application/vnd.oci.empty.v1+json" if variant.encoding == "raw" else _CONFIG
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": kind, "digest": _upload(connection, repository, config), "size": len(config)},
        "layers": layers,
    }
    if variant.encoding == "raw":
        document["artifactType"] = "application/vnd.unknown.artifact.v1"
    connection.request("PUT", f"/v2/{repository}/manifests/v1", json.dumps(document), {"Content-Type": _MANIFEST})
    _expect(connection, 201)
    connection.close()
    return f"{host}/{repository}:v1"


def _layers(variant: Variant, size: int) -> Iterator[tuple[bytes, str, dict[str, object]]]:
    for number in range(variant.layers):
        name = f"model-{number:05}.safetensors"
        data = weights(size, seed=hash((variant.name, number)) & 0xFFFF)
        if variant.encoding == "raw":
            yield data, "", {"mediaType": "application/octet-stream", "annotations": {"org.opencontainers.image.title": name}}
            continue
        tar = _tar(f"models/{name}", data)
        diff_id = _digest(tar)
        if variant.encoding == "gzip":
            yield isal_zlib.compress(tar, 3, 31), diff_id, {"mediaType": f"{_LAYER}+gzip"}
        elif variant.encoding == "zstd":
            yield zstandard.ZstdCompressor(level=3).compress(tar), diff_id, {"mediaType": f"{_LAYER}+zstd"}
        else:
            yield tar, diff_id, {"mediaType": _LAYER}


def _tar(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _upload(connection: http.client.HTTPConnection, repository: str, data: bytes) -> str:
    digest = _digest(data)
    connection.request("POST", f"/v2/{repository}/blobs/uploads/")
    location = _expect(connection, 202)
    separator = "&" if "?" in location else "?"
    connection.request("PUT", f"{location}{separator}digest={digest}", data, {"Content-Type": "application/octet-stream"})
    _expect(connection, 201)
    return digest


def _expect(connection: http.client.HTTPConnection, status: int) -> str:
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != status:
        msg = f"the registry answered {answer.status}: {body[:300]!r}"
        raise RuntimeError(msg)
    return answer.getheader("Location", "")
