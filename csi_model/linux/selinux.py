"""Whether SELinux is at work in the kernel that this process runs on."""

from __future__ import annotations

from pathlib import Path

_FILESYSTEMS = Path("/proc/filesystems")


def is_enabled(filesystems: Path = _FILESYSTEMS) -> bool:
    """Whether the kernel was booted with SELinux, enforcing or not: a runtime relabels volumes in both cases.

    Told by the kernel's list of filesystems, which has selinuxfs only then and is the same in every container; selinuxfs itself is mounted
    on the host and seldom in a container. A kernel without such a list has no SELinux to speak of.
    """
    try:
        return any(line.split()[-1:] == ["selinuxfs"] for line in filesystems.read_text(encoding="ascii", errors="replace").splitlines())
    except OSError:
        return False
