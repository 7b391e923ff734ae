from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import CorruptContentError, MountError, NoSpaceError
from csi_model.linux import mounts
from csi_model.linux.disk import sync_filesystem
from csi_model.linux.mountinfo import mounts_at
from csi_model.mount import copying
from csi_model.mount import materialise as materialising
from csi_model.mount.materialise import materialise, remove_view, sweep_unfinished
from csi_model.oci.digest import Digest
from csi_model.tree.nodes import Directory, Extent, File, Hole, Symlink
from tests.mount.conftest import noise

if TYPE_CHECKING:
    from tests.mount.conftest import Model, Store


@pytest.fixture
def small(store: Store) -> Directory:
    """A linked layer, a copied file, a symlink that leads away, and a directory."""
    tar = store.add(noise(4096, 5))
    return Directory(
        children={
            b"raw": store.raw(noise(1000, 4)),
            b"packed": File(0o640, os.getuid(), os.getgid(), 7, 700, (Extent(tar, 512, 700),)),
            b"out": Symlink(bytes(store.root), os.getuid(), os.getgid(), 0),
            b"sub": Directory(uid=os.getuid(), gid=os.getgid(), children={b"deep": Directory(mode=0o555)}),
        },
        uid=os.getuid(),
        gid=os.getgid(),
    )


pytestmark = pytest.mark.root


def test_whole_layers_are_links_and_holes_stay_holes(store: Store, model: Model) -> None:
    """A whole raw layer takes no space of its own, what is cut out of a tar is a copy, and a hole takes no blocks."""
    materialise(model.tree, store.views / "view", store.layers)
    raw = model.tree.children[b"raw"]
    assert isinstance(raw, Directory)
    layer = store.layers[Digest.of(model.content["raw/4097"])]
    assert (store.views / "view/raw/4097").samefile(layer)
    assert (store.views / "view/etc/config").stat().st_nlink == 2
    assert (store.views / "view/sparse").stat().st_blocks * 512 < 64 << 10


