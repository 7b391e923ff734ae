from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_model.linux.memory import available_bytes, cgroup_room

if TYPE_CHECKING:
    from pathlib import Path

_GIB = 1 << 30


def _proc(tmp_path: Path, *, groups: str, mountinfo: str) -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text(mountinfo.replace("TOP", str(tmp_path / "top")))
    return proc


def _group(tmp_path: Path, path: str, **files: object) -> None:
    group = tmp_path / "top" / path
    group.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (group / name.replace("__", ".")).write_text(f"{content}\n")


_V2 = "31 23 0:28 / TOP rw - cgroup2 cgroup2 rw\n"
_V1 = "30 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n35 31 0:31 ROOT TOP rw - cgroup cgroup rw,memory\n"


def test_available_memory(tmp_path: Path) -> None:
    """MemAvailable is read in kB; without it nothing is promised."""
    (tmp_path / "meminfo").write_text("MemTotal:       100 kB\nMemAvailable:    42 kB\n")
    assert available_bytes(tmp_path / "meminfo") == 42 * 1024
    (tmp_path / "meminfo").write_text("MemTotal:       100 kB\n")
    assert available_bytes(tmp_path / "meminfo") == 0
    assert available_bytes() > 0


def test_v2_takes_the_tightest_of_nested_limits(tmp_path: Path) -> None:
    """A pod's limit binds its unlimited container; what the group's page cache holds counts as room."""
    _group(tmp_path, "pod/box", memory__max="max", memory__current=_GIB)
    _group(
        tmp_path, "pod", memory__max=4 * _GIB, memory__current=3 * _GIB, memory__stat=f"anon 5\nactive_file {_GIB}\ninactive_file {_GIB}"
    )
    _group(tmp_path, "", memory__max=64 * _GIB, memory__current=0)
    proc = _proc(tmp_path, groups="0::/pod/box\n", mountinfo=_V2)
    assert cgroup_room(proc) == 3 * _GIB


def test_v1_limit_of_the_own_group(tmp_path: Path) -> None:
    """v1's files have other names, its totals count the subtree, and its huge default is no limit."""
    _group(
        tmp_path,
        "a/b",
        memory__limit_in_bytes=2 * _GIB,
        memory__usage_in_bytes=_GIB,
        memory__stat="inactive_file 1\ntotal_inactive_file 5\ntotal_active_file 2",
    )
    _group(tmp_path, "a", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=7 * _GIB)
    proc = _proc(tmp_path, groups="5:cpu:/x\n4:memory:/a/b\n0::/\n", mountinfo=_V1.replace("ROOT", "/"))
    assert cgroup_room(proc) == _GIB + 7


def test_container_that_sees_only_its_own_group(tmp_path: Path) -> None:
    """With the group itself mounted as the top, its path is taken relative to the mount's root."""
    _group(tmp_path, "", memory__limit_in_bytes=_GIB, memory__usage_in_bytes=0)
    proc = _proc(tmp_path, groups="4:memory:/kubepods/pod1\n", mountinfo=_V1.replace("ROOT", "/kubepods/pod1"))
    assert cgroup_room(proc) == _GIB


def test_use_above_the_limit_leaves_no_room(tmp_path: Path) -> None:
    """Room is never negative."""
    _group(tmp_path, "g", memory__max=100, memory__current=200)
    assert cgroup_room(_proc(tmp_path, groups="0::/g\n", mountinfo=_V2)) == 0


@pytest.mark.parametrize("groups", ["0::/absent\n", "", "3:cpu:/\n"])
def test_without_a_limit_there_is_none(tmp_path: Path, groups: str) -> None:
    """A group that cannot be seen, or no group, limits nothing."""
    (tmp_path / "top").mkdir()
    assert cgroup_room(_proc(tmp_path, groups=groups, mountinfo=_V2)) is None


def test_this_process() -> None:
    """The machine's own files are understood."""
    room = cgroup_room()
    assert room is None or room >= 0
