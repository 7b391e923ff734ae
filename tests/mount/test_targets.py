from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import ConflictError, InvalidRequestError, MountError, UnsupportedError
from csi_model.linux import mounts
from csi_model.linux.mountinfo import Mount, mounts_at
from csi_model.linux.mounts import MountFlag
from csi_model.mount import targets
from csi_model.mount.strategy import Strategy
from csi_model.mount.superblock import PROTECTION
from csi_model.mount.targets import Target, attach, detach, what_is_mounted
from csi_model.mount.views import ViewFiles, mount_view, unmount_view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mount.conftest import Store

ROOT = Path("/var/lib/kubelet")


def _any(mount: Mount) -> bool:
    return True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "relative/path",
        "/etc",
        "/var/lib/kubelet",
        "/var/lib/kubelet/",
        "/var/lib/kubelet/../../../etc",
        "/var/lib/kubelet/pods/../x",
        "/var/lib/kubelet/a\0b",
        "/var/lib/kubeletx/pods",
        "//etc/x",
        "/var/lib/kubelet/" + "é" * 128,
        "/var/lib/kubelet/" + "n" * 256 + "/mount",
        "/var/lib/kubelet" + "/deep" * 900,
    ],
)
def test_paths_that_are_no_targets(text: str) -> None:
    """Only an absolute path strictly below the root, without `..` or NUL, is a target."""
    with pytest.raises(InvalidRequestError):
        Target.parse(text, root=ROOT)


@pytest.mark.parametrize("text", ["/srv/x", "//srv/x", "///srv//./x/"])
@pytest.mark.parametrize("root", ["/", "/srv"])
def test_one_target_has_one_spelling(text: str, root: str) -> None:
    """However many slashes it is asked for with, also where everything is below the root."""
    target = Target.parse(text, root=Path(root))
    assert str(target) == "/srv/x"
    assert not target.below.is_absolute()


def test_paths_that_are_targets() -> None:
    """Kubelet's paths are accepted, and a trailing slash does not matter."""
    text = "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/v/mount"
    assert str(Target.parse(text, root=ROOT)) == text
    assert Target.parse(text + "/", root=ROOT) == Target.parse(text, root=ROOT)


def test_a_root_behind_a_symlink(tmp_path: Path) -> None:
    """The operator's own symlink to the root is resolved, so that mountinfo's names are ours."""
    (tmp_path / "data").mkdir()
    (tmp_path / "kubelet").symlink_to("data")
    target = Target.parse(f"{tmp_path}/kubelet/pods/x", root=tmp_path / "kubelet")
    assert target.path == tmp_path / "data" / "pods" / "x"


pytestmark = pytest.mark.root


@pytest.fixture
def source(store: Store) -> Iterator[Path]:
    """A mounted view to be published, holding one file."""
    directory = store.views / "view"
    directory.mkdir()
    (directory / "file").write_text("content")
    mountpoint = store.mounts / "view"
    mount_view(ViewFiles("view", directory=directory), Strategy.LINKS, mountpoint)
    yield mountpoint
    unmount_view(mountpoint)
    for path in store.kubelet.rglob("*"):
        while mounts_at(path):
            mounts.unmount(path)


def test_attach_and_detach(store: Store, source: Path) -> None:
    """A target appears with all its flags and is gone again, its directory with it; what it shows stays the store's to write."""
    target = store.target()
    assert what_is_mounted(target) == ()
    attach(source, target)
    (mount,) = what_is_mounted(target)
    assert {"ro", "nosuid", "nodev"} <= mount.options
    assert (target.path / "file").read_text() == "content"
    (store.views / "view" / "file").write_text("changed")
    assert (target.path / "file").read_text() == "changed"
    detach(target, ours=_any)
    assert not target.path.exists()
    assert what_is_mounted(target) == ()


def test_a_made_target_is_kubelets_alone(store: Store, source: Path) -> None:
    """The directory under the mount has kubelet's 0750; one that was there keeps its own mode."""
    target = store.target()
    attach(source, target)
    mounts.unmount(target.path)
    assert target.path.stat().st_mode & 0o777 == 0o750
    target.path.chmod(0o700)
    attach(source, target)
    mounts.unmount(target.path)
    assert target.path.stat().st_mode & 0o777 == 0o700


def test_detach_of_nothing_is_success(store: Store) -> None:
    """A target, or its parent, that is not there is detached already."""
    detach(store.target(), ours=_any)
    detach(store.target("absent/mount"), ours=_any)
    store.target().path.mkdir()
    detach(store.target(), ours=_any)
    assert not store.target().path.exists()


def test_stacked_mounts_all_go(store: Store, source: Path) -> None:
    """Three mounts on one target, as retries of other programs leave them, are all taken away."""
    target = store.target()
    attach(source, target)
    mounts.bind(source, target.path)
    mounts.bind(source, target.path)
    assert len(what_is_mounted(target)) == 3
    detach(target, ours=_any)
    assert not target.path.exists()


