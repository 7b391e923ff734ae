"""Who holds a lock on a file, without touching the lock (/proc/locks, proc_locks(5))."""

from __future__ import annotations

import os
from pathlib import Path

_LOCKS = Path("/proc/locks")


def flock_holder(path: Path) -> int | None:
    """The process that holds ``path`` with flock; None when none does, or one of another pid namespace, whom the kernel does not show.

    Raises ``OSError`` when the file cannot be looked at.
    """
    return parse_holder(_LOCKS.read_text(), path.stat())


def parse_holder(table: str, status: os.stat_result) -> int | None:
    """The holder of the flock on the file of this status, out of the kernel's table."""
    major, minor = os.major(status.st_dev), os.minor(status.st_dev)
    for line in table.splitlines():
        fields = line.split()
        # "7: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"; who waits for a lock has "->" before FLOCK.
        if len(fields) < 6 or fields[1] != "FLOCK":
            continue
        device, _, inode = fields[5].rpartition(":")
        if device == f"{major:02x}:{minor:02x}" and int(inode) == status.st_ino and int(fields[4]) > 0:
            return int(fields[4])
    return None
