"""The ordered window: several connections fetch short ranges of one blob, and its pieces come out in order."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

from csi_model.errors import BusyError
from csi_model.pull.body import expect_end, fill
from csi_model.pull.pool import PIECE
from csi_model.pull.stop import Stop
from csi_model.pull.threads import begin

if TYPE_CHECKING:
    from collections.abc import Generator

    from csi_model.oci.descriptor import Descriptor
    from csi_model.pull.pool import BufferPool, Piece
    from csi_model.sources.protocol import BlobReader, Source

_RANGE = 2 * PIECE
"""One request's bytes. Short, because the window holds what comes before its turn; its latency hides behind the other connections."""


class Window:
    """Fetches ``[offset, layer.size)`` with a thread for each connection.

    Buffers are taken in piece order (``_turn``), so that the piece which is wanted next has one and can be finished whatever the
    pieces behind it hold. A connection that is ahead of its turn leaves its bytes in the kernel's socket buffer.
    """

    def __init__(
        self, source: Source, layer: Descriptor, offset: int, *, host: str, pool: BufferPool, stop: Stop, connections: int
    ) -> None:
        self._source = source
        self._layer = layer
        self._host = host
        self._pool = pool
        self._outer = stop
        self._stop = Stop()
        self._changed = threading.Condition()
        self._start = offset
        self._next_range = offset
        self._turn = offset
        self._ready: dict[int, Piece] = {}
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        try:
            for _ in range(connections):
                self._threads.append(begin(f"fetch-{layer.digest.short}", self._run))
        except BusyError:
            if not self._threads:
                raise

    def pieces(self) -> Generator[Piece, None, None]:
        """The pieces in order; the caller releases each.

        Raises:
            CsiModelError: what the first connection to fail raised.
        """
        offset = self._start
        with self._outer.waking(self._abandon):
            while offset < self._layer.size:
                with self._changed:
                    self._changed.wait_for(lambda: offset in self._ready or self._error or self._outer.is_set)  # noqa: B023 - waits here
                    self._outer.check()
                    if self._error is not None:
                        raise self._error
                    piece = self._ready.pop(offset)
                offset += piece.length
                yield piece

    def close(self) -> None:
        """End the threads and give back what they fetched in vain."""
        self._abandon()
        for thread in self._threads:
            thread.join()
        for piece in self._ready.values():
            piece.release()
        self._ready.clear()

    def _abandon(self) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while (start := self._claim()) is not None:
                end = min(start + _RANGE, self._layer.size)
                with closing(self._source.open(self._layer, offset=start, length=end - start)) as reader, self._stop.waking(reader.close):
                    for offset in range(start, end, PIECE):
                        self._fetch(reader, offset)
                    expect_end(reader, self._layer)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that iterates
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _claim(self) -> int | None:
        with self._changed:
            if self._stop.is_set or self._error is not None or self._next_range >= self._layer.size:
                return None
            start = self._next_range
            self._next_range += _RANGE
            return start

    def _fetch(self, reader: BlobReader, offset: int) -> None:
        reader.wait()
        with self._changed:
            self._changed.wait_for(lambda: self._turn == offset or self._stop.is_set or self._error is not None)
        self._stop.check()
        if self._turn != offset:
            return
        buffer = self._pool.take(self._host, self._stop)
        with self._changed:
            self._turn = offset + PIECE
            self._changed.notify_all()
        piece = fill(reader, self._layer, offset, pool=self._pool, buffer=buffer)
        with self._changed:
            self._ready[offset] = piece
            self._changed.notify_all()
