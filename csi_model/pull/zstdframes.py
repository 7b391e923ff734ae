"""The outline of a zstd stream (RFC 8878, 3.1): where frames begin and end, without decoding what is in them.

The decoder does not say whether its input ended inside a frame, and learns of an enormous window only when it asks for the memory.
This walks the headers of frames and blocks (three bytes per block) beside it and knows both.
"""

from __future__ import annotations

import enum

from csi_model.errors import CorruptContentError, UnsupportedError

MAX_WINDOW = 128 << 20
"""The largest window that is decoded: what ``zstd --long=27`` writes. Larger ones would need that much memory each."""

_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50  # and the fifteen numbers above it
_CONTENT_SIZE_BYTES = (0, 2, 4, 8)
_DICTIONARY_BYTES = (0, 1, 2, 4)
_RLE, _RESERVED = 1, 3


class _Next(enum.Enum):
    MAGIC = enum.auto()
    SKIPPABLE_SIZE = enum.auto()
    DESCRIPTOR = enum.auto()
    HEADER = enum.auto()
    BLOCK = enum.auto()


class FrameWalker:
    """Follows a stream fed in chunks of any size."""

    def __init__(self) -> None:
        self._next = _Next.MAGIC
        self._need = 4
        self._head = b""
        self._skip = 0
        self._checksum = 0
        self._descriptor = 0
        self._frames = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Walk over the next bytes.

        Raises:
            CorruptContentError: they begin no frame where one must begin, or no block where one must.
            UnsupportedError: a frame asks for a window above ``MAX_WINDOW``, or for a dictionary.
        """
        position, end = 0, len(data)
        while position < end:
            if self._skip:
                step = min(self._skip, end - position)
                self._skip -= step
                position += step
                continue
            if self._next is _Next.BLOCK and not self._head and (after := _pass_blocks(data, position)) > position:
                position = min(after, end)
                self._skip = after - position
                continue
            step = min(self._need - len(self._head), end - position)
            self._head += bytes(data[position : position + step])
            position += step
            if len(self._head) == self._need:
                head, self._head = self._head, b""
                self._advance(head)

    def finish(self) -> None:
        """The stream ends here.

        Raises:
            CorruptContentError: in the middle of a frame, or before the first.
        """
        if self._skip or self._head or self._next is not _Next.MAGIC or not self._frames:
            msg = "the zstd stream ends in the middle of a frame; the blob was truncated before it was pushed"
            raise CorruptContentError(msg)

    def _advance(self, head: bytes) -> None:
        number = int.from_bytes(head, "little")
        if self._next is _Next.MAGIC:
            self._magic(number)
        elif self._next is _Next.SKIPPABLE_SIZE:
            self._skip = number
            self._expect(_Next.MAGIC, 4)
        elif self._next is _Next.DESCRIPTOR:
            self._descriptor = number
            single = number >> 5 & 1
            size = _CONTENT_SIZE_BYTES[number >> 6] or single  # a single segment always tells its size, in one byte at least
            self._checksum = 4 * (number >> 2 & 1)
            self._expect(_Next.HEADER, (1 - single) + _DICTIONARY_BYTES[number & 3] + size)
        elif self._next is _Next.HEADER:
            self._header(head)
        else:
            self._block(number)

    def _magic(self, number: int) -> None:
        if number == _MAGIC:
            self._frames += 1
            self._expect(_Next.DESCRIPTOR, 1)
        elif number & ~15 == _SKIPPABLE:
            self._frames += 1
            self._expect(_Next.SKIPPABLE_SIZE, 4)
        else:
            msg = "the blob has bytes that are no zstd frame where one must begin; it was damaged or padded before it was pushed"
            raise CorruptContentError(msg)

    def _header(self, head: bytes) -> None:
        single = self._descriptor >> 5 & 1
        dictionary = _DICTIONARY_BYTES[self._descriptor & 3]
        if any(head[1 - single :][:dictionary]):
            msg = "the zstd stream needs a dictionary, which a registry cannot give; push the layer compressed without one"
            raise UnsupportedError(msg)
        if single:
            size = head[dictionary:]
            # The window of a single segment is its content (3.1.1.1.2); two-byte sizes are stored less 256 (3.1.1.1.4).
            window = int.from_bytes(size, "little") + (256 if len(size) == 2 else 0)
        else:
            base = 1 << (10 + (head[0] >> 3))
            window = base + base // 8 * (head[0] & 7)
        if window > MAX_WINDOW:
            msg = f"the zstd stream needs a window of {window >> 20} MiB, more than the {MAX_WINDOW >> 20} that are allowed; use --long=27 or less"
            raise UnsupportedError(msg)
        self._expect(_Next.BLOCK, 3)

    def _block(self, number: int) -> None:
        kind, size = number >> 1 & 3, number >> 3
        if kind == _RESERVED:
            msg = "the zstd stream has a block of a kind that does not exist; the blob was damaged before it was pushed"
            raise CorruptContentError(msg)
        self._skip = 1 if kind == _RLE else size
        if number & 1:
            self._skip += self._checksum
            self._expect(_Next.MAGIC, 4)

    def _expect(self, what: _Next, need: int) -> None:
        self._next = what
        self._need = need


def _pass_blocks(data: bytes | memoryview, position: int) -> int:
    """Where the blocks from ``position`` on end, perhaps behind ``data``, but for a frame's last, one of no kind, or one with its header cut.

    These are nearly all blocks, and a hostile stream has hundreds of thousands of them in a megabyte; hence a loop of its own.
    """
    last_header = len(data) - 3
    while position <= last_header:
        low = data[position]
        if low & 1 or low & 6 == _RESERVED << 1:
            break
        position += 3 + (1 if low & 6 == _RLE << 1 else (low | data[position + 1] << 8 | data[position + 2] << 16) >> 3)
    return position
