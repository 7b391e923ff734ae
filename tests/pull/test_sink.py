from __future__ import annotations

import errno
import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import NoSpaceError
from csi_model.linux import pages
from csi_model.mount.strategy import WriteMode
from csi_model.pull import sink
from csi_model.pull.pool import PIECE, BufferPool, Piece
from csi_model.pull.sink import LayerWriter
from csi_model.pull.stop import Stop
from tests.pull.conftest import noise

if TYPE_CHECKING:
    from pathlib import Path


def write(writer: LayerWriter, data: bytes, offset: int = 0) -> None:
    pool = BufferPool(1)
    for start in range(0, len(data), PIECE):
        chunk = data[start : start + PIECE]
        buffer = pool.take("h", Stop())
        buffer.view[:] = b"\xff" * PIECE  # what an earlier user left in it
        buffer.view[: len(chunk)] = chunk
        piece = Piece(pool, buffer, offset=offset + start, length=len(chunk))
        writer.write(piece)
        piece.release()


@pytest.mark.parametrize("mode", WriteMode)
@pytest.mark.parametrize("size", [1, 4096, 4097, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 513])
def test_the_file_has_the_bytes_and_their_length(tmp_path: Path, mode: WriteMode, size: int) -> None:
    """Both modes write exactly what they were given, also where it ends in the middle of a block."""
    data, path = noise(size), tmp_path / "data"
    with closing(LayerWriter(path, mode, offset=0)) as writer:
        write(writer, data)
        writer.finish()
    assert path.read_bytes() == data


@pytest.mark.parametrize("mode", WriteMode)
def test_writing_goes_on_where_the_file_ends(tmp_path: Path, mode: WriteMode) -> None:
    """Opened at an offset, what is before it stays."""
    data, path = noise(2 * PIECE + 100), tmp_path / "data"
    path.write_bytes(data[:PIECE])
    with closing(LayerWriter(path, mode, offset=PIECE)) as writer:
        write(writer, data[PIECE:], PIECE)
        writer.finish()
    assert path.read_bytes() == data


def test_direct_writes_leave_the_page_cache_alone(tmp_path: Path) -> None:
    """After direct writes none of the file is in memory; after buffered ones all of it is."""
    resident = {}
    for mode in WriteMode:
        path = tmp_path / mode.value
        with closing(LayerWriter(path, mode, offset=0)) as writer:
            write(writer, noise(2 * PIECE))
            writer.finish()
        fd = os.open(path, os.O_RDONLY)
        resident[mode] = pages.resident_bytes(fd)
        os.close(fd)
    assert resident == {WriteMode.BUFFERED: 2 * PIECE, WriteMode.DIRECT: 0}


def test_a_filesystem_without_direct_io_is_written_through_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EINVAL on opening with O_DIRECT falls back to buffered writes."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(sink, "open_direct", refuse)
    with closing(LayerWriter(tmp_path / "data", WriteMode.DIRECT, offset=0)) as writer:
        write(writer, b"abc")
        writer.finish()
    assert (tmp_path / "data").read_bytes() == b"abc"


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC becomes NoSpaceError."""

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(LayerWriter(tmp_path / "data", WriteMode.BUFFERED, offset=0)) as writer:
        monkeypatch.setattr(os, "pwrite", refuse)
        with pytest.raises(NoSpaceError, match="free space"):
            write(writer, b"abc")


def test_blocks_are_allocated_past_the_end_and_given_back(tmp_path: Path) -> None:
    """While a file is written its length is that of its bytes; what was allocated ahead of them is gone when it is finished."""
    path, size = tmp_path / "data", 5 * PIECE + 513
    with closing(LayerWriter(path, WriteMode.BUFFERED, offset=0)) as writer:
        write(writer, noise(size))
        now = path.stat()
        assert now.st_size == size
        assert now.st_blocks * 512 > size + PIECE
        writer.finish()
    assert path.stat().st_blocks * 512 < size + PIECE
