from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from csi_model.linux.locks import flock_holder, parse_holder

if TYPE_CHECKING:
    from pathlib import Path


def test_the_holder_is_told_without_taking_the_lock(tmp_path: Path) -> None:
    """The process that holds a flock is found; when it lets go, nobody is."""
    path = tmp_path / "lock"
    with path.open("w") as file:
        assert flock_holder(path) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert flock_holder(path) == os.getpid()
        fcntl.flock(file, fcntl.LOCK_UN)
        assert flock_holder(path) is None


def test_only_this_file_counts(tmp_path: Path) -> None:
    """A lock on another file, of another kind, or only waited for, does not make a holder."""
    path = tmp_path / "lock"
    path.touch()
    status = path.stat()
    device, inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}", status.st_ino
    others = (
        f"1: FLOCK  ADVISORY  WRITE 11 {device}:{inode + 1} 0 EOF\n"
        f"2: FLOCK  ADVISORY  WRITE 12 fe:fe:{inode} 0 EOF\n"
        f"3: POSIX  ADVISORY  WRITE 13 {device}:{inode} 0 EOF\n"
        f"4: OFDLCK ADVISORY  READ -1 {device}:{inode} 0 EOF\n"
        f"5: -> FLOCK  ADVISORY  WRITE 15 {device}:{inode} 0 EOF\n"
        f"6: FLOCK  ADVISORY  WRITE 0 {device}:{inode} 0 EOF\n\n"
    )
    assert parse_holder(others, status) is None
    assert parse_holder(f"{others}7: FLOCK  ADVISORY  WRITE 17 {device}:{inode} 0 EOF\n", status) == 17
