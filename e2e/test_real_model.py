"""A real model, packed by tools that are not ours in every way that models are packed, read and loaded from its mount."""

from __future__ import annotations

import hashlib
import json
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from e2e import packing
from e2e.conftest import halted_driver
from e2e.registry import running_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from e2e.driver import Driver
    from e2e.registry import Registry


class Shelf:
    """The real model in a registry and in a layout, each packing made when it is first asked for."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder = folder
        self.registry = registry
        self.model = packing.real_model()
        self._made: dict[str, Path] = {}

    def modelpack(self) -> str:
        return packing.push_modelpack(self.registry, "llm/modelpack", self.model)

    def oras(self) -> str:
        return packing.push_oras(self.registry, "llm/oras", self.model)

    def gzip(self) -> str:
        return packing.push_image(self.registry, "llm/gzip", self._once("gzip", lambda: packing.image_layout(self.model, self.folder)))

    def tar(self) -> str:
        self.gzip()
        return packing.push_image(self.registry, "llm/tar", self._plain())

    def zstd(self) -> str:
        self.gzip()
        return packing.push_image(
            self.registry, "llm/zstd", self._once("zstd", lambda: packing.zstd_compressed(self._plain(), self.folder))
        )

    def layout(self) -> str:
        return packing.copy_to_layout(self.modelpack(), self.folder / "layouts" / "minilm")

    def _plain(self) -> Path:
        return self._once("plain", lambda: packing.uncompressed(self._made["gzip"], self.folder))

    def _once(self, name: str, make: Callable[[], Path]) -> Path:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


def _seen(root: Path) -> dict[str, tuple[str, int, str]]:
    """What a tree holds: for each path its kind and permission bits, its hard links, and its bytes' digest or where it points."""
    seen = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
        seen[str(path.relative_to(root))] = (stat.filemode(status.st_mode), links, _held(path))
    return seen


def _held(path: Path) -> str:
    if path.is_symlink():
        return str(path.readlink())
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


@pytest.fixture(scope="module")
def shelf(module_folder: Path) -> Iterator[Shelf]:
    (module_folder / "layouts").mkdir()
    with running_registry(module_folder / "registry") as registry:
        yield Shelf(module_folder, registry)


@pytest.fixture(scope="module")
def driver(shelf: Shelf) -> Iterator[Driver]:
    """One driver for the module, which may read the module's layouts."""
    made = halted_driver(shelf.folder)
    made.config["registries"] = {shelf.registry.host: {"plainHttp": True}}
    made.config["layouts"] = {"allowedPrefixes": [f"oci-layout://{shelf.folder}/layouts/"]}
    made.start()
    yield made
    made.clean_up()


@pytest.mark.parametrize("packed", ["modelpack", "oras", "tar", "gzip", "zstd", "layout"])
def test_every_packing_shows_the_same_model(driver: Driver, shelf: Shelf, packed: str) -> None:
    """The mounted files are those that were packed, byte by byte, and safetensors and tokenizers load them from the mount."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    reference = getattr(shelf, packed)()
    image = packed in {"tar", "gzip", "zstd"}
    target = driver.publish(reference, packed, path="/models" if image else "")
    expected = packing.checksums(shelf.model)
    if packed == "oras":  # oras-py packs no sub-folders
        expected = {name: digest for name, digest in expected.items() if "/" not in name}
    assert packing.checksums(target) == expected
    assert driver.stats(packed)["BYTES"] == sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    tensors = load_file(target / "model.safetensors")
    assert sum(tensor.size for tensor in tensors.values()) == 22_713_728
    tokens = Tokenizer.from_file(str(target / "tokenizer.json")).encode("Models are mounted, not unpacked.").tokens
    assert tokens[:4] == ["[CLS]", "models", "are", "mounted"]
    driver.unpublish(packed)
    assert not driver.target(packed).exists()


def _members(layout: Path) -> list[dict[str, tarfile.TarInfo]]:
    """The members of each layer of a layout's image, lowest first."""
    blobs = layout / "blobs" / "sha256"
    (image,) = json.loads((layout / "index.json").read_text())["manifests"]
    layers = json.loads((blobs / image["digest"].partition(":")[2]).read_text())["layers"]
    found = []
    for layer in layers:
        with tarfile.open(blobs / layer["digest"].partition(":")[2]) as archive:
            found.append({member.name: member for member in archive.getmembers()})
    return found


def test_what_buildah_commits_is_shown_as_buildah_shows_it(driver: Driver, shelf: Shelf) -> None:
    """Over a first layer, buildah's second deletes a file, empties a folder, replaces a file and links: the mount is its own merged tree."""
    layout, expected = packing.two_layers(shelf.model, shelf.folder / "two-layers")
    lower, upper = _members(layout)
    assert "models/deleted" in lower
    assert "models/.wh.deleted" in upper
    assert any(member.islnk() for member in upper.values())
    target = driver.publish(packing.push_image(shelf.registry, "llm/two-layers", layout), "two-layers")
    seen = _seen(target)
    assert seen == _seen(expected)
    assert "models/deleted" not in seen
    assert [name for name in seen if name.startswith("models/old/")] == ["models/old/new"]
    assert target.joinpath("models/replaced").read_text() == "upper\n"
    assert target.joinpath("models/hard-link.json").samefile(target / "models/config.json")
    driver.unpublish("two-layers")
