"""What a node could leave on the machine: folders, mounts, processes, loop devices, cgroups, network interfaces."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from e2e.kubernetes.keeper import PREFIX, cgroups

_NAME = re.compile(re.escape(PREFIX) + r"\w+")
# Where Kubernetes and its tools write when nobody tells them to write elsewhere.
_USUAL = (
    "/etc/cni/net.d",
    "/etc/kubernetes",
    "/opt/cni",
    "/opt/containerd",
    "/run/cni",
    "/run/containerd",
    "/run/kubernetes",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/csi-model",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
    "~/.cache/helm",
    "~/.config/helm",
    "~/.kube",
)
# Where in a node's folder the files of loop devices lie: layers, views' images, disks of tests.
_HOLDS_IMAGES = ("disk/lib/csi-model", "tmp")
_LOOP_GET_STATUS64, _LOOP_INFO = 0x4C05, 232  # linux/loop.h, struct loop_info64


@dataclass(frozen=True, slots=True)
class Traces:
    """What of nodes is on this machine at one moment."""

    found: frozenset[str]

    def since(self, before: Traces, name: str) -> list[str]:
        """What has come since then, apart from what belongs to nodes of other names, which others may run at the same time."""
        return sorted(trace for trace in self.found - before.found if name in trace or PREFIX not in trace)


def traces() -> Traces:
    """Look at the machine. Other nodes that run now are seen as well."""
    found = {f"path {path}" for path in (*_USUAL, *(str(path) for path in Path("/var/tmp").glob(f"{PREFIX}*"))) if _there(path)}
    found |= {f"network interface {path.name}" for path in Path("/sys/class/net").iterdir()}
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            file = backing.read_text().strip()
            if file.startswith("/var/lib/") or PREFIX in file:  # what nodes have; others on this machine have theirs elsewhere
                found.add(f"loop device {backing.parts[3]} of {file}{_owner(backing.parts[3])}")
    for top in cgroups(""):
        found |= {f"cgroup {path}" for path in top.glob(f"{PREFIX}*")}
        found |= {f"cgroup {top / name}" for name in ("kubepods", "k8s.io") if (top / name).exists()}
    for process in Path("/proc").glob("[0-9]*"):
        found |= _of_process(process)
    return Traces(frozenset(found))


def _there(path: str) -> bool:
    return os.path.lexists(Path(path).expanduser())


def _owner(loop: str) -> str:
    """In which node's folder a loop device's file lies; nothing when no node has it, or has it any more.

    The file's path, as the kernel tells it, is that of the node's own mounts, and equal for all nodes.
    """
    device = os.open(f"/dev/{loop}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = bytearray(_LOOP_INFO)
        fcntl.ioctl(device, _LOOP_GET_STATUS64, status)
    finally:
        os.close(device)
    identity = struct.unpack_from("=QQ", status)  # lo_device and lo_inode
    for folder in Path("/var/tmp").glob(f"{PREFIX}*"):
        for place, _, names in (step for top in _HOLDS_IMAGES for step in os.walk(folder / top)):
            for name in names:
                with contextlib.suppress(OSError):
                    found = Path(place, name).lstat()
                    if (found.st_dev, found.st_ino) == identity:
                        return f" in {folder.name}"
    return ""


def _of_process(process: Path) -> set[str]:
    """A process that has to do with a node, and the mounts that it sees of one."""
    found = set()
    with contextlib.suppress(OSError):
        command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        if PREFIX in command and process.name != str(os.getpid()):
            found.add(f"process {process.name}: {command}")
        mounts = (process / "mountinfo").read_text(errors="replace")
        found |= {f"mount {line.split()[4]} of {_NAME.findall(line)}" for line in mounts.splitlines() if PREFIX in line}
    return found