def test_the_order_of_sync_and_rename(store: Store, small: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied files and every directory are synced before the tree has its name, and the views directory after."""
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def record_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append("sync " + "/".join(path.relative_to(store.root).parts[2:]) if path != store.views else "sync views")
        fsync(descriptor)

    def record_rename(self: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    materialise(small, store.views / "view", store.layers)
    assert events == ["sync packed", "sync sub/deep", "sync sub", "sync ", "rename to view", "sync views"]


def test_a_large_tree_is_synced_at_once(store: Store, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a few files the filesystem is synced once, before the rename, instead of each file."""
    events: list[str] = []
    rename = Path.rename

    def record_sync(top: int) -> None:
        events.append("sync")
        sync_filesystem(top)

    def record_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(materialising, "sync_filesystem", record_sync)
    monkeypatch.setattr(Path, "rename", record_rename)
    materialise(model.tree, store.views / "view", store.layers)
    assert events == ["sync", "rename"]


@pytest.mark.parametrize("number", [errno.EMLINK, errno.EXDEV, errno.EPERM])
def test_without_links_everything_is_copied(store: Store, small: Directory, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A filesystem that refuses another link gets a copy with the same attributes."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    materialise(small, store.views / "view", store.layers)
    copy = store.views / "view" / "raw"
    assert copy.read_bytes() == noise(1000, 4)
    status = copy.stat()
    assert (status.st_nlink, status.st_mode & 0o777, status.st_mtime_ns) == (1, 0o444, 0)


def test_without_copy_file_range_bytes_are_copied(store: Store, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not copy between these files, reads and writes do."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    materialise(model.tree, store.views / "view", store.layers)
    for name, data in model.content.items():
        assert (store.views / "view" / name).read_bytes() == data


def test_a_short_layer_is_corrupt(store: Store) -> None:
    """A layer file that ends too early is named, and nothing stays behind."""
    layer = store.add(noise(1000, 6))
    tree = Directory(children={b"f": File(0o644, 0, 0, 0, 900, (Extent(layer, 512, 900),))})
    with pytest.raises(CorruptContentError, match=r"ends at byte 1000, before byte 1412.*pull it again"):
        materialise(tree, store.views / "view", store.layers)
    assert not list(store.views.iterdir())


def test_a_full_disk_leaves_nothing(store: Store, small: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC in mid-write is our NoSpaceError, and what was written is gone."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(copying, "_copy_some", full)
    with pytest.raises(NoSpaceError, match="disk is full"):
        materialise(small, store.views / "view", store.layers)
    assert not list(store.views.iterdir())


def test_a_name_in_use_is_not_replaced(store: Store, small: Directory) -> None:
    """A view that is there, even an empty one, is never written over."""
    (store.views / "view").mkdir()
    with pytest.raises(MountError, match="already"):
        materialise(small, store.views / "view", store.layers)
    assert not list((store.views / "view").iterdir())


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"../../escaped"])
def test_names_cannot_lead_out(store: Store, name: bytes) -> None:
    """A name that is no single component is refused here too, whatever the tree's builder let through."""
    with pytest.raises(MountError, match="single component"):
        materialise(Directory(children={name: File(0o644, 0, 0, 0, 0, ())}), store.views / "view", store.layers)
    assert not list(store.views.iterdir())
    assert not (store.root / "escaped").exists()


def test_deep_trees_take_no_stack(store: Store) -> None:
    """A thousand directories in each other are written and removed, without recursion and with few descriptors."""
    tree = Directory(children={b"bottom": File(0o644, 0, 0, 0, 5, (Hole(5),))})
    for _ in range(1000):
        tree = Directory(children={b"d": tree})
    materialise(tree, store.views / "view", store.layers)
    assert (store.views / "view" / Path(*["d"] * 1000) / "bottom").read_bytes() == bytes(5)
    remove_view(store.views / "view")
    assert not list(store.views.iterdir())


def test_removal_follows_no_link(store: Store, small: Directory) -> None:
    """Symlinks in a view are removed as links: what they lead to stays, and so do the layers that files were linked to."""
    materialise(small, store.views / "view", store.layers)
    remove_view(store.views / "view")
    assert not list(store.views.iterdir())
    assert all(layer.exists() for layer in store.layers.values())
    assert store.kubelet.is_dir()
    remove_view(store.views / "view")


@pytest.mark.parametrize("place", ["", "sub/deep"])
def test_removal_stops_at_mounts(store: Store, small: Directory, place: str) -> None:
    """A mount at a view or in it stops its removal before anything behind the mount is touched."""
    materialise(small, store.views / "view", store.layers)
    precious = store.root / "precious"
    precious.mkdir()
    (precious / "file").touch()
    mounts.bind(precious, store.views / "view" / place)
    try:
        with pytest.raises(MountError, match="busy"):
            remove_view(store.views / "view")
        assert (precious / "file").exists()
    finally:
        for mounted in (store.views / "view" / place, *(path / place for path in store.views.glob(".unfinished-*"))):
            if mounted.is_mount():
                mounts.unmount(mounted)


def test_the_sweep_takes_only_what_is_unfinished(store: Store, small: Directory) -> None:
    """Unfinished trees and images go, finished ones stay."""
    materialise(small, store.views / "view", store.layers)
    (store.views / ".unfinished-tree" / "sub").mkdir(parents=True)
    (store.views / ".unfinished-tree" / "sub" / "out").symlink_to(store.root)
    (store.views / ".unfinished-image").touch()
    (store.views / ".unfinished-link").symlink_to(store.kubelet)
    (store.views / "other.erofs").touch()
    assert sweep_unfinished(store.views) == (".unfinished-image", ".unfinished-link", ".unfinished-tree")
    assert sorted(path.name for path in store.views.iterdir()) == ["other.erofs", "view"]
    assert store.kubelet.is_dir()


def test_the_sweep_leaves_what_cannot_be_removed(store: Store) -> None:
    """One leftover that will not go stops neither the others' removal nor the start."""
    busy = store.views / ".unfinished-a" / "busy"
    busy.mkdir(parents=True)
    (store.views / ".unfinished-b").touch()
    mounts.bind(store.kubelet, busy)
    try:
        assert sweep_unfinished(store.views) == (".unfinished-b",)
        assert mounts_at(busy)
    finally:
        mounts.unmount(busy)


_CHILD = """
import sys
from pathlib import Path
from csi_model.mount.materialise import materialise
from csi_model.oci.digest import Digest
from csi_model.tree.nodes import Directory, Extent, File
layer = Path(sys.argv[1])
digest = Digest.of(layer.read_bytes())
tree = Directory(children={b"a": File(0o600, 0, 0, 0, 100, (Extent(digest, 1, 100),))})
materialise(tree, Path(sys.argv[2]), {digest: layer})
"""


@pytest.mark.parametrize(("step", "finished"), [("view.written", False), ("view.renamed", True)])
def test_a_kill_leaves_all_or_nothing(store: Store, step: str, finished: bool) -> None:  # noqa: FBT001
    """Killed before the rename nothing has the view's name and the sweep takes the rest; killed after it the view is whole."""
    layer = store.layers[store.add(noise(1000, 8))]
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(layer), str(store.views / "view")], env={**os.environ, "CSI_MODEL_KILL_AT": step}, check=False
    )
    assert child.returncode == -9
    assert len(sweep_unfinished(store.views)) == (0 if finished else 1)
    assert [path.name for path in store.views.iterdir()] == (["view"] if finished else [])
    if finished:
        assert (store.views / "view" / "a").read_bytes() == noise(1000, 8)[1:101]
