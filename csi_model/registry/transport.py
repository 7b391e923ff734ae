"""Requests over kept connections: no redirects, no credentials, no retries; those are decided above.

One transport serves the whole process. Connections are kept by origin, and by whether their address was checked to be a public one.
"""

from __future__ import annotations

import http.client
import select
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from csi_model import __version__
from csi_model.errors import MisconfiguredError
from csi_model.registry.dial import dial, resolve_host
from csi_model.registry.proxy import proxy_for
from csi_model.registry.response import Response
from csi_model.registry.retry import TransientError
from csi_model.registry.stream import PatientSocket

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from pathlib import Path

    from csi_model.registry.cancellation import Cancellation
    from csi_model.registry.dial import Resolve
    from csi_model.registry.origin import Origin, Url
    from csi_model.registry.settings import HttpSettings

    _Edition = tuple[int, int, int]

_IDLE_SECONDS = 50.0
"""Most servers and load balancers close an idle connection after 60 s or later."""
_IDLE_PER_ORIGIN = 32
_IDLE_MOST = 128
"""Idle connections of the whole process; references name as many hosts as their authors like."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent; Host, User-Agent, Accept-Encoding and Content-Length come by themselves. Headers may be secret, so repr hides them."""

    method: str
    url: Url
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    public_only: bool = False
    """Refuse an address of this machine or a link-local one; for URLs that a registry named."""


@dataclass(frozen=True, slots=True)
class _Key:
    origin: Origin
    public_only: bool


class _Connection:
    """A socket with http.client's half-open state on top; ``reused`` once it has served a response."""

    def __init__(self, key: _Key, sock: socket.socket, stall_timeout: float) -> None:
        self.key = key
        self.sock = sock
        self.reused = False
        self.idle_since = 0.0
        self.http = http.client.HTTPConnection(key.origin.host, key.origin.port)
        self.patient = PatientSocket(sock, stall_timeout, key.origin.netloc)
        self.http.sock = cast("socket.socket", self.patient)
        self.http.auto_open = 0

    @property
    def is_usable(self) -> bool:
        """Whether it is young enough, and the server neither closed it nor said anything unasked."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return time.monotonic() - self.idle_since < _IDLE_SECONDS and not poll.poll(0)

    def exchange(self, request: Request) -> http.client.HTTPResponse:
        """Send the request and read the answer's headers."""
        try:
            self._send(request)
            reply = self.http.getresponse()
        except (OSError, http.client.HTTPException) as error:
            if self.patient.stream.failure:
                raise self.patient.stream.failure from error
            msg = f"{self.key.origin.netloc} broke off before it answered ({type(error).__name__})"
            raise TransientError(msg) from error
        if self.patient.stream.ended:
            # http.client takes the end of the connection for the end of the headers.
            reply.close()
            msg = f"{self.key.origin.netloc} broke off in the headers of its answer"
            raise self.patient.stream.failure or TransientError(msg)
        return reply

    def _send(self, request: Request) -> None:
        origin, target = request.url.origin, request.url.target
        proxy = proxy_for(origin) if origin.is_plain else None
        self.http.putrequest(request.method, f"{origin}{target}" if proxy else target, skip_host=True, skip_accept_encoding=True)
        self.http.putheader("Host", origin.netloc)
        self.http.putheader("User-Agent", f"csi-model/{__version__}")
        # Anything else would make other bytes out of what the digest was taken of.
        self.http.putheader("Accept-Encoding", "identity")
        if proxy and proxy.authorization:
            self.http.putheader("Proxy-Authorization", proxy.authorization)
        if request.body is not None:
            self.http.putheader("Content-Length", str(len(request.body)))
        for name, value in request.headers.items():
            self.http.putheader(name, value)
        self.http.endheaders(request.body)

    def close(self) -> None:
        self.sock.close()


