"""A model of every kind of file, and the ways of having it mounted."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from csi_model.erofs.image import build_image
from csi_model.mount.imagefile import write_image
from csi_model.mount.materialise import materialise
from csi_model.mount.strategy import Strategy
from csi_model.mount.targets import Target
from csi_model.mount.views import ViewFiles, is_mounted, mount_view, unmount_view
from csi_model.oci.digest import Digest
from csi_model.tree.nodes import Directory, Extent, File, Hole, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN = {Strategy.LINKS, Strategy.MATERIALISE}
VIEW = "0123456789abcdef" * 2
"""A view's name, as all have one."""
MTIME = 1_700_000_000_123_456_789


def noise(size: int, seed: int) -> bytes:
    """Bytes of which no two 16-byte lines are equal, so that nothing shifted goes unnoticed."""
    return b"".join(b"%02x%013x\n" % (seed, line) for line in range(-(-size // 16)))[:size]


class Store:
    """Layer files as the content store keeps them, and the directories for views beside them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layers: dict[Digest, Path] = {}
        for name in ("content", "views", "mounts", "kubelet"):
            (root / name).mkdir()
        self.views, self.mounts, self.kubelet = root / "views", root / "mounts", root / "kubelet"

    def add(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        path = self.root / "content" / digest.hex
        path.write_bytes(data)
        path.chmod(0o444)
        os.utime(path, ns=(0, 0))
        self.layers[digest] = path
        return digest

    def raw(self, data: bytes) -> File:
        return File(0o444, 0, 0, 0, len(data), (Extent(self.add(data), 0, len(data)),) if data else ())

    def target(self, name: str = "mount") -> Target:
        return Target.parse(str(self.kubelet / name), root=self.kubelet)

    def prepare(self, strategy: Strategy, tree: Directory, name: str = VIEW) -> ViewFiles:
        if strategy in PLAIN:
            materialise(tree, self.views / name, self.layers)
            return ViewFiles(name, directory=self.views / name)
        image = build_image(tree, {digest: path.stat().st_size for digest, path in self.layers.items()})
        path = self.views / f"{name}.erofs"
        write_image(image, path, self.layers)
        return ViewFiles(name, image=path, devices=tuple(self.layers[digest] for digest in image.devices))

    @contextmanager
    def mounted(self, strategy: Strategy, tree: Directory, name: str = VIEW) -> Iterator[Path]:
        files = self.prepare(strategy, tree, name)
        mountpoint = self.mounts / name
        mount_view(files, strategy, mountpoint)
        try:
            yield mountpoint
        finally:
            if is_mounted(mountpoint):
                unmount_view(mountpoint)


@dataclass(frozen=True)
class Model:
    """A tree, and what must be read from each of its files."""

    tree: Directory
    content: dict[str, bytes]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def model(store: Store) -> Model:
    """Raw layers of awkward sizes, and tar data at 512-byte offsets in every kind of file."""
    content = {f"raw/{size}": noise(size, 1) for size in (1, 511, 512, 513, 4095, 4097, (1 << 20) - 1, (1 << 20) + 1)}
    tar_bytes = noise(4 << 20, 2)
    tar = store.add(tar_bytes)

    def packed(offset: int, size: int, mode: int = 0o644, owner: int = 1000) -> File:
        return File(mode, owner, owner + 1, MTIME, size, (Extent(tar, offset, size),))

    config, program = packed(512, 700), packed(1536, 5000, 0o755, 0)
    sparse = File(0o600, 5, 6, MTIME, (1 << 20) + 4096 + 100, (Extent(tar, 1 << 20, 4096), Hole(1 << 20), Extent(tar, 2 << 20, 100)))
    content |= {
        "etc/config": tar_bytes[512:1212],
        "etc/again": tar_bytes[512:1212],
        "bin/run": tar_bytes[1536:6536],
        "sparse": tar_bytes[1 << 20 : (1 << 20) + 4096] + bytes(1 << 20) + tar_bytes[2 << 20 : (2 << 20) + 100],
        "empty": b"",
    }
    content |= {f"many/{n:04}": tar_bytes[n * 512 : n * 512 + 512] for n in range(300)}
    tree = Directory(
        mode=0o755,
        children={
            b"raw": Directory(
                children={name.removeprefix("raw/").encode(): store.raw(data) for name, data in content.items() if name[:4] == "raw/"}
            ),
            b"etc": Directory(
                mode=0o750,
                uid=7,
                gid=8,
                mtime_ns=MTIME,
                children={b"config": config, b"again": config, b"link": Symlink(b"config", 9, 10, MTIME)},
            ),
            b"bin": Directory(mode=0o555, mtime_ns=MTIME, children={b"run": program, b"away": Symlink(b"/nowhere/at/all", 0, 0, 0)}),
            b"sparse": sparse,
            b"empty": File(0o444, 0, 0, 0, 0, ()),
            b"many": Directory(children={b"%04d" % n: packed(n * 512, 512, 0o444, 0) for n in range(300)}),
            b"n\xff" + b"x" * 253: Directory(mode=0o700),
        },
    )
    return Model(tree, content)


@pytest.fixture(params=list(Strategy), ids=lambda strategy: strategy.value)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    """Every way of mounting, LINKS included: it is written by the same code as MATERIALISE."""
    value = request.param
    assert isinstance(value, Strategy)
    return value
