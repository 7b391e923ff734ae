"""Decoding: a compressed blob's pieces become the bytes of its layer file, filled into the caller's buffers.

Both decoders read across members and frames to the last byte of the blob, and accept nothing behind it: neither garbage nor padding
(Go's readers, which containerd and the registries' own tools use, refuse both). Output comes only as fast as buffers are offered, so a
bomb is met by the disk's reserve, never by memory.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Protocol, cast

import zstandard
from isal import igzip_lib

from csi_model.errors import CorruptContentError
from csi_model.formats.placement import Compression
from csi_model.pull.zstdframes import MAX_WINDOW, FrameWalker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_model.pull.pool import Piece

_CHUNK = 256 << 10
"""Bytes that a decoder takes, and igzip gives, at a time: larger pieces of memory cost a page fault for each of their pages."""
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after one byte from 0x50 to 0x5f

MAGIC_BYTES = 4
"""How much of a blob ``detect`` wants to see."""


def detect(head: bytes) -> Compression:
    """How a tar that starts with these bytes is compressed. A tar itself starts with a name, which none of the magics can begin."""
    if head.startswith(_GZIP_MAGIC):
        return Compression.GZIP
    if head.startswith(_ZSTD_MAGIC) or (len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == _SKIPPABLE):
        return Compression.ZSTD
    return Compression.NONE


class Decoder(Protocol):
    """Decoded bytes, drawn on demand."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as there are bytes; return how many; 0 only at the true end of the stream.

        Raises:
            CorruptContentError: damaged, truncated or followed by other bytes.
            UnsupportedError: it needs more memory than is allowed, or a dictionary.
        """

    def close(self) -> None:
        """Release the piece that it is at, if any: one that failed or is given up has taken only a part of it. Fine to call twice."""


def decoder(compression: Compression, pieces: Iterator[Piece]) -> Decoder:
    """The decoder for gzip or zstd; it releases the pieces that it takes, the last of them when it is closed."""
    stream = _Chunks(pieces)
    if compression is Compression.GZIP:
        return _Gzip(stream)
    assert compression is Compression.ZSTD
    return _Zstd(stream)


class _Chunks:
    """The pieces as bytes of modest size."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._piece: Piece | None = None
        self._position = 0

    def next(self) -> memoryview:
        """The next bytes, which are there until this or ``close`` is called again; empty at the end."""
        if self._piece is not None and self._position >= self._piece.length:
            self.close()
        while self._piece is None:
            piece = next(self._pieces, None)
            if piece is None:
                return memoryview(b"")
            self._piece, self._position = piece, 0
        with self._piece.view as view:
            chunk = view[self._position : self._position + _CHUNK]
        self._position += len(chunk)
        return chunk

    def close(self) -> None:
        piece, self._piece = self._piece, None
        if piece is not None:
            piece.release()


class _Gzip:
    """Any number of members (RFC 1952, 2.2), each with its CRC and length checked by igzip."""

    def __init__(self, chunks: _Chunks) -> None:
        self._chunks = chunks
        self._member = _new_member()
        self._rest: bytes | memoryview = b""  # what the member before left over: the beginning of this one
        self._ended = False

    def readinto(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer) and not self._ended:
            data = self._decompress(self._input(), min(_CHUNK, len(buffer) - filled))
            buffer[filled : filled + len(data)] = data
            filled += len(data)
            if self._member.eof:
                self._next_member()
        return filled

    def close(self) -> None:
        self._chunks.close()

    def _input(self) -> bytes | memoryview:
        if not self._member.needs_input:
            return b""
        chunk, self._rest = self._rest or self._chunks.next(), b""
        if not chunk:
            msg = "the gzip stream ends in the middle of a member; the blob was truncated before it was pushed"
            raise CorruptContentError(msg)
        return chunk

    def _decompress(self, chunk: bytes | memoryview, limit: int) -> bytes:
        try:
            return self._member.decompress(chunk, limit)
        except igzip_lib.IsalError as error:  # type: ignore[misc] # its stub says that it is an instance
            msg = f"the gzip stream is damaged ({error})"
            raise CorruptContentError(msg) from error

    def _next_member(self) -> None:
        rest = bytes(self._member.unused_data)
        while len(rest) < len(_GZIP_MAGIC):
            chunk = self._chunks.next()
            if not chunk:
                break
            rest += chunk
        if not rest:
            self._ended = True
            return
        if not rest.startswith(_GZIP_MAGIC):
            msg = "the gzip stream is followed by bytes that are none; the blob was damaged or padded before it was pushed"
            raise CorruptContentError(msg)
        self._member, self._rest = _new_member(), rest


def _new_member() -> igzip_lib.IgzipDecompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


class _Zstd:
    """Any number of frames, skippable ones included."""

    def __init__(self, chunks: _Chunks) -> None:
        self._chunks = chunks
        self._walker = FrameWalker()
        self._reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(
            cast("IO[bytes]", self), read_size=_CHUNK, read_across_frames=True
        )

    def read(self, _size: int) -> memoryview:
        """What the decoder calls for its input."""
        chunk = self._chunks.next()
        if chunk:
            self._walker.feed(chunk)
        else:
            self._walker.finish()
        return chunk

    def readinto(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer):
            try:
                got = self._reader.readinto(buffer[filled:])
            except zstandard.ZstdError as error:
                msg = f"the zstd stream is damaged ({error})"
                raise CorruptContentError(msg) from error
            if not got:
                break
            filled += got
        return filled

    def close(self) -> None:
        self._chunks.close()
