from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import MountError, UnsupportedError
from csi_model.linux.kernel import KernelVersion
from csi_model.linux.mountinfo import read_mounts
from csi_model.mount import probe as probing
from csi_model.mount.probe import probe
from csi_model.mount.strategy import LADDER, Strategy
from csi_model.mount.superblock import mount_erofs

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.root


def test_this_kernel_does_all_and_nothing_is_left(tmp_path: Path) -> None:
    """On this machine every strategy mounts and reads, and no file, mount or descriptor stays behind."""
    before = read_mounts(), len(list(Path("/proc/self/fd").iterdir()))
    ladder = probe(tmp_path)
    assert {rung.strategy: rung.works for rung in ladder.rungs} == dict.fromkeys(LADDER, True), ladder
    assert ladder.links.works
    assert ladder.best is Strategy.EROFS_DIRECT
    assert not list(tmp_path.iterdir())
    assert (read_mounts(), len(list(Path("/proc/self/fd").iterdir()))) == before


def test_tmpfs_has_no_file_backed_mounts() -> None:
    """Where files cannot be mounted the reason says so, and the lower rungs are there."""
    ladder = probe(Path("/dev/shm"))
    direct = ladder.rungs[0]
    assert not direct.works
    assert "cannot mount an image from a file" in direct.reason
    assert not ladder.works(Strategy.EROFS_BUFFERED)
    assert ladder.works(Strategy.MATERIALISE)
    assert ladder.best is Strategy.EROFS_LOOP


def test_a_kernel_without_the_fix_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Direct I/O that works is still refused on a kernel that may crash by it."""
    monkeypatch.setattr(KernelVersion, "running", lambda: KernelVersion.parse("6.12.43+deb13-amd64"))
    ladder = probe(tmp_path)
    assert not ladder.rungs[0].works
    assert "CVE-2026-23224" in ladder.rungs[0].reason
    assert "6.12.43+deb13-amd64" in ladder.rungs[0].reason
    assert ladder.best is Strategy.EROFS_LOOP


def test_a_mount_that_reads_wrong_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounting is not enough: an image whose bytes come out wrong, as swapped devices do, is found by reading."""

    def swapped(image: Path, devices: Sequence[Path], strategy: Strategy) -> int:
        return mount_erofs(image, (devices[0], devices[0]), strategy)

    monkeypatch.setattr(probing, "mount_erofs", swapped)
    ladder = probe(tmp_path)
    assert [rung.works for rung in ladder.rungs] == [False, False, False, True], ladder


def test_a_filesystem_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links that the filesystem refuses are reported, and leave nothing behind."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    ladder = probe(tmp_path)
    assert not ladder.links.works
    assert "no hard links" in ladder.links.reason
    assert not list(tmp_path.iterdir())


def test_what_a_killed_probe_left_is_removed(tmp_path: Path) -> None:
    """Names that a kill left go with a later probe; those of a probe that runs now stay."""
    old, young = tmp_path / ".probe-link-old", tmp_path / ".probe-link-young"
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    assert probe(tmp_path).links.works
    assert list(tmp_path.iterdir()) == [young]


def test_what_another_probe_removes_is_no_failure(tmp_path: Path) -> None:
    """A stale name that is gone when it is looked at, as a dangling link is, ends no probe."""
    (tmp_path / ".probe-link-gone").symlink_to(tmp_path / "absent")
    assert probe(tmp_path).links.works


def test_a_path_too_long_for_the_kernel_is_found_out(tmp_path: Path) -> None:
    """Where the name of a layer file would not fit into a mount option, rungs that put it there do not work, and loop devices do."""
    longest = 255 - len("/content/sha512/") - 128
    state = tmp_path / ("x" * (longest - len(os.fsencode(tmp_path)) - 1))
    for path, works in ((state, True), (state.with_name(f"{state.name}x"), False)):
        path.mkdir()
        ladder = probe(path)
        assert {rung.strategy for rung in ladder.rungs if not rung.works} == (
            set() if works else {Strategy.EROFS_DIRECT, Strategy.EROFS_BUFFERED}
        )
    assert f"path of {longest + 1} bytes" in ladder.rungs[0].reason
    assert ladder.best is Strategy.EROFS_LOOP


def test_forced_rungs(tmp_path: Path) -> None:
    """A forced rung is the best one; links are no rung and cannot be forced."""
    assert probe(tmp_path, Strategy.EROFS_BUFFERED).best is Strategy.EROFS_BUFFERED
    with pytest.raises(UnsupportedError, match="materialise"):
        probe(tmp_path, Strategy.LINKS)


def test_a_state_directory_that_is_not_there(tmp_path: Path) -> None:
    """A missing state directory is our error, and names it."""
    with pytest.raises(MountError, match="absent"):
        probe(tmp_path / "absent")
