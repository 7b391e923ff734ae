"""A view that began buffered goes on with direct I/O once its first reader is through."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model.mount.strategy import should_switch
from csi_model.mount.views import residency, switch_to_direct

if TYPE_CHECKING:
    from collections.abc import Sequence

_WATCHED = 64
"""The largest files of a view, by which is told whether its first reader is through."""


class Switch:
    """Watches one view's mount at ``place``, until it is switched."""

    def __init__(self, place: Path, since: float) -> None:
        self._place = place
        self._since = since
        self._watched: tuple[Path, ...] | None = None

    def due(self, now: float) -> bool:
        """Whether the first reader is through, or had its time; both of ``time.monotonic()``.

        Raises:
            OSError: the view cannot be read.
        """
        if self._watched is None:
            self._watched = _largest_files(self._place)
        read = residency(self._watched)
        return should_switch(mounted_for=now - self._since, resident=read.resident, total=read.total)

    def throw(self, layers: Sequence[Path]) -> None:
        """Switch, and let go of the pages of the layer files.

        Raises:
            MountError: the kernel refused.
        """
        switch_to_direct(self._place, layers)


def _largest_files(place: Path) -> tuple[Path, ...]:
    """Regular files only: what a symlink leads to is none of ours, and has other pages."""
    paths = (Path(folder, name) for folder, _, names in os.walk(place) for name in names)
    found = [(status.st_size, path) for path in paths if stat.S_ISREG((status := path.lstat()).st_mode)]
    return tuple(path for _, path in sorted(found, reverse=True)[:_WATCHED])
