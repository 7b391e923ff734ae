"""An image as one file: an OCI layout in a tar, as `ctr images import`, `skopeo` and `podman load` read it."""

from __future__ import annotations

import json
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pack(layout: Path, tag: str, file: Path) -> None:
    """Put a layout folder of one image into an archive, named where containerd (its own annotation) and others (OCI's) look for it."""
    index = json.loads((layout / "index.json").read_text())
    (entry,) = index["manifests"]
    entry["annotations"] = {"io.containerd.image.name": tag, "org.opencontainers.image.ref.name": tag}
    (layout / "index.json").write_text(json.dumps(index))
    with tarfile.open(file, "w") as archive:
        for path in sorted(layout.rglob("*")):
            archive.add(path, path.relative_to(layout), recursive=False)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The only image in the archive at ``path``."""

    path: Path

    def manifest(self) -> dict[str, Any]:
        """Its manifest."""
        with tarfile.open(self.path) as archive:
            (entry,) = _json(archive, "index.json")["manifests"]
            return _json(archive, _blob(entry["digest"]))

    def config(self) -> dict[str, Any]:
        """Its configuration: environment, entrypoint, labels."""
        with tarfile.open(self.path) as archive:
            return _json(archive, _blob(self.manifest()["config"]["digest"]))

    def layer_sizes(self) -> tuple[int, ...]:
        """Compressed bytes, as a registry keeps and a node fetches them."""
        return tuple(layer["size"] for layer in self.manifest()["layers"])

    def read(self, name: str) -> bytes:
        """The content of a file of the last layer."""
        with self._layer(self.manifest()["layers"][-1]["digest"]) as layer:
            return _read(layer, name)

    def unpack(self, root: Path) -> None:
        """Make the image's tree; our layers hold neither whiteouts nor devices, as each is one copy into an empty image."""
        for described in self.manifest()["layers"]:
            with self._layer(described["digest"]) as layer:
                layer.extraction_filter = _as_it_is
                layer.extractall(root)

    @contextmanager
    def _layer(self, digest: str) -> Iterator[tarfile.TarFile]:
        with tarfile.open(self.path) as archive, tarfile.open(fileobj=archive.extractfile(_blob(digest))) as layer:
            yield layer


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file: IO[bytes] | None = archive.extractfile(name)
    assert file is not None, f"{name} is no file"
    return file.read()


def _json(archive: tarfile.TarFile, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_read(archive, name))
    return document


def _as_it_is(member: tarfile.TarInfo, _path: str) -> tarfile.TarInfo:
    """An attribute rather than an argument of ``extractall``, which Python 3.11.2 of Debian 12 does not take yet."""
    return member
