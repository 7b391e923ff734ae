"""Memory for bytes in flight: one pool of page-aligned buffers for the whole process, and the permits that ration it.

Why it cannot deadlock: whoever holds a buffer needs no second one to finish with the first (a pull takes buffers in piece order, and
only when bytes are there to fill them). Why slow registries do not hold up the others: a host that holds as many as are free gets no
more (the dynamic threshold of A. K. Choudhury and E. L. Hahne for shared buffers, 1998), so that one host has half at most, n slow hosts
come to hold one part in n + 1 each, and as much is left for whoever comes next.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.linux.direct import aligned_buffer

if TYPE_CHECKING:
    import mmap

    from csi_model.pull.stop import Stop

PIECE = 4 << 20
"""Bytes that travel together: the size of a buffer, and of the stretch of a layer file that has a checksum of its own."""


class Permits:
    """``total`` permits, rationed by host as the module says; who came first is served first, unless its host may have no more."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._out = 0
        self._queue: deque[tuple[str, threading.Event]] = deque()

    def acquire(self, host: str, stop: Stop) -> None:
        """Wait for a permit.

        Raises:
            UnavailableError: ``stop`` was set first.
        """
        stop.check()
        with self._lock:
            if self._fits(host):
                self._grant(host)
                return
            woken = threading.Event()
            entry = (host, woken)
            self._queue.append(entry)
        with stop.waking(woken.set):
            woken.wait()
        with self._lock:
            granted = entry not in self._queue
            if not granted:  # woken by the stop alone
                self._queue.remove(entry)
        if stop.is_set:
            if granted:
                self.release(host)
            stop.check()

    def release(self, host: str) -> None:
        """Give a permit back, and serve those who wait."""
        with self._lock:
            self._out -= 1
            if self._held[host] == 1:
                del self._held[host]
            else:
                self._held[host] -= 1
            for entry in list(self._queue):
                if self._fits(entry[0]):
                    self._grant(entry[0])
                    self._queue.remove(entry)
                    entry[1].set()

    def held(self) -> int:
        """How many permits are out."""
        return self._out

    def _fits(self, host: str) -> bool:
        return self._held.get(host, 0) < self._total - self._out

    def _grant(self, host: str) -> None:
        self._held[host] = self._held.get(host, 0) + 1
        self._out += 1


@dataclass(slots=True, eq=False)
class Buffer:
    """``PIECE`` bytes of page-aligned memory, lent to ``host``."""

    memory: mmap.mmap
    view: memoryview
    host: str


class BufferPool:
    """At most ``count`` buffers, made when first needed, of which one host holds no more than half."""

    def __init__(self, count: int) -> None:
        self._permits = Permits(count)
        self._free: list[Buffer] = []  # last in, first out: few buffers stay warm

    def take(self, host: str, stop: Stop) -> Buffer:
        """Wait for a buffer; the caller gives it back.

        Raises:
            UnavailableError: ``stop`` was set first.
        """
        self._permits.acquire(host, stop)
        try:
            buffer = self._free.pop()
        except IndexError:
            return self._made(host)
        buffer.host = host
        return buffer

    def _made(self, host: str) -> Buffer:
        try:
            memory = aligned_buffer(PIECE)
        except BaseException:
            self._permits.release(host)
            raise
        return Buffer(memory, memoryview(memory), host)

    def give(self, buffer: Buffer) -> None:
        """Take a buffer back; the giver holds no view of it any more."""
        host = buffer.host  # whoever takes it next, which can be at once, makes it its own
        self._free.append(buffer)
        self._permits.release(host)

    def lent(self) -> int:
        """How many buffers are out."""
        return self._permits.held()


class Piece:
    """Bytes of a blob or of a layer file, in a buffer that goes back to its pool when the last of its users lets go."""

    __slots__ = ("_buffer", "_lock", "_pool", "_users", "length", "offset")

    def __init__(self, pool: BufferPool, buffer: Buffer, *, offset: int, length: int) -> None:
        self._pool = pool
        self._buffer = buffer
        self._users = 1
        self._lock = threading.Lock()
        self.offset = offset
        self.length = length

    @property
    def view(self) -> memoryview:
        """The bytes."""
        return self._buffer.view[: self.length]

    @property
    def whole(self) -> memoryview:
        """The whole buffer, for writes that must be padded to a block."""
        return self._buffer.view

    def share(self) -> None:
        """Count one more user."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Count one user less."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._pool.give(self._buffer)