class Transport:
    """Safe to use from many threads."""

    def __init__(self, settings: HttpSettings, *, resolve: Resolve = resolve_host) -> None:
        self.settings = settings
        self._resolve = resolve
        self._lock = threading.Lock()
        self._idle: dict[_Key, list[_Connection]] = {}
        self._contexts: dict[Path | None, tuple[_Edition | None, ssl.SSLContext]] = {}
        """What was read of each CA file, with the edition of the file that it was read of."""
        self._closed = False

    def send(self, request: Request, cancellation: Cancellation) -> Response:
        """Send one request and return its answer, whatever the status.

        Raises:
            TransientError: not reached, or broken off before the answer's headers were there.
            UnavailableError: cancelled, or unreachable in a way that no retry changes.
            DeniedError: see ``dial``.
        """
        cancellation.check()
        key = _Key(request.url.origin, request.public_only)
        while connection := self._take(key):
            try:
                return self._exchange(connection, request, cancellation)
            except _StaleError:
                # The server closed a kept connection just as it was used again, which says nothing about the server's health.
                continue
        return self._exchange(self._connect(key), request, cancellation)

    def close(self) -> None:
        """Close idle connections, and those in use as they are given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def _exchange(self, connection: _Connection, request: Request, cancellation: Cancellation) -> Response:
        cancellation.add(connection.sock)

        def done(reusable: bool) -> None:  # noqa: FBT001 - called with what the response found out
            cancellation.discard(connection.sock)
            self._give_back(connection, reusable=reusable and not cancellation.is_cancelled)

        try:
            reply = connection.exchange(request)
        except TransientError as error:
            done(False)
            cancellation.check()
            if connection.reused and not connection.patient.stream.timed_out:
                raise _StaleError(str(error)) from error
            raise
        except BaseException:
            done(False)
            raise
        return Response(reply, connection.patient.stream, request.url.origin, done)

    def _connect(self, key: _Key) -> _Connection:
        sock = dial(
            key.origin,
            proxy=proxy_for(key.origin),
            context=None if key.origin.is_plain else self._context(key.origin),
            timeout=self.settings.connect_timeout,
            public_only=key.public_only,
            resolve=self._resolve,
        )
        return _Connection(key, sock, self.settings.stall_timeout)

    def _take(self, key: _Key) -> _Connection | None:
        while True:
            with self._lock:
                connections = self._idle.get(key)
                if not connections:
                    return None
                connection = connections.pop()
                if not connections:
                    del self._idle[key]
            if connection.is_usable:
                return connection
            connection.close()

    def _give_back(self, connection: _Connection, *, reusable: bool) -> None:
        connection.reused = True
        connection.idle_since = time.monotonic()
        with self._lock:
            over = self._take_old(connection.idle_since)
            kept = self._idle.get(connection.key, [])
            if reusable and not self._closed and len(kept) < _IDLE_PER_ORIGIN:
                self._idle[connection.key] = [*kept, connection]
            else:
                over.append(connection)
        for each in over:
            each.close()

    def _take_old(self, now: float) -> list[_Connection]:
        """Take out, whatever their origin, connections that have been idle for too long, and the one idle for longest where there are too many."""
        idle = [connection for kept in self._idle.values() for connection in kept]
        old = [connection for connection in idle if now - connection.idle_since >= _IDLE_SECONDS]
        if len(idle) - len(old) >= _IDLE_MOST:
            old.append(min((connection for connection in idle if connection not in old), key=lambda connection: connection.idle_since))
        for connection in old:
            kept = self._idle[connection.key]
            kept.remove(connection)
            if not kept:
                del self._idle[connection.key]
        return old

    def _context(self, origin: Origin) -> ssl.SSLContext:
        ca_file = self.settings.ca_files.get(origin.netloc) or self.settings.ca_files.get(f"{origin.host}:{origin.port}")
        # Looked at each time: who renews the authorities replaces the file while we run.
        edition = _edition(ca_file) if ca_file else None
        with self._lock:
            kept = self._contexts.get(ca_file)
            if kept is None or kept[0] != edition:
                kept = self._contexts[ca_file] = edition, _make_context(ca_file)
            return kept[1]


class _StaleError(TransientError):
    """A kept connection turned out to be closed."""


def _edition(ca_file: Path) -> _Edition:
    """What changes when the file is written or replaced."""
    try:
        status = ca_file.stat()
    except OSError as error:
        raise _unusable(ca_file, error) from error
    return status.st_mtime_ns, status.st_size, status.st_ino


def _make_context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:  # SSLError is one
            raise _unusable(ca_file, error) from error
    return context


def _unusable(ca_file: Path, error: OSError) -> MisconfiguredError:
    return MisconfiguredError(f"the CA file {ca_file} cannot be used: {error.strerror or error}")
