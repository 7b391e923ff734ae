"""Decoding: a compressed blob's pieces become the bytes of its layer file, filled into the caller's buffers.

What a blob is, its first bytes say: a media type that says compressed is often wrong about how, and containerd believes the bytes as well.
Both decoders read across members and frames to the last byte of the blob, and accept nothing behind it: neither garbage nor padding
(Go's readers, which containerd and the registries' own tools use, refuse both). Output comes only as fast as buffers are offered, so a
bomb is met by the disk's reserve, never by memory.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Protocol, cast

import zstandard
from isal import igzip_lib

from csi_model.errors import CorruptContentError, UnsupportedError
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

_FIXED_HEADER = 10  # of a gzip member; what follows it is said by these flags
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT = 2, 4, 8, 16
_MAX_HEADER = 128 << 10  # an extra field has 64 KiB at most; the format sets names and comments no limit

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
    """The decoder that the first bytes ask for; bytes that are neither gzip nor zstd come out as they are.

    It releases the pieces that it takes, the last of them when it is closed. ``compression`` is what the blob is called, for messages.
    """
    return _Detected(compression, _Chunks(pieces))


class _Chunks:
    """The pieces as bytes of modest size."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._piece: Piece | None = None
        self._position = 0
        self._rest: bytes | memoryview = b""

    def next(self) -> bytes | memoryview:
        """The next bytes, which are there until this, ``peek`` or ``close`` is called again; empty at the end."""
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
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

    def put_back(self, rest: bytes | memoryview) -> None:
        """Bytes at the end of what ``next`` gave that were not needed; they come next."""
        self._rest = rest

    def peek(self, count: int) -> bytes:
        """The next bytes, ``count`` or more of them while there are so many; they stay to be taken."""
        head = bytes(self.next())
        while len(head) < count and (chunk := self.next()):
            head += chunk
        self.put_back(head)
        return head

    def close(self) -> None:
        piece, self._piece = self._piece, None
        if piece is not None:
            piece.release()


class _Detected:
    """Any of the decoders, once the first bytes are there."""

    def __init__(self, named: Compression, chunks: _Chunks) -> None:
        self._named = named
        self._chunks = chunks
        self._decoder: Decoder | None = None

    def readinto(self, buffer: memoryview) -> int:
        if self._decoder is None:
            self._decoder = self._choose()
        return self._decoder.readinto(buffer)

    def close(self) -> None:
        self._chunks.close()

    def _choose(self) -> Decoder:
        head = self._chunks.peek(MAGIC_BYTES)
        match detect(head):
            case Compression.GZIP:
                return _Gzip(self._chunks)
            case Compression.ZSTD:
                return _Zstd(self._chunks)
        if len(head) < MAGIC_BYTES:
            msg = f"the blob ends before its {self._named.value} stream begins; it was truncated before it was pushed"
            raise CorruptContentError(msg)
        return _Plain(self._chunks)


class _Plain:
    """No stream at all: the bytes as they are."""

    def __init__(self, chunks: _Chunks) -> None:
        self._chunks = chunks

    def readinto(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer) and (chunk := self._chunks.next()):
            step = min(len(chunk), len(buffer) - filled)
            buffer[filled : filled + step] = chunk[:step]
            self._chunks.put_back(chunk[step:])
            filled += step
        return filled

    def close(self) -> None:
        self._chunks.close()


class _Gzip:
    """Any number of members (RFC 1952, 2.2), each with its CRC and length checked by igzip."""

    def __init__(self, chunks: _Chunks) -> None:
        self._chunks = chunks
        self._member: igzip_lib.IgzipDecompressor | None = None

    def readinto(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer):
            member = self._member or self._begin()
            if member is None:
                break
            data = self._decompress(member, min(_CHUNK, len(buffer) - filled))
            buffer[filled : filled + len(data)] = data
            filled += len(data)
            if member.eof:
                self._chunks.put_back(member.unused_data)
                self._member = None
        return filled

    def close(self) -> None:
        self._chunks.close()

    def _begin(self) -> igzip_lib.IgzipDecompressor | None:
        """Go on to the next member; None when there is none."""
        head = self._chunks.peek(len(_GZIP_MAGIC))
        if not head:
            return None
        if not head.startswith(_GZIP_MAGIC):
            msg = "the gzip stream is followed by bytes that are none; the blob was damaged or padded before it was pushed"
            raise CorruptContentError(msg)
        # igzip loses its place in a header of several fields, or with a checksum, that does not come in one go.
        while not _has_header(head):
            if len(head) >= _MAX_HEADER:
                msg = f"a gzip member's header is longer than {_MAX_HEADER >> 10} KiB; push the layer without such names or comments in it"
                raise UnsupportedError(msg)
            length = len(head)
            head = self._chunks.peek(length + 1)
            if len(head) == length:
                raise _cut_short()
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return self._member

    def _decompress(self, member: igzip_lib.IgzipDecompressor, limit: int) -> bytes:
        chunk = self._chunks.next() if member.needs_input else b""
        if member.needs_input and not chunk:
            raise _cut_short()
        try:
            return member.decompress(chunk, limit)
        except igzip_lib.IsalError as error:  # type: ignore[misc] # its stub says that it is an instance
            msg = f"the gzip stream is damaged ({error})"
            raise CorruptContentError(msg) from error


def _cut_short() -> CorruptContentError:
    return CorruptContentError("the gzip stream ends in the middle of a member; the blob was truncated before it was pushed")


def _has_header(member: bytes) -> bool:
    """Whether a member's header (RFC 1952, 2.3) is complete, within ``_MAX_HEADER`` bytes."""
    if len(member) < _FIXED_HEADER:
        return False
    flags, end = member[3], _FIXED_HEADER
    if flags & _FEXTRA:
        end += 2 + int.from_bytes(member[end : end + 2], "little")
    for text in (_FNAME, _FCOMMENT):
        if flags & text:
            end = member.find(0, end, _MAX_HEADER) + 1
            if not end:
                return False
    if flags & _FHCRC:
        end += 2
    return end <= min(len(member), _MAX_HEADER)


class _Zstd:
    """Any number of frames, skippable ones included."""

    def __init__(self, chunks: _Chunks) -> None:
        self._chunks = chunks
        self._walker = FrameWalker()
        self._reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(
            cast("IO[bytes]", self), read_size=_CHUNK, read_across_frames=True
        )

    def read(self, _size: int) -> bytes | memoryview:
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
