from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from csi_model.linux import mounts
from csi_model.linux.mountinfo import mounts_at
from csi_model.linux.mounts import MountFlag

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


def _attach_tmpfs(target: Path, flags: MountFlag) -> None:
    with mounts.closing(mounts.fsopen("tmpfs")) as context:
        mounts.set_string(context, "size", "1m")
        mounts.create_superblock(context)
        with mounts.closing(mounts.fsmount(context, flags)) as mount, mounts.closing(os.open(target, os.O_PATH)) as place:
            mounts.attach_mount(mount, place)


def test_a_filesystem_is_made_attached_reconfigured_and_unmounted(tmp_path: Path) -> None:
    """The whole life of a mount, each call doing what its name says."""
    _attach_tmpfs(tmp_path, MountFlag.NODEV | MountFlag.NOSUID)
    (mount,) = mounts_at(tmp_path)
    assert {"nodev", "nosuid", "rw"} <= mount.options
    with mounts.closing(mounts.fspick(tmp_path)) as context:
        mounts.set_flag(context, "ro")
        mounts.reconfigure_superblock(context)
    assert "ro" in mounts_at(tmp_path)[0].super_options
    mounts.unmount(tmp_path)
    assert mounts_at(tmp_path) == ()


def test_a_clone_is_protected_before_it_is_attached(tmp_path: Path) -> None:
    """A clone carries read-only, nosuid and nodev from its first moment on a path, while its source stays writable."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").write_text("x")
    with (
        mounts.closing(os.open(source, os.O_PATH)) as original,
        mounts.closing(mounts.clone_tree(original)) as clone,
        mounts.closing(os.open(target, os.O_PATH)) as place,
    ):
        mounts.protect(clone, MountFlag.RDONLY | MountFlag.NOSUID | MountFlag.NODEV)
        mounts.attach_mount(clone, place)
    assert {"ro", "nosuid", "nodev"} <= mounts_at(target)[0].options
    assert mounts_at(source) == ()  # though the line names it as what is shown
    with pytest.raises(OSError, match="Read-only"):
        (target / "file").write_text("y")
    (source / "file").write_text("z")
    assert (target / "file").read_text() == "z"
    mounts.unmount(target)


def test_bind_and_remount_of_old_kernels(tmp_path: Path) -> None:
    """mount(2)'s bind and remount give the same flags."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    mounts.bind(source, target)
    mounts.remount_bind(target, MountFlag.RDONLY | MountFlag.NODEV)
    assert {"ro", "nodev"} <= mounts_at(target)[0].options
    mounts.unmount(target)


def test_a_detached_mount_that_is_closed_is_gone(tmp_path: Path) -> None:
    """Nothing is mounted by a mount that was never attached."""
    with mounts.closing(os.open(tmp_path, os.O_PATH)) as original, mounts.closing(mounts.clone_tree(original)):
        pass
    assert mounts_at(tmp_path) == ()


def test_the_kernels_messages_are_read() -> None:
    """What the kernel says about a bad option can be shown to people."""
    with mounts.closing(mounts.fsopen("tmpfs")) as context:
        with pytest.raises(OSError) as caught:
            mounts.set_string(context, "nonsense", "1")
        assert caught.value.errno == errno.EINVAL
        assert "nonsense" in mounts.kernel_messages(context)
        assert mounts.kernel_messages(context) == ""


def test_unmount_follows_no_symlink(tmp_path: Path) -> None:
    """A symlink that leads to a mount does not let it be unmounted."""
    place, link = tmp_path / "place", tmp_path / "link"
    place.mkdir()
    link.symlink_to(place)
    _attach_tmpfs(place, MountFlag.NODEV)
    with pytest.raises(OSError, match="umount2"):
        mounts.unmount(link)
    assert mounts_at(place)
    mounts.unmount(place)
    with pytest.raises(OSError) as caught:
        mounts.unmount(place)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.filename == str(place)
