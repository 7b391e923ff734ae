"""Which way a view is mounted and a pull is written: pure decisions over measured facts.

Nothing here touches the machine; ``probe`` measures, ``views`` acts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.errors import UnsupportedError
from csi_model.tree.nodes import Directory, Extent, File

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_model.linux.kernel import KernelVersion
    from csi_model.oci.digest import Digest

_MEBIBYTE = 1 << 20
WARM_SHARE = 0.9
SWITCH_AFTER = 60.0


class Strategy(enum.Enum):
    """How the files of a view come to be seen."""

    LINKS = "links"
    """A folder of hard links to raw layers, bound read-only."""
    EROFS_DIRECT = "erofs-direct"
    """An EROFS image mounted from its file, layers read past the page cache."""
    EROFS_LOOP = "erofs-loop"
    """The same image over loop devices with direct I/O."""
    EROFS_BUFFERED = "erofs-buffered"
    """The same image mounted from its file; what is read is cached twice."""
    MATERIALISE = "materialise"
    """Plain files written out, bound read-only."""


LADDER = (Strategy.EROFS_DIRECT, Strategy.EROFS_LOOP, Strategy.EROFS_BUFFERED, Strategy.MATERIALISE)
"""The rungs from best to worst. LINKS is none: it serves some views and not others."""


class WriteMode(enum.Enum):
    """How a pull's bytes reach the disk."""

    BUFFERED = "buffered"
    """Through the page cache, where the first reader finds them."""
    DIRECT = "direct"
    """Past it, evicting nobody's memory."""


@dataclass(frozen=True, slots=True)
class RungResult:
    """Whether one strategy works on this node, and why (not), for people."""

    strategy: Strategy
    works: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Ladder:
    """What the probe found: each rung from best to worst, whether hard links can be had, and which rung is forced, if any."""

    rungs: tuple[RungResult, ...]
    links: RungResult
    forced: Strategy | None = None

    def works(self, strategy: Strategy) -> bool:
        """Whether the probe saw this strategy working."""
        return any(rung.works for rung in (*self.rungs, self.links) if rung.strategy is strategy)

    @property
    def best(self) -> Strategy:
        """The forced rung, or the highest that works.

        Raises:
            UnsupportedError: none does; says why for each.
        """
        candidates = [rung for rung in self.rungs if self.forced in {None, rung.strategy}]
        for rung in candidates:
            if rung.works:
                return rung.strategy
        reasons = "; ".join(f"{rung.strategy.value}: {rung.reason}" for rung in candidates)
        forced = "the forced strategy does not work" if self.forced else "no way of mounting views works"
        msg = f"{forced} on this node ({reasons}); run `csi-model doctor` for the whole picture"
        raise UnsupportedError(msg)


def choose_view(ladder: Ladder, *, all_whole_raw: bool, pages_warm: bool) -> Strategy:
    """How to mount a view.

    Args:
        ladder: what works here. A forced rung is taken whatever the rest says.
        all_whole_raw: every file is a whole raw layer as it lies in the store (see ``links_only``).
        pages_warm: the layers' bytes are in memory and may be there a second time (see ``is_warm``).

    Raises:
        UnsupportedError: nothing works.
    """
    best = ladder.best
    if ladder.forced:
        return best
    if all_whole_raw and ladder.links.works:
        return Strategy.LINKS
    # Only a mount that can be switched to direct I/O later may begin buffered, or the model would be in memory twice for good.
    if pages_warm and best is Strategy.EROFS_DIRECT and ladder.works(Strategy.EROFS_BUFFERED):
        return Strategy.EROFS_BUFFERED
    return best


def choose_writes(size: int, *, available: int, cgroup_room: int | None, all_whole_raw: bool, direct_works: bool = True) -> WriteMode:
    """How to write a pull of ``size`` bytes, so that a model that fits in free memory is still there for its first reader.

    Args:
        size: bytes still to be written.
        available: the machine's MemAvailable, less what other running pulls will still fill.
        cgroup_room: what our cgroup's limit leaves (pages are charged to the writer), or None without a limit.
        all_whole_raw: the reader will use the very pages that are written; otherwise its first read makes a second copy of them.
        direct_works: whether the store's filesystem has direct I/O at all.
    """
    if not direct_works:
        return WriteMode.BUFFERED
    room = available if cgroup_room is None else min(available, cgroup_room)
    # A tenth, and never less than 256 MiB, stays for everybody else's page cache.
    spare = room - max(room // 10, 256 * _MEBIBYTE)
    return WriteMode.BUFFERED if size * (1 if all_whole_raw else 2) <= spare else WriteMode.DIRECT


def is_warm(*, resident: int, total: int, available: int) -> bool:
    """Whether so much of the layers is in memory that a buffered mount pays, with room for the copy that it makes."""
    return total > 0 and resident >= total * WARM_SHARE and available >= total


def should_switch(*, mounted_for: float, resident: int, total: int) -> bool:
    """Whether a view mounted buffered should now go direct: its own pages are in memory, or its first reader had ``SWITCH_AFTER`` s."""
    return mounted_for >= SWITCH_AFTER or resident >= total * WARM_SHARE


def directio_is_safe(version: KernelVersion) -> bool:
    """Whether EROFS's ``directio`` is free of CVE-2026-23224 (use after free), which no probe can see.

    Fixed in 6.12.72, 6.18.15, 6.19.5 and everything from 7.0 on; the series between them ended without the fix.
    """
    fixed = {(6, 12): 72, (6, 18): 15, (6, 19): 5}
    patch = fixed.get((version.major, version.minor))
    return version.major >= 7 or (patch is not None and version.patch >= patch)


def kernel_best(version: KernelVersion) -> Strategy:
    """The highest rung that a kernel of this version can do, where it was built with what the rung needs."""
    if directio_is_safe(version):
        return Strategy.EROFS_DIRECT
    blocks_of_512 = (version.major, version.minor) >= (6, 4) or ((version.major, version.minor) == (6, 1) and version.patch >= 113)
    return Strategy.EROFS_LOOP if blocks_of_512 else Strategy.MATERIALISE


def is_whole_layer(file: File, sizes: Mapping[Digest, int]) -> bool:
    """Whether a file is a whole content file, to the last attribute (0444, root, mtime 0), so that a hard link can stand for it."""
    if len(file.segments) != 1 or (file.mode, file.uid, file.gid, file.mtime_ns) != (0o444, 0, 0, 0):
        return False
    (segment,) = file.segments
    return isinstance(segment, Extent) and segment.offset == 0 and segment.length == file.size == sizes[segment.layer]


def links_only(root: Directory, sizes: Mapping[Digest, int]) -> bool:
    """Whether every file with bytes in it is a whole raw layer; ``sizes`` are the content files' true lengths."""
    waiting = [root]
    while waiting:
        for node in waiting.pop().children.values():
            if isinstance(node, Directory):
                waiting.append(node)
            elif isinstance(node, File) and node.size and not is_whole_layer(node, sizes):
                return False
    return True
