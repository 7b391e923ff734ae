from __future__ import annotations

import math
import threading
import time
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import CorruptContentError, UnavailableError
from csi_model.pull import body
from csi_model.pull import fetch as fetching
from csi_model.pull.body import fill
from csi_model.pull.fetch import fetch, host_of
from csi_model.pull.pool import PIECE, BufferPool
from csi_model.pull.stop import Stop
from csi_model.pull.window import Window
from tests.pull.conftest import MemorySource, noise

if TYPE_CHECKING:
    from csi_model.oci.descriptor import Descriptor
    from csi_model.pull.pool import Buffer, Piece
    from csi_model.sources.protocol import BlobReader

SIZE = 13 * PIECE + 99


def joined(source: MemorySource, layer: Descriptor, pool: BufferPool, *, offset: int = 0, connections: int = 1) -> bytes:
    data = bytearray()
    for piece in fetch(source, layer, offset=offset, pool=pool, stop=Stop(), connections=connections):
        assert piece.offset == offset + len(data)
        data += piece.view
        piece.release()
    return bytes(data)


@pytest.mark.parametrize("offset", [0, PIECE, 3 * PIECE])
def test_one_connection_delivers_all_pieces_in_order(source: MemorySource, offset: int) -> None:
    """From any piece on, the bytes come complete and in order, over one opening, and every buffer goes back."""
    data, pool = noise(4 * PIECE + 5), BufferPool(2)
    assert joined(source, source.add(data), pool, offset=offset) == data[offset:]
    assert len(source.opened) == 1
    assert pool.lent() == source.open_readers == 0


