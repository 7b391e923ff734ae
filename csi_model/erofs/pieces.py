"""Bytes at rising offsets, gathered into pieces of about a megabyte so that no image is ever one huge buffer twice."""

from __future__ import annotations

_PIECE = 1 << 20


class PieceWriter:
    """Collects writes whose offsets only rise; gaps are zeros."""

    __slots__ = ("_buffer", "_pieces", "_start")

    def __init__(self, start: int) -> None:
        self._start = start
        self._buffer = bytearray()
        self._pieces: list[tuple[int, bytes]] = []

    def write(self, offset: int, data: bytes) -> None:
        """Put ``data`` at ``offset``, which lies at or behind the end of what was written before."""
        gap = offset - self._start - len(self._buffer)
        if gap:
            self._buffer += bytes(gap)
        self._buffer += data
        if len(self._buffer) >= _PIECE:
            self._flush()

    def finish(self) -> list[tuple[int, bytes]]:
        """Every piece, in order of offset."""
        self._flush()
        return self._pieces

    def _flush(self) -> None:
        if self._buffer:
            self._pieces.append((self._start, bytes(self._buffer)))
            self._start += len(self._buffer)
            self._buffer.clear()
