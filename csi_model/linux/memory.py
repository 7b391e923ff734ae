"""How much memory a pull may fill with page cache: the machine's, and the limit of the cgroup that the pages are charged to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from csi_model.linux.mountinfo import Mount, read_mounts

_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)
# cgroup v1 writes "no limit" as the largest multiple of the page size below 2**63.
_UNLIMITED = 1 << 62


@dataclass(frozen=True, slots=True)
class _Accounting:
    """Where one cgroup version keeps a group's memory limit and use."""

    filesystem: str
    controller: str
    limit: str
    usage: str


_V1 = _Accounting("cgroup", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
_V2 = _Accounting("cgroup2", "", "memory.max", "memory.current")


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """The kernel's estimate of what can be had without swapping; 0 when it does not say."""
    found = _AVAILABLE.search(meminfo.read_text())
    return int(found[1]) * 1024 if found else 0


def cgroup_room(proc: Path = Path("/proc/self")) -> int | None:
    """Bytes left below the tightest memory limit of our cgroup and its ancestors, or None without a limit.

    Page cache that the group already holds counts as room, for the kernel takes it back first. Looks at v2 and v1; groups whose
    files cannot be seen from this container say nothing.
    """
    mounts = read_mounts(proc / "mountinfo")
    groups = (proc / "cgroup").read_text().splitlines()
    rooms = [room for accounting in (_V1, _V2) for room in _rooms(accounting, groups, mounts)]
    return min(rooms, default=None)


def _rooms(accounting: _Accounting, groups: list[str], mounts: tuple[Mount, ...]) -> list[int]:
    path = _group_path(accounting, groups)
    mount = next((m for m in mounts if m.filesystem == accounting.filesystem and _controls(accounting, m)), None)
    if path is None or mount is None:
        return []
    # In a container the mount shows only a part of the hierarchy (its root); what lies above cannot be read.
    inside = path.removeprefix(mount.root) if mount.root != "/" else path
    top = Path(mount.target)
    group = top / inside.strip("/")
    rooms = []
    while True:
        room = _room(group, accounting)
        if room is not None:
            rooms.append(room)
        if group == top or top not in group.parents:
            return rooms
        group = group.parent


def _room(group: Path, accounting: _Accounting) -> int | None:
    limit = _number(group / accounting.limit)
    if limit is None or limit >= _UNLIMITED:
        return None
    used = _number(group / accounting.usage) or 0
    return max(0, limit - used + _reclaimable(group))


def _reclaimable(group: Path) -> int:
    try:
        words = (group / "memory.stat").read_text().split()
    except FileNotFoundError:
        return 0
    statistics = dict(zip(words[::2], words[1::2], strict=False))
    prefix = "total_" if "total_inactive_file" in statistics else ""  # v1 gives totals of the subtree separately
    return int(statistics.get(f"{prefix}inactive_file", 0)) + int(statistics.get(f"{prefix}active_file", 0))


def _controls(accounting: _Accounting, mount: Mount) -> bool:
    return not accounting.controller or accounting.controller in mount.super_options


def _group_path(accounting: _Accounting, groups: list[str]) -> str | None:
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if accounting.controller in controllers.split(","):
            return path
    return None


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    return None if text == "max" else int(text)
