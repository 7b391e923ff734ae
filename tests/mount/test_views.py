from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING, NoReturn

import pytest

from csi_model.errors import ConflictError, MountError, NoSpaceError
from csi_model.linux import mounts, pages, readahead
from csi_model.linux.mountinfo import mounts_at
from csi_model.mount import targets
from csi_model.mount.strategy import Strategy
from csi_model.mount.views import (
    Residency,
    ViewFiles,
    drop_pages,
    is_mounted,
    mount_view,
    mounted_strategy,
    residency,
    shown_view,
    switch_to_direct,
    unmount_view,
)
from csi_model.tree.nodes import Directory, Extent, File
from tests.mount.conftest import VIEW, noise

if TYPE_CHECKING:
    from pathlib import Path

    from tests.mount.conftest import Model, Store

pytestmark = pytest.mark.root

_SIZE = 8 << 20


@pytest.fixture
def tree(store: Store) -> Directory:
    """One file of 8 MiB at an unaligned offset of a tar."""
    tar = store.add(noise(_SIZE + 512, 3))
    with mounts.closing(os.open(store.layers[tar], os.O_RDONLY)) as file:
        os.fsync(file)
    return Directory(children={b"weights": File(0o444, 0, 0, 0, _SIZE, (Extent(tar, 512, _SIZE),))})


def _erofs_devices() -> set[str]:
    return {name for name in readahead.known_devices() if name.startswith("erofs-")}


def _cached(path: Path) -> int:
    return residency([path]).resident


@pytest.mark.parametrize("strategy", [Strategy.EROFS_DIRECT, Strategy.EROFS_BUFFERED])
def test_read_ahead_is_raised(store: Store, tree: Directory, strategy: Strategy) -> None:
    """A file-backed mount's own backing device reads ahead 1 MiB, without which mmap is three times slower."""
    before = _erofs_devices()
    with store.mounted(strategy, tree):
        made = _erofs_devices() - before
        assert made
        assert {readahead.read_ahead(name) for name in made} == {1 << 20}


