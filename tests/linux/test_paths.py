from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from csi_model.linux.mountinfo import mounts_at
from csi_model.linux.mounts import closing
from csi_model.linux.paths import mount_place, open_beneath

if TYPE_CHECKING:
    from pathlib import Path


def test_plain_paths_open(tmp_path: Path) -> None:
    """A path of real directories opens, close-on-exec."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    with closing(os.open(tmp_path, os.O_PATH)) as top, closing(open_beneath(top, "a/b", os.O_PATH)) as found:
        assert os.path.samestat(os.fstat(found), (tmp_path / "a" / "b").stat())
        assert not os.get_inheritable(found)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("link", errno.ELOOP),
        ("link/b", errno.ELOOP),
        ("a/up", errno.ELOOP),
        ("..", errno.EXDEV),
        ("a/../../x", errno.EXDEV),
        ("/etc", errno.EXDEV),
    ],
)
def test_links_and_ways_out_are_refused(tmp_path: Path, path: str, expected: int) -> None:
    """A symlink in any component, and every way out of the directory, ends in an error before anything is opened."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "a" / "up").symlink_to("/etc")
    with closing(os.open(tmp_path, os.O_PATH)) as top, pytest.raises(OSError) as caught:
        open_beneath(top, path, os.O_PATH)
    assert caught.value.errno == expected


def test_mount_roots_are_told_from_other_directories() -> None:
    """/proc is the root of a mount with the id that mountinfo shows, /proc/self is inside it."""
    with closing(os.open("/proc", os.O_PATH)) as proc, closing(os.open("/proc/self", os.O_PATH)) as inside:
        assert mount_place(proc).is_root
        assert not mount_place(inside).is_root
        assert mount_place(proc).mount_id == mount_place(inside).mount_id == mounts_at("/proc")[-1].mount_id
