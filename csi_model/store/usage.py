"""What the state directory weighs, by what it is for: found by looking at every file, which is for somebody who can wait."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.store.faults import disk_errors

if TYPE_CHECKING:
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
        UnavailableError: a directory cannot be read.
    """
    with disk_errors(f"cannot add up {root}"):
        return Usage(
            content=_weigh(root / "content", linked=True),
            ingest=_weigh(root / "ingest", linked=True),
            views=_weigh(root / "views", linked=False),
        )


def _weigh(directory: Path, *, linked: bool) -> int:
    """The lengths of all files below; those that have a second name only where they are ``linked``."""
    total = 0
    waiting = [str(directory)]
    while waiting:
        try:
            entries = os.scandir(waiting.pop())
        except FileNotFoundError:
            continue
        with entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
                elif stat.S_ISREG(status.st_mode) and (linked or status.st_nlink == 1):
                    total += status.st_size
    return total