def test_foreign_mounts_are_untouched(store: Store, source: Path) -> None:
    """When one mount of the stack is not ours, none is unmounted."""
    target = store.target()
    attach(source, target)
    mounts.bind("/dev", target.path)
    with pytest.raises(ConflictError, match="not ours"):
        detach(target, ours=lambda mount: mount.filesystem != "devtmpfs")
    assert len(what_is_mounted(target)) == 2


def test_files_in_a_target_are_untouched(store: Store, source: Path) -> None:
    """A target directory with files of somebody's is neither mounted over nor removed."""
    target = store.target()
    target.path.mkdir()
    (target.path / "precious").touch()
    with pytest.raises(ConflictError, match="files"):
        attach(source, target)
    with pytest.raises(ConflictError, match="untouched"):
        detach(target, ours=_any)
    assert (target.path / "precious").exists()


def test_a_mounted_target_is_not_mounted_over(store: Store, source: Path) -> None:
    """Attaching twice is a conflict, and the first mount stays alone."""
    target = store.target()
    attach(source, target)
    with pytest.raises(ConflictError, match="already"):
        attach(source, target)
    assert len(what_is_mounted(target)) == 1


@pytest.mark.parametrize("name", ["link", "link/mount", "real/up/mount", "file", "file/mount"])
def test_symlinks_and_files_in_the_path_are_refused(store: Store, source: Path, name: str) -> None:
    """No component may be a symlink or a plain file, for any of the operations, and nothing is made or mounted behind it."""
    outside = store.root / "outside"
    (outside / "mount").mkdir(parents=True)
    (store.kubelet / "link").symlink_to(outside)
    (store.kubelet / "real").mkdir()
    (store.kubelet / "real" / "up").symlink_to(outside)
    (store.kubelet / "file").touch()
    target = store.target(name)
    with pytest.raises(InvalidRequestError):
        attach(source, target)
    with pytest.raises(InvalidRequestError):
        what_is_mounted(target)
    with pytest.raises(InvalidRequestError):
        detach(target, ours=_any)
    assert mounts_at(outside) == mounts_at(outside / "mount") == ()
    assert (outside / "mount").is_dir()
    assert (store.kubelet / "link").is_symlink()


def test_a_missing_parent_is_not_made(store: Store, source: Path) -> None:
    """Only the last component is ours to create."""
    with pytest.raises(InvalidRequestError, match="must be there"):
        attach(source, store.target("absent/mount"))
    assert not (store.kubelet / "absent").exists()


def test_a_failed_attach_leaves_the_target_as_it_was(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that attach made goes when the mount fails, one that was there stays."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(mounts, "attach_mount", refuse)
    with pytest.raises(MountError, match=r"fs\.mount-max"):
        attach(source, store.target())
    assert not store.target().path.exists()
    store.target().path.mkdir()
    with pytest.raises(MountError):
        attach(source, store.target())
    assert store.target().path.is_dir()


def test_a_busy_target_is_tried_for_a_moment(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that leaves within the patience does not fail the detach; one that stays does, and the mount stays whole."""
    target = store.target()
    attach(source, target)
    monkeypatch.setattr(targets, "BUSY_PATIENCE", 0.1)
    with (target.path / "file").open(), pytest.raises(MountError, match="busy"):
        detach(target, ours=_any)
    assert (target.path / "file").read_text() == "content"
    monkeypatch.setattr(targets, "BUSY_PATIENCE", 10)
    reader = (target.path / "file").open()
    threading.Timer(0.2, reader.close).start()
    began = time.monotonic()
    detach(target, ours=_any)
    assert time.monotonic() - began < 5
    assert not target.path.exists()


def test_odd_names_are_found_in_mountinfo(store: Store, source: Path) -> None:
    """Targets with spaces, backslashes, tabs and newlines are recognised and taken away."""
    target = store.target("a b\\c\td\ne#f")
    attach(source, target)
    assert len(what_is_mounted(target)) == 1
    detach(target, ours=_any)
    assert not target.path.exists()


def test_an_unmounted_view_is_never_published(store: Store) -> None:
    """The empty directory where a view was mounted until just now is not what a pod gets."""
    (store.mounts / "idle").mkdir()
    with pytest.raises(MountError, match="no view is mounted"):
        attach(store.mounts / "idle", store.target())
    assert not store.target().path.exists()


def _refuse_setattr(*_: object) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_old_kernels_never_show_a_writable_target(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mount_setattr a source that lacks a flag is refused, and one that has all hands its flags to the clone."""
    monkeypatch.setattr(mounts, "protect", _refuse_setattr)
    target = store.target()
    mounts.bind(store.views / "view", source)
    mounts.remount_bind(source, MountFlag.RDONLY | MountFlag.NODEV)
    with pytest.raises(UnsupportedError, match=r"5\.12"):
        attach(source, target)
    assert not target.path.exists()
    mounts.remount_bind(source, PROTECTION)
    attach(source, target)
    assert {"ro", "nosuid", "nodev"} <= what_is_mounted(target)[0].options
    detach(target, ours=_any)
