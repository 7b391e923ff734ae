"""Reading one blob, or a part of it, over as many connections as it takes.

A dropped connection is resumed with Range from the registry's own URL, for what it redirected to may have run out. Where the server
ignores Range, what was read already is read again and dropped; not so by the readers of a blob's parts, each of which would read from its
beginning.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, NoReturn

from csi_model.errors import CorruptContentError, RangesIgnoredError, UnsupportedError
from csi_model.registry.cancellation import Cancellation
from csi_model.registry.client import Call
from csi_model.registry.retry import Retry, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_model.oci.descriptor import Descriptor
    from csi_model.registry.client import RepositoryClient
    from csi_model.registry.response import Response

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_SCRATCH = 256 * 1024
_PROGRESS = 1 << 20
"""Bytes of one attempt that give the budget of retries back: a few would keep a pull of a hopeless host alive for hours."""


class _Turn:
    """A read by the one thread that reads; whoever closes the reader meanwhile leaves its end to that thread."""

    def __init__(self, cancellation: Cancellation, lock: threading.Lock, let_go: Callable[[], None]) -> None:
        self._cancellation = cancellation
        self._lock = lock
        self._let_go = let_go

    def __enter__(self) -> None:
        self._cancellation.check()
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._lock.release()
        if self._cancellation.is_cancelled:
            self._let_go()
            if kind is None:
                self._cancellation.check()


class RegistryBlobReader:
    """Bytes ``[offset, end)`` of a blob; see ``sources.protocol.BlobReader`` for the contract."""

    def __init__(self, client: RepositoryClient, blob: Descriptor, offset: int, end: int, serves_ranges: Callable[[bool], None]) -> None:
        self._client = client
        self._blob = blob
        self._position = offset
        self._end = end
        self._fresh = 0
        self._serves_ranges = serves_ranges
        self._cancellation = Cancellation()
        self._lock = threading.Lock()
        self._turn = _Turn(self._cancellation, self._lock, self._let_go)
        self._retry = Retry(client.settings, self._cancellation)
        self._response: Response | None = None
        self._what = f"blob {blob.digest.algorithm}:{blob.digest.short}… of {client.repository}"

    def wait(self) -> None:
        """See the protocol."""
        with self._turn:
            while self._position < self._end:
                response = self._opened()
                response.wait()
                if not response.failure:
                    return
                self._lost(response)

    def readinto(self, buffer: memoryview) -> int:
        """See the protocol."""
        with self._turn:
            wanted = min(len(buffer), self._end - self._position)
            filled = 0
            while filled < wanted:
                response = self._opened()
                count = response.readinto(buffer[filled:wanted])
                if count:
                    filled += count
                    self._position += count
                    self._fresh += count
                    if self._fresh >= _PROGRESS:
                        self._retry.progress()
                if filled < wanted:
                    self._lost(response)
            if self._position == self._end:
                self._finish()
            return filled

    def close(self) -> None:
        """See the protocol."""
        self._cancellation.cancel()
        self._let_go()

    def _let_go(self) -> None:
        """Release the response, unless a thread is reading from it: that one comes here itself when it is done."""
        if self._lock.acquire(blocking=False):
            try:
                response, self._response = self._response, None
                if response:
                    response.release()
            finally:
                self._lock.release()

    def _opened(self) -> Response:
        while self._response is None:
            self._cancellation.check()
            try:
                self._response = self._open()
            except TransientError as error:
                self._retry.again(error)
        return self._response

    def _open(self) -> Response:
        whole = self._position == 0 and self._end == self._blob.size
        headers = {} if whole else {"Range": f"bytes={self._position}-{self._end - 1}"}
        call = Call("GET", f"/v2/{self._client.repository}/blobs/{self._blob.digest}", self._what, headers, frozenset({200, 206, 416}))
        response = self._client.call(call, self._retry, self._cancellation)
        try:
            self._check_encoding(response)
            if response.status == 206:
                self._check_range(response)
                self._serves_ranges(True)
            elif response.status == 416:
                self._refuse_end(response)
            else:
                self._check_length(response, self._blob.size)
                if not whole:
                    self._serves_ranges(False)
                    self._skip(response)
        except BaseException:
            response.release()
            raise
        return response

    def _refuse_end(self, response: Response) -> NoReturn:
        msg = f"{self._what} ends before byte {self._position} on {response.origin.netloc}, but should have {self._blob.size} bytes"
        raise CorruptContentError(msg)

    def _check_encoding(self, response: Response) -> None:
        encoding = (response.header("Content-Encoding") or "identity").strip().lower()
        if encoding != "identity":
            msg = f"{response.origin.netloc} sent {self._what} with Content-Encoding {encoding[:40]!r}, which changes its bytes; refused"
            raise UnsupportedError(msg)

    def _check_range(self, response: Response) -> None:
        value = response.header("Content-Range") or ""
        match = _CONTENT_RANGE.fullmatch(value.strip())
        if not match or int(match[1]) != self._position or not self._position <= int(match[2]) < self._end:
            msg = f"{response.origin.netloc} sent another part of {self._what} than bytes {self._position}-{self._end - 1}: {value[:80]!r}"
            raise CorruptContentError(msg)
        if match[3] != "*" and int(match[3]) != self._blob.size:
            msg = f"{self._what} has {match[3]} bytes on {response.origin.netloc}, but should have {self._blob.size}"
            raise CorruptContentError(msg)
        self._check_length(response, int(match[2]) + 1 - self._position)

    def _check_length(self, response: Response, expected: int) -> None:
        if response.length is not None and response.length != expected:
            msg = f"{response.origin.netloc} announced {response.length} bytes of {self._what}, but {expected} were expected"
            raise CorruptContentError(msg)

    def _skip(self, response: Response) -> None:
        """Read up to where we are; not progress, so that a server which always breaks off before it is given up."""
        scratch = memoryview(bytearray(_SCRATCH))
        left = self._position
        while left:
            count = response.readinto(scratch[: min(left, _SCRATCH)])
            left -= count
            if not count:
                self._cancellation.check()
                raise self._failure(response)

    def _lost(self, response: Response) -> None:
        """The body ended too early: wait, and let the next read open it again."""
        self._fresh = 0
        failure = self._failure(response)
        self._response = None
        response.release()
        self._cancellation.check()
        self._retry.again(failure)

    def _failure(self, response: Response) -> TransientError:
        return response.failure or TransientError(f"{response.origin.netloc} ended {self._what} too early, {self._end} bytes are expected")

    def _finish(self) -> None:
        """Make sure that nothing follows; with a length told beforehand, HTTP itself has seen to that."""
        response, self._response = self._response, None
        if response is None:
            return
        try:
            ends_here = self._end == self._blob.size or response.status == 206
            if response.length is None and ends_here and response.readinto(memoryview(bytearray(1))):
                msg = f"{response.origin.netloc} sent more of {self._what} than its {self._blob.size} bytes"
                raise CorruptContentError(msg)
        finally:
            response.release()


class RegistryPartReader(RegistryBlobReader):
    """Reads one of several parts of a blob; where the server ignores Range it raises RangesIgnoredError, unless next to nothing is to be skipped."""

    def _skip(self, response: Response) -> None:
        if self._position > _SCRATCH:
            msg = f"{response.origin.netloc} sent all of {self._what} where bytes {self._position}-{self._end - 1} were asked for"
            raise RangesIgnoredError(msg)
        super()._skip(response)
