"""Reading a response's body into the pool's buffers, no byte more or less than the descriptor says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from csi_model.errors import CorruptContentError
from csi_model.pull.pool import PIECE, Piece

if TYPE_CHECKING:
    from csi_model.oci.descriptor import Descriptor
    from csi_model.pull.pool import Buffer, BufferPool
    from csi_model.pull.stop import Stop
    from csi_model.sources.protocol import BlobReader


def next_piece(reader: BlobReader, layer: Descriptor, offset: int, *, pool: BufferPool, host: str, stop: Stop) -> tuple[Piece, float]:
    """Read one piece, and tell the seconds that its bytes were waited for; a buffer is taken, or waited for, once there are bytes for it."""
    asked = time.monotonic()
    reader.wait()
    came = time.monotonic()
    buffer = pool.take(host, stop)
    taken = time.monotonic()
    piece = fill(reader, layer, offset, pool=pool, buffer=buffer)
    return piece, came - asked + time.monotonic() - taken


def fill(reader: BlobReader, layer: Descriptor, offset: int, *, pool: BufferPool, buffer: Buffer) -> Piece:
    """Fill a buffer with the bytes from ``offset`` on, as many as fit or are left.

    Raises:
        CorruptContentError: the blob ends before its size.
    """
    wanted = min(PIECE, layer.size - offset)
    try:
        with buffer.view[:wanted] as view:
            filled = _read_up_to(reader, view)
    except BaseException:
        pool.give(buffer)
        raise
    if filled < wanted:
        pool.give(buffer)
        msg = f"blob {layer.digest} ends after {offset + filled} bytes but its manifest says {layer.size}"
        raise CorruptContentError(msg)
    return Piece(pool, buffer, offset=offset, length=wanted)


def expect_end(reader: BlobReader, layer: Descriptor) -> None:
    """Look one byte past the end, which also tells the reader that its connection can serve again.

    Raises:
        CorruptContentError: there is one.
    """
    if reader.readinto(memoryview(bytearray(1))):
        msg = f"blob {layer.digest} is longer than the {layer.size} bytes that its manifest says"
        raise CorruptContentError(msg)


def _read_up_to(reader: BlobReader, view: memoryview) -> int:
    filled = 0
    while filled < len(view) and (got := reader.readinto(view[filled:])):
        filled += got
    return filled
