"""Bytes of a connection, read with the fewest copies and calls, and given up when they stop coming.

http.client reads through a BufferedReader. What is larger than its 8 KiB buffer goes straight from the kernel into the caller's
memory; on a plain socket one system call (MSG_WAITALL) fills a whole pipeline buffer.
"""

from __future__ import annotations

import io
import select
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING

from csi_model.registry.retry import TransientError

if TYPE_CHECKING:
    from typing_extensions import Buffer

BUFFER = 8192
_ALIVE = 16 * 1024
"""Bytes that have to come within the stall time-out, so that a server which drips one byte at a time counts as silent."""
_STRETCH = 4 << 20
_STRETCH_PATIENCE = 10
"""Stall time-outs that so many bytes may take, 14 KiB/s when it is 30 s: who is slower would hold a buffer, or a decoder, for hours."""


class PatientSocket:
    """As much of a socket as http.client uses. Closing it does nothing: whoever made the real socket closes it."""

    def __init__(self, sock: socket.socket, stall_timeout: float, peer: str) -> None:
        if isinstance(sock, ssl.SSLSocket):
            sock.settimeout(stall_timeout)
        else:
            # A socket with a Python time-out is non-blocking underneath, and cannot wait for all of a buffer in one call.
            sock.settimeout(None)
            limit = struct.pack("@ll", int(stall_timeout), int(stall_timeout % 1 * 1_000_000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._sock = sock
        self.stream = Stream(sock, stall_timeout, peer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What an HTTPResponse reads from."""
        self.stream = self.stream.renewed()
        return io.BufferedReader(self.stream, BUFFER)

    def sendall(self, data: bytes) -> None:
        """Send a request."""
        self._sock.sendall(data)

    def close(self) -> None:
        """Nothing; see the class."""


class Stream(io.RawIOBase):
    """The receiving side for one response.

    A failure in the middle ends the stream instead of being raised, for the BufferedReader above would otherwise lose the bytes that
    came before it; ``failure`` then says why the stream ended.
    """

    def __init__(self, sock: socket.socket, stall_timeout: float, peer: str) -> None:
        super().__init__()
        self._sock = sock
        self._stall_timeout = stall_timeout
        self._peer = peer
        self._waited = 0.0
        self._fresh = 0
        self._stretch_waited = 0.0
        self._stretch = 0
        self._broken: OSError | None = None
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.direct = False
        """Whether the last bytes went past the BufferedReader, which does that only when it holds none itself."""
        self.ended = False
        self.failure: TransientError | None = None
        self.timed_out = False

    def renewed(self) -> Stream:
        """One for the next response on the same connection."""
        return Stream(self._sock, self._stall_timeout, self._peer)

    def readable(self) -> bool:
        """Always."""
        return True

    def wait(self) -> None:
        """Return when a byte can be received, or none will be any more. For plain sockets: of TLS, bytes may be here already."""
        if self.ended:
            return
        started = time.monotonic()
        if self._poll.poll(self._stall_timeout * 1000):
            self._waited += time.monotonic() - started
        else:
            self.timed_out = True
            self._fail(self._silence(), None)

    def readinto(self, buffer: Buffer) -> int:
        """Fill ``buffer``, or as much of it as came before the end, a failure or the stall time-out; 0 when there is no more."""
        if self.ended:
            return 0
        view = memoryview(buffer)
        started = time.monotonic()
        self.direct = len(view) > BUFFER and not isinstance(self._sock, ssl.SSLSocket)
        try:
            count = self._receive(view)
        except (BlockingIOError, TimeoutError) as error:
            self.timed_out = True
            return self._fail(self._silence(), error)
        except OSError as error:
            return self._fail(f"the connection to {self._peer} broke: {error.strerror or error}", error)
        self._waited += time.monotonic() - started
        self._fresh += count
        if self._fresh >= min(_ALIVE, len(view)):
            self._advance()
        elif self._waited > self._stall_timeout:
            self._fail(self._silence(), None)
        self.ended = self.ended or count == 0
        return count

    def _advance(self) -> None:
        """Some bytes came; it is the server's waiting that counts, not ours when we are slow to read."""
        self._stretch += self._fresh
        self._stretch_waited += self._waited
        self._waited, self._fresh = 0.0, 0
        if self._stretch >= _STRETCH:
            self._stretch, self._stretch_waited = 0, 0.0
        elif self._stretch_waited > _STRETCH_PATIENCE * self._stall_timeout:
            self._fail(f"{self._peer} sent no more than {self._stretch >> 10} KiB in {self._stretch_waited:.0f} s", None)

    def _receive(self, view: memoryview) -> int:
        if isinstance(self._sock, ssl.SSLSocket):
            return self._receive_records(self._sock, view)
        return self._sock.recv_into(view, 0, socket.MSG_WAITALL if len(view) > BUFFER else 0)

    def _receive_records(self, sock: ssl.SSLSocket, view: memoryview) -> int:
        """As many records of TLS, 16 KiB each, as fill ``view`` or come within a second; what breaks off later ones is raised by the next call."""
        if self._broken is not None:
            raise self._broken
        count = sock.recv_into(view)
        until = time.monotonic() + 1
        while 0 < count < len(view) and len(view) > BUFFER and time.monotonic() < until:
            try:
                more = sock.recv_into(view[count:])
            except OSError as error:
                self._broken = error
                break
            if not more:
                break
            count += more
        return count

    def _silence(self) -> str:
        return f"{self._peer} sent nothing, or next to nothing, for {self._stall_timeout:g} s"

    def _fail(self, message: str, cause: Exception | None) -> int:
        self.failure = TransientError(message)
        self.failure.__cause__ = cause
        self.ended = True
        return 0
