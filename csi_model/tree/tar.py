"""Tar archives read as data: which entries there are and where their bytes lie. Nothing is ever unpacked.

`TarIndexer` reads a stream, `scan` a file that can be read anywhere; `csi_model.tree.archive` does the reading for both, and asks for
headers only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import CsiModelError
from csi_model.tree.archive import MAX_ENTRIES, Archive
from csi_model.tree.entries import Kind, Segment, TarEntry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_ENTRIES", "Kind", "Segment", "TarEntry", "TarIndexer", "scan"]

_WINDOW = 1 << 16
_PEEK = 1 << 12  # an extended header, its body and the entry's own header: 3 blocks as a rule
_NEAR = 1 << 13


class TarIndexer:
    """Indexes a tar while it streams by: `feed` it every byte in order, then `finish`.

    A piece that holds nothing but file contents costs one comparison, whatever its length. Only unfinished headers are kept, so the
    caller may reuse its buffer at once. Not thread-safe. After an error every further call raises that error again.
    """

    def __init__(self) -> None:
        self._archive = Archive()
        self._reading = self._archive.read()
        self._at, self._length = next(self._reading)
        self._position = 0
        self._pending = b""
        self._entries: tuple[TarEntry, ...] | None = None
        self._failure: CsiModelError | None = None

    @property
    def weight(self) -> int:
        """About how many bytes of memory the entries take until now."""
        return self._archive.weight

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; a memoryview must be one of bytes.

        Raises:
            CorruptContentError: not a tar, or a damaged one.
            UnsupportedError: an entry of a kind or size that is refused.
        """
        if self._failure is not None:
            raise self._failure
        start = self._position
        end = self._position = start + len(data)
        while self._entries is None and self._at + len(self._pending) < end:
            begin = self._at + len(self._pending) - start
            self._pending += bytes(data[begin : begin + self._length - len(self._pending)])
            if len(self._pending) < self._length:
                return
            self._answer()

    def finish(self) -> tuple[TarEntry, ...]:
        """Say that this was all; returns the entries in the archive's order.

        Raises:
            CorruptContentError: the archive ends in the middle of an entry.
        """
        if self._failure is not None:
            raise self._failure
        self._archive.end = self._position
        while self._entries is None:
            self._answer()
        return self._entries

    def _answer(self) -> None:
        answer, self._pending = self._pending, b""
        try:
            self._at, self._length = self._reading.send(answer)
        except StopIteration as stop:
            self._entries = stop.value
        except CsiModelError as error:
            self._failure = error
            raise


def scan(read: Callable[[int, int], bytes], size: int) -> tuple[TarEntry, ...]:
    """Index a tar of ``size`` bytes, where ``read(offset, length)`` gives those bytes.

    Reads a window at a time where files are small and little more than headers where they are large.

    Raises:
        CorruptContentError: not a tar, or a damaged one.
        UnsupportedError: an entry of a kind or size that is refused.
    """
    archive = Archive()
    archive.end = size
    reading = archive.read()
    window, window_at = b"", 0
    at, length = next(reading)
    while True:
        begin = at - window_at
        if begin + length > len(window):
            span = _WINDOW if at - window_at - len(window) < _NEAR else _PEEK
            window, window_at, begin = read(at, max(0, min(max(span, length), size - at))), at, 0
        try:
            at, length = reading.send(window[begin : begin + length])
        except StopIteration as stop:
            entries: tuple[TarEntry, ...] = stop.value
            return entries