def test_a_slow_layer_goes_wide_and_a_fast_one_does_not(source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that take longer than a fast connection would make the rest come over several connections, still in order."""
    data, pool = noise(SIZE), BufferPool(8)
    layer = source.add(data)
    monkeypatch.setattr(fetching, "_SLOW_PIECE", 10.0)
    assert joined(source, layer, pool, connections=3) == data
    assert source.most_readers == 1
    monkeypatch.setattr(fetching, "_SLOW_PIECE", 0.0)
    monkeypatch.setattr(fetching, "_WAITING", 0.0)
    monkeypatch.setattr(fetching, "_BUSY", math.inf)
    assert joined(source, layer, pool, connections=3) == data
    assert 1 < source.most_readers <= 3
    assert pool.lent() == source.open_readers == 0


def test_a_layer_that_is_slow_for_want_of_cpu_time_keeps_one_connection(source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the process keeps its CPUs busy, more connections would only take turns on them."""
    monkeypatch.setattr(fetching, "_SLOW_PIECE", 0.0)
    monkeypatch.setattr(fetching, "_WAITING", 0.0)
    monkeypatch.setattr(fetching, "_BUSY", 0.0)
    data = noise(SIZE)
    assert joined(source, source.add(data), BufferPool(8), connections=3) == data
    assert source.most_readers == 1


@pytest.mark.parametrize("where", ["on the way", "with the piece", "for its buffer"])
def test_only_bytes_that_are_waited_for_make_a_layer_go_wide(source: MemorySource, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Where the time goes by with the pieces, or until a buffer comes back, as on a slow disk, more connections would bring none of it back."""
    now = 0.0

    def passes(name: str) -> None:
        nonlocal now
        now += where == name

    class SlowPool(BufferPool):
        def take(self, host: str, stop: Stop) -> Buffer:
            passes("for its buffer")
            return super().take(host, stop)

    def slow_fill(reader: BlobReader, layer: Descriptor, offset: int, *, pool: BufferPool, buffer: Buffer) -> Piece:
        nonlocal now
        now += 0.1  # slow in every case, but not always what takes the longest
        passes("on the way")
        return fill(reader, layer, offset, pool=pool, buffer=buffer)

    monkeypatch.setattr(body, "fill", slow_fill)
    for module in (body, fetching):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(fetching._Clock, "busy", lambda _: False)
    for piece in fetch(source, source.add(noise(SIZE)), offset=0, pool=SlowPool(8), stop=Stop(), connections=3):
        passes("with the piece")
        piece.release()
    assert (source.most_readers > 1) == (where == "on the way")


def test_a_source_without_ranges_keeps_one_connection(source: MemorySource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server ignores Range, a slow layer stays on the connection that it has."""
    monkeypatch.setattr(fetching, "_SLOW_PIECE", 0.0)
    monkeypatch.setattr(fetching, "_WAITING", 0.0)
    source.ranges = False
    data = noise(SIZE)
    assert joined(source, source.add(data), BufferPool(8), connections=3) == data
    assert len(source.opened) == 1


@pytest.mark.parametrize("buffers", [1, 2, 8])
def test_the_window_works_with_any_number_of_buffers(source: MemorySource, buffers: int) -> None:
    """Four connections and a single buffer get through: buffers are taken in piece order, so the next piece always has one."""
    data, pool = noise(SIZE), BufferPool(2 * buffers)
    layer = source.add(data)
    out = bytearray()
    with closing(Window(source, layer, 0, host="h", pool=pool, stop=Stop(), connections=4)) as window:
        for piece in window.pieces():
            out += piece.view
            piece.release()
    assert out == data
    assert pool.lent() == source.open_readers == 0


def test_a_window_that_is_given_up_returns_everything(source: MemorySource) -> None:
    """Closing a window half-way gives back the buffers of pieces that nobody took, and the connections."""
    pool, layer = BufferPool(16), source.add(noise(SIZE))
    with closing(Window(source, layer, 0, host="h", pool=pool, stop=Stop(), connections=3)) as window:
        next(window.pieces()).release()
    assert pool.lent() == source.open_readers == 0


@pytest.mark.parametrize("connections", [1, 3])
def test_a_stop_ends_a_stalled_fetch_at_once(source: MemorySource, connections: int) -> None:
    """Who waits for a silent registry is woken by the stop, with one connection or several."""
    stop, pool = Stop(), BufferPool(16)
    layer = source.add(noise(SIZE))
    source.stalls_at = PIECE + 7
    if connections == 1:
        pieces = fetch(source, layer, offset=0, pool=pool, stop=stop)
    else:
        window = Window(source, layer, 0, host="h", pool=pool, stop=stop, connections=connections)
        pieces = window.pieces()
    next(pieces).release()
    threading.Timer(0.05, stop.set).start()
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        next(pieces)
    assert time.monotonic() - started < 2
    if connections > 1:
        window.close()
    assert pool.lent() == source.open_readers == 0


@pytest.mark.parametrize("delta", [-1, -PIECE, 1])
@pytest.mark.parametrize("connections", [1, 3])
def test_a_body_of_another_length_is_refused(source: MemorySource, delta: int, connections: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob that is shorter or longer than its descriptor says is found out, not cut or padded."""
    monkeypatch.setattr(fetching, "_SLOW_PIECE", 0.0)
    monkeypatch.setattr(fetching, "_WAITING", 0.0)
    monkeypatch.setattr(fetching, "_BUSY", math.inf)
    data, pool = noise(SIZE), BufferPool(8)
    layer = source.add(data)
    source.delivers[layer.digest] = [data[:delta] if delta < 0 else data + b"x"]
    if connections > 1 and delta > 0:
        assert joined(source, layer, pool, connections=connections) == data  # a range is all that was asked for
        return
    with pytest.raises(CorruptContentError, match=r"ends after|longer than"):
        joined(source, layer, pool, connections=connections)
    assert pool.lent() == source.open_readers == 0


def test_the_host_is_what_comes_before_the_repository() -> None:
    """Repositories of one registry share its buffers and slots."""
    assert host_of(MemorySource(name="r:5000/a/b")) == host_of(MemorySource(name="r:5000/c")) == "r:5000"
