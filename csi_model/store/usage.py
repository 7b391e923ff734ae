"""What the state directory weighs, by what it is for: found by looking at every file, which is for somebody who can wait."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.store.faults import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes: verified content, unfinished ingests, and the images and plain files of views; hard links to content weigh nothing."""

    content: int
    ingest: int
    views: int


def usage(root: Path) -> Usage:
    """Add up the files of the store in ``root``; those that vanish meanwhile count for nothing.

    Raises:
        DiskError: a directory cannot be read.
    """
    with disk_errors(f"cannot add up {root}"):
        counted: set[tuple[int, int]] = set()
        return Usage(*(_weight(root / name, counted) for name in ("content", "ingest", "views")))


def _weight(directory: Path, counted: set[tuple[int, int]]) -> int:
    """The bytes of the files below; of one with several names only where it is met first, which ``counted`` remembers."""
    weight = 0
    for file in _files(directory):
        inode = (file.st_dev, file.st_ino)
        if inode not in counted:
            weight += file.st_size
        if file.st_nlink > 1:
            counted.add(inode)
    return weight


def _files(directory: Path) -> Iterator[os.stat_result]:
    """What is known of each file below."""
    waiting = [str(directory)]
    while waiting:
        with suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(entry.path)
                    elif stat.S_ISREG(status.st_mode):
                        yield status
