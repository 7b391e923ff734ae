"""Sparse files in tar: GNU's old format (type ``S``) and its PAX formats 0.0, 0.1 and 1.0, turned into segments.

Layout: GNU tar manual, appendix "Storing Sparse Files". A map lists the regions that are stored; all else is zeros.
Malformed maps raise ValueError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.tree.entries import Segment
from csi_model.tree.header import number
from csi_model.tree.pax import decimal

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SEGMENTS = 2**18
"""Stored regions that one sparse file may have; a map beyond it costs more memory than any real file needs."""

Region = tuple[int, int]
"""Offset in the file, and length."""

_OLD_MAP = 386
_OLD_MORE = 482
_OLD_SIZE = 483


def old_header(block: bytes) -> tuple[list[Region], int, bool]:
    """The regions in an old GNU header, the file's true size, and whether an extension block follows."""
    size = number(block[_OLD_SIZE : _OLD_SIZE + 12])
    return _old_regions(block[_OLD_MAP : _OLD_MAP + 4 * 24]), size, block[_OLD_MORE] != 0


def old_extension(block: bytes) -> tuple[list[Region], bool]:
    """The regions in an extension block, and whether another follows."""
    return _old_regions(block[: 21 * 24]), block[21 * 24] != 0


def _old_regions(table: bytes) -> list[Region]:
    regions = []
    for at in range(0, len(table), 24):
        if not table[at]:
            break
        regions.append((number(table[at : at + 12]), number(table[at + 12 : at + 24])))
    return regions


def comma_map(value: bytes) -> list[Region]:
    """The regions of formats 0.0 and 0.1: ``offset,length,offset,length…``."""
    numbers = [decimal(item, "sparse map") for item in value.split(b",")] if value else []
    return _pairs(numbers)


class LineMap:
    """The map of format 1.0, which stands before the data: a count and then offsets and lengths, a line each.

    It fills whole blocks; feed them one at a time until `complete`.
    """

    def __init__(self) -> None:
        self._text = b""
        self._numbers: list[int] = []
        self._wanted = 1
        self.complete = False

    def feed(self, block: bytes) -> None:
        """Take the next block of the map."""
        *lines, self._text = (self._text + block).split(b"\n")
        for line in lines:
            if len(self._numbers) == self._wanted:
                break
            self._numbers.append(decimal(line, "sparse map"))
            if len(self._numbers) == 1:
                check_count(self._numbers[0])
                self._wanted = 1 + 2 * self._numbers[0]
        if len(self._numbers) == self._wanted:
            self.complete = True
        elif len(self._text) > 20:
            msg = "its sparse map holds something else than numbers"
            raise ValueError(msg)

    @property
    def regions(self) -> list[Region]:
        """The regions read; to be asked when complete."""
        return _pairs(self._numbers[1:])


def check_count(count: int) -> None:
    """Refuse a map that is too long to be honest."""
    if count > MAX_SEGMENTS:
        msg = f"its sparse map has {count} regions, above the limit of {MAX_SEGMENTS}"
        raise ValueError(msg)


def lay_out(regions: Sequence[Region], *, size: int, data: int, stored: int) -> tuple[Segment, ...]:
    """Segments of a file of ``size`` bytes whose stored regions follow one another from byte ``data`` of the layer.

    Raises:
        ValueError: regions that overlap, run backwards, pass the file's end, or do not add up to the ``stored`` bytes.
    """
    check_count(len(regions))
    segments: list[Segment] = []
    at = 0
    source = data
    for offset, length in regions:
        if offset < at or length < 0 or offset + length > size:
            msg = "its sparse map has regions that overlap or pass the end of the file"
            raise ValueError(msg)
        if not length:
            continue
        if offset > at:
            segments.append(Segment(offset - at))
        if segments and segments[-1].offset is not None:
            # Neighbours in the file are neighbours in the archive: one segment.
            segments[-1] = Segment(segments[-1].length + length, segments[-1].offset)
        else:
            segments.append(Segment(length, source))
        source += length
        at = offset + length
    if source - data != stored:
        msg = f"its sparse map describes {source - data} bytes where {stored} are stored"
        raise ValueError(msg)
    if at < size:
        segments.append(Segment(size - at))
    return tuple(segments)


def _pairs(numbers: Sequence[int]) -> list[Region]:
    if len(numbers) % 2:
        msg = "its sparse map does not pair offsets with lengths"
        raise ValueError(msg)
    check_count(len(numbers) // 2)
    return list(zip(numbers[::2], numbers[1::2], strict=True))
