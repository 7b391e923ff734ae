"""A stop signal that also ends blocked network calls."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from csi_model.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Cancellation:
    """Cancelled once and for all, from any thread; sockets under its guard are shut down, which wakes whoever reads from them."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.is_cancelled = False
        """Whether ``cancel`` was called."""
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()

    def cancel(self) -> None:
        """Stop; safe to call again."""
        with self._lock:
            self.is_cancelled = True
            self._event.set()
            for sock in self._sockets:
                _shut_down(sock)

    def check(self) -> None:
        """Raise when cancelled.

        Raises:
            UnavailableError: it was.
        """
        if self.is_cancelled:
            msg = "the transfer was stopped; ask again to go on"
            raise StoppedError(msg)

    def sleep(self, seconds: float) -> None:
        """Wait, or raise as soon as it is cancelled."""
        self._event.wait(seconds)
        self.check()

    def add(self, sock: socket.socket) -> None:
        """Shut ``sock`` down when cancelled, at once if that was before."""
        with self._lock:
            self._sockets.add(sock)
            if self.is_cancelled:
                _shut_down(sock)

    def discard(self, sock: socket.socket) -> None:
        """Forget ``sock``; to be called before it is closed or given to another operation."""
        with self._lock:
            self._sockets.discard(sock)

    @contextlib.contextmanager
    def guarding(self, sock: socket.socket) -> Iterator[None]:
        """``add`` and ``discard`` around a block."""
        self.add(sock)
        try:
            yield
        finally:
            self.discard(sock)


def _shut_down(sock: socket.socket) -> None:
    # The plain socket's method, for SSLSocket's own also takes the TLS state away from a thread that is reading.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
