"""Buffers that come back: whatever ends a layer, the pool of the process is whole after it."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import CorruptContentError, NoSpaceError, StoppedError
from csi_model.formats.placement import Compression
from csi_model.mount.strategy import WriteMode
from csi_model.pull import job
from csi_model.pull.lane import Lane
from csi_model.pull.pool import PIECE, BufferPool, Piece
from csi_model.pull.puller import LayerWant, Puller
from csi_model.pull.stop import Stop
from tests.pull.conftest import ENCODERS, PATIENCE, MemorySource, noise, pull

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_model.oci.descriptor import Descriptor
    from csi_model.store.store import Store

PACKED = pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
CROWDED = pytest.mark.parametrize("crowded", [True, False])


def a_large_layer(source: MemorySource, compression: Compression) -> Descriptor:
    """A blob of several pieces, none of which a decoder takes in one go."""
    return source.add(ENCODERS[compression](noise(3 * PIECE)))


def alone_or_beside(puller: Puller, monkeypatch: pytest.MonkeyPatch, *, crowded: bool) -> Puller:
    """The puller, each of its layers in one thread or in several."""
    monkeypatch.setattr(job.Job, "_beside", lambda self: not crowded and self._layer.size > PIECE)
    return puller


@PACKED
@CROWDED
def test_a_damaged_stream_costs_no_buffer(
    source: MemorySource,
    pulling: Callable[..., Puller],
    monkeypatch: pytest.MonkeyPatch,
    compression: Compression,
    *,
    crowded: bool,
) -> None:
    """A decoder that gives up in the middle of a piece gives that piece back; pulls go on with a whole pool, however often it happens."""
    shared = alone_or_beside(pulling(buffers=2), monkeypatch, crowded=crowded)
    layer = a_large_layer(source, compression)
    damaged = bytearray(source.blobs[layer.digest])
    damaged[PIECE * 3 // 2 : PIECE * 3 // 2 + 200_000] = noise(200_000, 5)
    source.delivers[layer.digest] = [bytes(damaged)]
    for _ in range(2):
        with pytest.raises(CorruptContentError):
            pull(shared, source, LayerWant(layer, compression))
        assert shared.buffers_lent() == 0
    del source.delivers[layer.digest]
    pull(shared, source, LayerWant(layer, compression))


@PACKED
@CROWDED
@pytest.mark.parametrize("reserve", [True, False], ids=["reserve", "full"])
def test_a_full_disk_costs_no_buffer(
    source: MemorySource,
    pulling: Callable[..., Puller],
    monkeypatch: pytest.MonkeyPatch,
    compression: Compression,
    *,
    crowded: bool,
    reserve: bool,
) -> None:
    """Neither a write that fails nor the reserve keeps the piece that the decoder was at."""

    def full(fd: int, view: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    shared = alone_or_beside(pulling(buffers=4), monkeypatch, crowded=crowded)
    if reserve:
        monkeypatch.setattr(job, "_SPACE_CHECK", PIECE)
        monkeypatch.setattr(job, "free_bytes", lambda _: -1)
    else:
        monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoSpaceError):
        pull(shared, source, LayerWant(a_large_layer(source, compression), compression))
    assert shared.buffers_lent() == 0


@PACKED
@CROWDED
def test_a_stop_in_the_middle_costs_no_buffer(
    store: Store,
    source: MemorySource,
    pulling: Callable[..., Puller],
    monkeypatch: pytest.MonkeyPatch,
    compression: Compression,
    *,
    crowded: bool,
) -> None:
    """A stop that comes while the decoder is inside a piece ends the layer with every buffer back."""
    shared = alone_or_beside(pulling(), monkeypatch, crowded=crowded)
    threads = list[threading.Thread]()
    write = os.pwrite

    def stopping(fd: int, view: memoryview, offset: int) -> int:
        if not threads:
            threads.append(threading.Thread(target=shared.close))
            threads[0].start()
            while not shared._closed or not all(flight.stop.is_set for flight in shared._flights.values()):
                pass
        return write(fd, view, offset)

    monkeypatch.setattr(os, "pwrite", stopping)
    layer = a_large_layer(source, compression)
    with shared.pull(source, [LayerWant(layer, compression)], write_mode=WriteMode.BUFFERED) as stopped, pytest.raises(StoppedError):
        stopped.wait(PATIENCE)
    threads[0].join()
    assert shared.buffers_lent() == 0


def test_a_lane_that_failed_beside_keeps_nothing() -> None:
    """After a lane's thread has failed, what is put beside or inline fails too, and is the caller's alone."""
    pool = BufferPool(6)

    def work(_: Piece) -> None:
        msg = "full"
        raise NoSpaceError(msg)

    lane = Lane("test", work)
    pieces = [Piece(pool, pool.take("host", Stop()), offset=offset, length=1) for offset in range(3)]
    lane.put(pieces[0], beside=True)
    for piece, beside in zip(pieces[1:], (False, True), strict=True):
        with pytest.raises(NoSpaceError):
            lane.put(piece, beside=beside)
    lane.close()
    assert pool.lent() == 3
    for piece in pieces:
        piece.release()
    assert pool.lent() == 0
