"""One contract for all strategies: a pod sees the same tree whichever way it is mounted.

Allowed to differ: the link count of whole raw layers (a plain view links to the store's file, which counts too), inode numbers,
the size and link count of directories, and statfs's counts, which for plain files are those of the disk.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from typing import TYPE_CHECKING

import pytest

from csi_model.linux.mountinfo import mounts_at
from csi_model.mount.strategy import Strategy
from csi_model.mount.targets import attach, detach
from csi_model.mount.views import is_mounted, mounted_strategy, shown_view, unmount_view
from tests.mount.conftest import MTIME, PLAIN, VIEW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.mount.conftest import Model, Store

pytestmark = pytest.mark.root


@pytest.fixture
def seen(store: Store, model: Model, strategy: Strategy) -> Iterator[Path]:
    """The model at a pod's target."""
    with store.mounted(strategy, model.tree) as mountpoint:
        target = store.target()
        attach(mountpoint, target)
        yield target.path
        detach(target, ours=lambda mount: True)


def test_every_byte_by_read(seen: Path, model: Model) -> None:
    """Every file reads back byte-equal, whatever its size, offset and holes."""
    for name, data in model.content.items():
        assert (seen / name).read_bytes() == data, name


def test_every_byte_by_mmap(seen: Path, model: Model) -> None:
    """Every file is byte-equal through a mapping, with zeros behind its end in the last page."""
    for name, data in model.content.items():
        if not data:
            continue
        with (seen / name).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
            assert mapping[:] == data, name


def test_odd_ranges(seen: Path, model: Model) -> None:
    """Reads at unaligned offsets, over the end and behind it give what a file gives."""
    data = model.content["sparse"]
    descriptor = os.open(seen / "sparse", os.O_RDONLY)
    try:
        for offset, length in ((1, 3), (4095, 2), (4000, 200_000), (len(data) - 7, 100), (len(data), 1), (len(data) + 5000, 9)):
            assert os.pread(descriptor, length, offset) == data[offset : offset + length]
    finally:
        os.close(descriptor)


def test_names(seen: Path) -> None:
    """Directories list exactly their entries, also large ones and names of 255 bytes that are no UTF-8."""
    odd = os.fsdecode(b"n\xff" + b"x" * 253)
    assert {entry.name for entry in seen.iterdir()} == {"raw", "etc", "bin", "sparse", "empty", "many", odd}
    assert sorted(entry.name for entry in (seen / "many").iterdir()) == [f"{n:04}" for n in range(300)]
    assert list((seen / odd).iterdir()) == []
    assert not (seen / "absent").exists()


def test_modes_owners_and_times(seen: Path) -> None:
    """Every inode has the tree's type, mode, owner and mtime, to the nanosecond."""

    def facts(name: str) -> tuple[int, int, int, int]:
        status = (seen / name).lstat()
        return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns

    assert facts("etc/config") == (stat.S_IFREG | 0o644, 1000, 1001, MTIME)
    assert facts("bin/run") == (stat.S_IFREG | 0o755, 0, 1, MTIME)
    assert facts("sparse") == (stat.S_IFREG | 0o600, 5, 6, MTIME)
    assert facts("raw/513") == (stat.S_IFREG | 0o444, 0, 0, 0)
    assert facts("empty") == (stat.S_IFREG | 0o444, 0, 0, 0)
    assert facts("etc") == (stat.S_IFDIR | 0o750, 7, 8, MTIME)
    assert facts("bin") == (stat.S_IFDIR | 0o555, 0, 0, MTIME)
    assert facts("") == (stat.S_IFDIR | 0o755, 0, 0, 0)
    assert facts("etc/link") == (stat.S_IFLNK | 0o777, 9, 10, MTIME)


def test_sizes(seen: Path, model: Model) -> None:
    """Sizes are true to the byte: a safetensors reader refuses padding."""
    assert {name: (seen / name).stat().st_size for name in model.content} == {name: len(data) for name, data in model.content.items()}


def test_symlinks(seen: Path, model: Model) -> None:
    """Links hold their target as it was stored, and resolve where the reader is."""
    assert (seen / "etc/link").readlink().as_posix() == "config"
    assert (seen / "etc/link").read_bytes() == model.content["etc/config"]
    assert (seen / "bin/away").readlink().as_posix() == "/nowhere/at/all"


def test_hard_links_share_an_inode(seen: Path, strategy: Strategy) -> None:
    """Two names of one file are one inode with two links; a lone file has one, but for linked raw layers."""
    assert (seen / "etc/config").samefile(seen / "etc/again")
    assert (seen / "etc/config").stat().st_nlink == 2
    assert (seen / "bin/run").stat().st_nlink == 1
    assert (seen / "raw/513").stat().st_nlink == (2 if strategy in PLAIN else 1)


def test_nothing_can_be_changed(seen: Path) -> None:
    """Root itself gets EROFS for every way of writing, and the mount carries nosuid and nodev."""
    attempts = (
        lambda: os.open(seen / "etc/config", os.O_WRONLY),
        lambda: os.open(seen / "new", os.O_WRONLY | os.O_CREAT),
        (seen / "new").mkdir,
        (seen / "empty").unlink,
        lambda: (seen / "empty").chmod(0o777),
        lambda: os.chown(seen / "empty", 1, 1),
        lambda: os.utime(seen / "empty"),
        lambda: (seen / "empty").rename(seen / "full"),
        lambda: os.truncate(seen / "etc/config", 0),
    )
    for attempt in attempts:
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.EROFS
    wanted = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV
    assert os.statvfs(seen).f_flag & (wanted | os.ST_NOEXEC) == wanted


def test_programs_run(seen: Path) -> None:
    """The mount is not noexec: a model may bring a program."""
    assert os.access(seen / "bin/run", os.X_OK)


def test_the_view_may_go_while_a_pod_reads(seen: Path, store: Store, model: Model) -> None:
    """A target is a mount of its own: it stays readable when the view's mount, image and layers are gone from their places."""
    unmount_view(store.mounts / VIEW)
    assert not (store.mounts / VIEW).exists()
    for image in store.views.glob("*.erofs"):
        image.unlink()
    for name, data in model.content.items():
        assert (seen / name).read_bytes() == data


def test_mounts_are_recognised(seen: Path, store: Store, strategy: Strategy) -> None:
    """After a restart mountinfo alone tells how a view is mounted, and which view a target shows."""
    expected = Strategy.MATERIALISE if strategy in PLAIN else strategy
    assert is_mounted(store.mounts / VIEW)
    assert mounted_strategy(store.mounts / VIEW) is expected
    (mount,) = mounts_at(seen)
    assert shown_view(mount, store.views) == VIEW
    assert shown_view(mount, store.root / "elsewhere" / "content") is None
    assert shown_view(mounts_at("/proc")[-1], store.views) is None
