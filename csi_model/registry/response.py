"""One answer: status, headers and a body that is read once."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from csi_model.errors import UnavailableError
from csi_model.registry.retry import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_model.registry.origin import Origin
    from csi_model.registry.stream import Stream

_WORTH_DRAINING = 64 * 1024
_PIECE = 64 * 1024


class Response:
    """Ends with ``release``, whatever happened. Used by one thread."""

    def __init__(self, reply: http.client.HTTPResponse, stream: Stream, origin: Origin, done: Callable[[bool], None]) -> None:
        self._reply = reply
        self._stream = stream
        self._done: Callable[[bool], None] | None = done
        self._failure: TransientError | None = None
        self.origin = origin
        self.status = reply.status
        self.length = reply.length
        """Bytes of the body, when the server told."""
        announced = reply.headers.get("Content-Length", "")
        self.announced = int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 20 else None
        """What Content-Length says: for a HEAD, the length of the body that a GET would have."""
        self.strayed = False
        """Whether redirects have led to another origin than the registry's on the way to it, even if they led back."""
        if self.length == 0:
            reply.read()

    def header(self, name: str) -> str | None:
        """The header's value; the first when there are several."""
        return self._reply.headers.get(name)

    def headers(self, name: str) -> list[str]:
        """All values of the header."""
        return list(self._reply.headers.get_all(name, ()))

    @property
    def failure(self) -> TransientError | None:
        """Why the body ended too early; None while it has not, or when it is complete as far as HTTP can tell."""
        if self._failure or self._stream.failure:
            return self._failure or self._stream.failure
        if self._stream.ended and self._reply.length:
            return TransientError(f"{self.origin.netloc} closed the connection in the middle of an answer")
        return None

    def wait(self) -> None:
        """Return when a byte can be read, or the body has ended or failed."""
        if self._failure:
            return
        if self._stream.direct and not self._reply.chunked:
            self._stream.wait()
        else:
            try:
                self._reply.peek(1)
            except (http.client.HTTPException, OSError, ValueError) as error:
                self._fail(error)

    def readinto(self, view: memoryview) -> int:
        """Fill ``view`` as far as the body goes; a short count means its end or ``failure``."""
        if self._failure:
            return 0
        count = 0
        try:
            if not self._reply.chunked:
                return self._reply.readinto(view)
            # http.client's own readinto loses what it read of a chunk that breaks off.
            while count < len(view) and (piece := self._reply.read1(len(view) - count)):
                view[count : count + len(piece)] = piece
                count += len(piece)
        except (http.client.HTTPException, OSError, ValueError) as error:
            self._fail(error)
        return count

    def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            UnavailableError: longer than ``limit``, or broken off.
        """
        body = self.read_up_to(limit + 1)
        if len(body) > limit:
            msg = f"an answer of {self.origin.netloc} is longer than {limit} bytes; refused"
            raise UnavailableError(msg)
        return body

    def read_up_to(self, count: int) -> bytes:
        """The body, or its first ``count`` bytes.

        Raises:
            UnavailableError: broken off before that.
        """
        body = bytearray()
        while piece := self._read_piece(min(count - len(body), _PIECE)):
            body += piece
        if self.failure and len(body) < count:
            raise self.failure
        return bytes(body)

    def _read_piece(self, count: int) -> memoryview:
        piece = memoryview(bytearray(count))
        return piece[: self.readinto(piece)]

    def release(self) -> None:
        """Give the connection back when the body was read to its end; else close it. Safe to call twice."""
        done, self._done = self._done, None
        if done:
            complete = self._reply.isclosed() and self.failure is None and not self._reply.will_close
            self._reply.close()
            done(complete)

    def discard(self) -> None:
        """Release, after reading a body that is not worth a new connection."""
        if self.length is not None and self.length <= _WORTH_DRAINING:
            scratch = memoryview(bytearray(self.length))
            self.readinto(scratch)
        self.release()

    def _fail(self, error: Exception) -> None:
        self._failure = self._stream.failure or TransientError(f"{self.origin.netloc} broke off an answer")
        if self._failure.__cause__ is None:
            self._failure.__cause__ = error