def test_a_read_only_sys_is_no_obstacle(store: Store, tree: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where read-ahead cannot be raised the view is mounted all the same."""

    def refuse(device: str, size: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), device)

    monkeypatch.setattr(readahead, "set_read_ahead", refuse)
    with store.mounted(Strategy.EROFS_DIRECT, tree) as view:
        assert (view / "weights").stat().st_size == _SIZE


@pytest.mark.parametrize(("strategy", "copies"), [(Strategy.EROFS_DIRECT, 1), (Strategy.EROFS_LOOP, 1), (Strategy.EROFS_BUFFERED, 2)])
def test_how_often_what_is_read_is_in_memory(store: Store, tree: Directory, strategy: Strategy, copies: int) -> None:
    """Direct strategies leave the layer's pages alone; a buffered one caches everything twice."""
    (layer,) = store.layers.values()
    drop_pages(layer)
    with store.mounted(strategy, tree) as view:
        drop_pages(layer)
        (view / "weights").read_bytes()
        assert _cached(view / "weights") == _SIZE
        assert (_cached(layer) + _cached(view / "weights")) // _SIZE == copies


def test_switching_a_live_view_to_direct_io(store: Store, tree: Directory) -> None:
    """Readers go on, the layer's pages go, the view's stay, new reads make no second copy, and targets see the switch."""
    (layer,) = store.layers.values()
    data = layer.read_bytes()[512:]
    with store.mounted(Strategy.EROFS_BUFFERED, tree) as view, (view / "weights").open("rb") as reader:
        target = store.target()
        targets.attach(view, target)
        assert reader.read(1 << 20) == data[: 1 << 20]
        assert _cached(layer) > 0
        switch_to_direct(view, [layer])
        assert mounted_strategy(view) is Strategy.EROFS_DIRECT
        assert "directio" in mounts_at(target.path)[0].super_options
        assert _cached(layer) == 0
        assert reader.read() == data[1 << 20 :]
        assert (target.path / "weights").read_bytes() == data
        assert _cached(layer) == 0
        assert _cached(view / "weights") == _SIZE
        targets.detach(target, ours=lambda mount: True)


def test_what_is_no_erofs_view_cannot_be_switched(store: Store, tmp_path: Path) -> None:
    """The kernel's refusal is our error and names the view."""
    with pytest.raises(MountError, match="direct I/O"):
        switch_to_direct(tmp_path / "absent", [])


def test_unmounting_twice_and_nothing(store: Store, tree: Directory) -> None:
    """A view that is not mounted, or has no directory, is unmounted already."""
    with store.mounted(Strategy.EROFS_DIRECT, tree) as view:
        assert is_mounted(view)
        unmount_view(view)
        assert not view.exists()
        unmount_view(view)
        assert not is_mounted(view)
        assert mounted_strategy(view) is None


def test_a_busy_view_stays(store: Store, tree: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that is being read is not unmounted, lazily or otherwise."""
    monkeypatch.setattr(targets, "BUSY_PATIENCE", 0.1)
    with store.mounted(Strategy.EROFS_DIRECT, tree) as view:
        with (view / "weights").open("rb") as reader:
            with pytest.raises(MountError, match="busy"):
                unmount_view(view)
            assert len(reader.read()) == _SIZE
        assert is_mounted(view)


def test_a_view_is_mounted_once(store: Store, tree: Directory) -> None:
    """A second mount over the first is refused."""
    with store.mounted(Strategy.EROFS_DIRECT, tree) as view:
        files = ViewFiles(VIEW, image=store.views / f"{VIEW}.erofs", devices=tuple(store.layers.values()))
        with pytest.raises(ConflictError):
            mount_view(files, Strategy.EROFS_DIRECT, view)
        assert len(mounts_at(view)) == 1


@pytest.mark.parametrize("strategy", [Strategy.EROFS_DIRECT, Strategy.EROFS_LOOP, Strategy.EROFS_BUFFERED])
def test_a_missing_layer_is_named_by_its_remedy(store: Store, tree: Directory, strategy: Strategy) -> None:
    """A layer file that somebody deleted fails the mount with the next step, and nothing stays mounted."""
    files = store.prepare(strategy, tree)
    for layer in store.layers.values():
        layer.unlink()
    with pytest.raises(MountError, match="pull the model again"):
        mount_view(files, strategy, store.mounts / VIEW)
    assert not is_mounted(store.mounts / VIEW)


def test_a_broken_image(store: Store) -> None:
    """An image that is none is refused, with a hint where the kernel says more."""
    image = store.views / "broken.erofs"
    image.write_bytes(bytes(8192))
    with pytest.raises(MountError, match="its log says more"):
        mount_view(ViewFiles("broken", image=image), Strategy.EROFS_DIRECT, store.mounts / "broken")


def test_paths_too_long_for_an_option(store: Store, tmp_path: Path) -> None:
    """A path that the kernel would cut is refused, with the remedy."""
    image = tmp_path / ("x" * 120) / ("y" * 120) / "view.erofs"
    with pytest.raises(MountError, match="shorter path"):
        mount_view(ViewFiles("view", image=image), Strategy.EROFS_DIRECT, store.mounts / VIEW)


def test_several_hundred_devices(store: Store) -> None:
    """A view of 300 layers mounts, and the last one reads right."""
    layers = [store.add(noise(1024, n)) for n in range(300)]
    tree = Directory(children={b"%03d" % n: File(0o444, 0, 0, 0, 1000, (Extent(layer, 0, 1000),)) for n, layer in enumerate(layers)})
    with store.mounted(Strategy.EROFS_DIRECT, tree) as view:
        for n in (0, 150, 299):
            assert (view / f"{n:03}").read_bytes() == noise(1024, n)[:1000]


def test_a_view_behind_a_symlinked_state_directory(store: Store, tree: Directory) -> None:
    """A loop device names its file by the real path; the view is recognised all the same."""
    alias = store.root / "alias"
    alias.symlink_to(store.views)
    with store.mounted(Strategy.EROFS_LOOP, tree) as view:
        assert shown_view(mounts_at(view)[0], alias) == VIEW


def test_old_kernels_mount_plain_views_read_only(store: Store, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mount_setattr a plain view is bound and made read-only in the state directory, and its targets inherit that."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(mounts, "protect", refuse)
    with store.mounted(Strategy.MATERIALISE, model.tree) as view:
        targets.attach(view, store.target())
        for place in (view, store.target().path):
            assert {"ro", "nosuid", "nodev"} <= mounts_at(place)[0].options
        targets.detach(store.target(), ours=lambda mount: True)


def test_residency_counts_what_is_in_memory(tmp_path: Path) -> None:
    """Bytes in memory, true to the byte at the end of a file, with missing and empty files counting nothing."""
    warm, cold = tmp_path / "warm", tmp_path / "cold"
    for path in (warm, cold):
        path.write_bytes(b"x" * 10_001)
        with mounts.closing(os.open(path, os.O_RDONLY)) as file:
            os.fsync(file)
    drop_pages(cold)
    (tmp_path / "empty").touch()
    assert residency([warm, cold, tmp_path / "absent", tmp_path / "empty"]) == Residency(10_001, 20_002)
    assert residency([]) == Residency(0, 0)
    drop_pages(tmp_path / "absent")


def test_residency_of_many_files_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand files about a hundred are looked at, and their share stands for the rest."""
    files = [tmp_path / f"{n}" for n in range(1000)]
    for n, file in enumerate(files):
        file.write_bytes(b"x" * 4096)
        if n >= 500:
            with mounts.closing(os.open(file, os.O_RDONLY)) as descriptor:
                os.fsync(descriptor)
                pages.drop(descriptor)
    asked: list[int] = []
    real = pages.resident_bytes

    def count(file: int) -> int:
        asked.append(file)
        return real(file)

    monkeypatch.setattr(pages, "resident_bytes", count)
    seen = residency(files)
    assert len(asked) <= 128
    assert seen.total == 1000 * 4096
    assert 0.45 < seen.resident / seen.total < 0.55


def test_an_attach_reads_no_list_of_mounts(store: Store, tree: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Showing a mounted view at one more target reads no list of mounts, which grows with the node's pods."""

    def forbidden(*_: object, **__: object) -> NoReturn:
        raise AssertionError

    with store.mounted(Strategy.EROFS_DIRECT, tree) as view:
        monkeypatch.setattr(targets, "mounts_at", forbidden)
        targets.attach(view, store.target("a"))
        monkeypatch.undo()
        targets.detach(store.target("a"), ours=lambda mount: True)


def test_no_room_for_a_directory_is_a_full_disk(store: Store, tree: Directory) -> None:
    """Neither the view's place nor a target's directory that a full disk refuses is taken for a full table of mounts."""
    full = store.kubelet / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "none", full], check=True)
    try:
        files = store.prepare(Strategy.EROFS_DIRECT, tree)
        with pytest.raises(NoSpaceError, match="disk is full"):
            mount_view(files, Strategy.EROFS_DIRECT, full / VIEW)
        with store.mounted(Strategy.EROFS_DIRECT, tree) as view, pytest.raises(NoSpaceError, match="no room"):
            targets.attach(view, store.target("full/mount"))
    finally:
        subprocess.run(["umount", full], check=True)


def test_a_place_with_files_in_it_serves(store: Store, tree: Directory) -> None:
    """A copied state directory has files where views were mounted: they are covered, and left when the view goes."""
    place = store.mounts / VIEW
    place.mkdir()
    (place / "copied").touch()
    with store.mounted(Strategy.EROFS_DIRECT, tree) as view:
        assert (view / "weights").stat().st_size == _SIZE
        unmount_view(view)
        assert not is_mounted(view)
    assert (place / "copied").exists()


def test_no_view_is_mounted_on_a_file(tmp_path: Path) -> None:
    """What is no directory is no view's place, and nothing to stumble over."""
    (tmp_path / "file").touch()
    assert not is_mounted(tmp_path / "file")
