"""Tar entries as values: what a header said, and where the entry's bytes lie in the layer file."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

_ENTRY = 256
_SEGMENT = 128


class Kind(enum.Enum):
    """What an entry makes."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARD_LINK = "hard link"
    SPECIAL = "device or FIFO"


class Segment(NamedTuple):
    """``length`` bytes of a file: at byte ``offset`` of the layer file, or zeros that are stored nowhere when it is None."""

    length: int
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry, its extended headers already applied; nothing here is trusted to be a safe path.

    ``name`` and ``link`` are bytes as stored. ``mode`` is reduced to permission bits, ``mtime_ns`` to the years 1970 to 9999.
    ``offset`` is where the data of a plain file begins; ``sparse`` replaces it for a sparse one.
    """

    kind: Kind
    name: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    offset: int = 0
    link: bytes = b""
    sparse: tuple[Segment, ...] | None = None

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes."""
        return _ENTRY + len(self.name) + len(self.link) + (_SEGMENT * len(self.sparse) if self.sparse is not None else 0)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The file's bytes in order; the lengths add up to ``size`` and none is zero."""
        if self.sparse is not None:
            return self.sparse
        return (Segment(self.size, self.offset),) if self.size else ()
