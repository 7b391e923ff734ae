"""A registry in this process that misbehaves on demand: plain HTTP or TLS, open, Basic or token authentication.

It serves what a test adds to it and remembers every request. Faults are values: each applies to requests whose path contains its
``where`` and, when ``times`` is given, only so often; the first that matches a request is used.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import socket
import struct
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from csi_model.oci.descriptor import Descriptor
from csi_model.oci.digest import Digest

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_STALL_LIMIT = 20.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Fault:
    """What goes wrong. ``…_after`` counts bytes of this response's body; fields may be combined."""

    where: str = "/blobs/"
    times: int | None = None
    method: str | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent instead of the true body, with a Content-Length that fits it."""
    redirect: str | None = None
    """Answer 307, or ``status``, with this Location; ``{path}`` stands for the path that was asked for."""
    stall_after: int | None = None
    """Send no more, but keep the connection open."""
    reset_after: int | None = None
    """Break the connection with RST."""
    close_after: int | None = None
    """Close the connection in an orderly way, too early."""
    drip: tuple[int, float] | None = None
    """Send so many bytes, then pause for so many seconds, and so on."""
    delay: float = 0.0
    """Wait before the status line."""
    hang_up: bool = False
    """Close the connection instead of answering."""
    chunked: bool = False
    extra: bytes = b""
    """Appended to a chunked body, whose true length nobody told."""
    ignore_range: bool = False
    content_range: str | None = None
    """Sent instead of the true Content-Range."""


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """Ask for a name and password."""

    users: Mapping[str, str]


@dataclass(slots=True)
class TokenAuth:
    """Ask for a bearer token, which ``/token`` of this server, or ``realm``, hands out."""

    users: Mapping[str, str] = field(default_factory=dict)
    anonymous: bool = False
    refresh_tokens: tuple[str, ...] = ()
    post: bool = True
    """Whether the token server understands the POST form; else it answers 405."""
    expires_in: int | None = 300
    realm: str | None = None
    issued: int = 0
    valid: set[str] = field(default_factory=set)

    def issue(self) -> str:
        """A new token; older ones stay valid until ``revoke``."""
        self.issued += 1
        token = f"token-{self.issued}"
        self.valid.add(token)
        return token

    def revoke(self) -> None:
        """Make every token that was handed out invalid."""
        self.valid.clear()


class FakeRegistry:
    """A context manager; ``host`` is where it listens, ``url`` the same with its scheme; always on loopback."""

    def __init__(self, *, auth: BasicAuth | TokenAuth | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.auth = auth
        self.blobs: dict[str, bytes | memoryview] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.connections = 0
        self.body_bytes = 0
        self.head_status: int | None = None
        """When set, HEAD for a manifest is answered with it, as registries without HEAD do."""
        self.digest_header = True
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler, self, tls)
        self.port = int(self._server.server_address[1])
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def add_blob(self, data: bytes | memoryview, media_type: str = "application/octet-stream") -> Descriptor:
        """Serve ``data`` in every repository."""
        digest = Digest.of(data)
        self.blobs[str(digest)] = data
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def add_manifest(self, repository: str, body: bytes, *, tag: str | None = None, media_type: str = MANIFEST) -> Descriptor:
        """Serve ``body`` in ``repository``, by its digest and by ``tag``."""
        digest = Digest.of(body)
        self.manifests[repository, str(digest)] = (media_type, body)
        if tag:
            self.manifests[repository, tag] = (media_type, body)
        return Descriptor(media_type=media_type, digest=digest, size=len(body))

    def add_fault(self, fault: Fault) -> Fault:
        """Let ``fault`` happen from now on."""
        with self.lock:
            self.faults.append(fault)
        return fault

    def fault_for(self, method: str, path: str) -> Fault:
        """The fault for this request, counted down; one that changes nothing when there is none."""
        with self.lock:
            for fault in self.faults:
                if fault.where in path and fault.times != 0 and fault.method in (None, method):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return Fault()

    def requests(self, where: str = "", method: str | None = None) -> list[Seen]:
        """The requests whose path contains ``where``, in order."""
        return [seen for seen in self.seen if where in seen.path and method in (None, seen.method)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[_Handler], registry: FakeRegistry, tls: ssl.SSLContext | None) -> None:
        super().__init__(address, handler)
        self.registry = registry
        self.tls = tls
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        if self.tls:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.registry.connections += 1
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        assert isinstance(request, socket.socket)
        self._open.discard(request)
        with contextlib.suppress(OSError):
            super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of many tests."""

    def server_close(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        super().server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Quiet."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        registry = self.server.registry
        length = int(self.headers.get("Content-Length", "0"))
        seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, self.rfile.read(length))
        with registry.lock:
            registry.seen.append(seen)
        fault = registry.fault_for(self.command, self.path)
        if fault.delay:
            registry.stopping.wait(fault.delay)
        if fault.hang_up:
            self.close_connection = True
        elif fault.redirect is not None:
            self._answer(fault.status or 307, {"Location": fault.redirect.format(path=self.path)}, b"")
        elif fault.status is not None and fault.body is None:
            self._answer(fault.status, fault.headers, _error_body(fault.status))
        elif self.path.startswith("/token"):
            self._token(seen)
        elif not self._allowed(seen):
            self._challenge()
        else:
            self._content(fault)

    def _content(self, fault: Fault) -> None:
        registry = self.server.registry
        parts = self.path.partition("?")[0].split("/")
        kind, name, repository = parts[-2], parts[-1], "/".join(parts[2:-2])
        if self.path == "/v2/":
            self._answer(200, {}, b"{}")
        elif kind == "blobs" and name in registry.blobs:
            self._body(registry.blobs[name], {"Content-Type": "application/octet-stream"}, fault)
        elif kind == "manifests" and (repository, name) in registry.manifests:
            if self.command == "HEAD" and registry.head_status:
                self._answer(registry.head_status, {}, b"")
                return
            media_type, body = registry.manifests[repository, name]
            headers = {"Content-Type": media_type}
            if registry.digest_header:
                headers["Docker-Content-Digest"] = str(Digest.of(body))
            self._body(body, headers, fault)
        else:
            self._answer(404, {}, json.dumps({"errors": [{"code": f"{kind[:-1].upper()}_UNKNOWN", "message": "not here"}]}).encode())

    def _body(self, data: bytes | memoryview, headers: dict[str, str], fault: Fault) -> None:
        status, view = 200, memoryview(data)
        if fault.body is not None:
            view = memoryview(fault.body)
        asked = self.headers.get("Range")
        if asked and not fault.ignore_range:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(view) - 1), len(view) - 1)
            if start >= len(view):
                self._answer(416, {"Content-Range": f"bytes */{len(view)}"}, b"")
                return
            headers["Content-Range"] = fault.content_range or f"bytes {start}-{stop}/{len(view)}"
            status, view = 206, view[start : stop + 1]
        if fault.status is not None:
            status = fault.status
        headers |= fault.headers
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault.chunked or fault.extra:
            self.send_header("Transfer-Encoding", "chunked")
        elif "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(view)))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(view, fault)

    def _send_body(self, view: memoryview, fault: Fault) -> None:
        stops = [n for n in (fault.stall_after, fault.reset_after, fault.close_after) if n is not None and n < len(view)]
        limited = view[: min(stops)] if stops else view
        if fault.chunked or fault.extra:
            for start in range(0, len(limited), 100_000):
                piece = limited[start : start + 100_000]
                self._send(b"%x\r\n" % len(piece) + bytes(piece) + b"\r\n", fault)
            if fault.extra:
                self._send(b"%x\r\n" % len(fault.extra) + fault.extra + b"\r\n", fault)
            if not stops:
                self._send(b"0\r\n\r\n", fault)
        else:
            self._send(limited, fault)
        if not stops:
            return
        self.close_connection = True
        if fault.stall_after == min(stops):
            self._stall()
        elif fault.reset_after == min(stops):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.socket.close(self.connection)

    def _send(self, data: bytes | memoryview, fault: Fault) -> None:
        size, pause = fault.drip or (1 << 20, 0.0)
        for start in range(0, len(data), size):
            with self.server.registry.lock:
                self.server.registry.body_bytes += len(data[start : start + size])
            self.wfile.write(data[start : start + size])
            if pause and self.server.registry.stopping.wait(pause):
                return

    def _stall(self) -> None:
        """Until the client hangs up or the test ends."""
        deadline = time.monotonic() + _STALL_LIMIT
        self.connection.settimeout(0.02)
        while not self.server.registry.stopping.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                if not self.connection.recv(1):
                    return

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _allowed(self, seen: Seen) -> bool:
        auth = self.server.registry.auth
        scheme, _, value = seen.headers.get("authorization", "").partition(" ")
        if isinstance(auth, BasicAuth):
            return scheme == "Basic" and _login(value) in auth.users.items()
        return auth is None or (scheme == "Bearer" and value in auth.valid)

    def _challenge(self) -> None:
        registry = self.server.registry
        if isinstance(registry.auth, TokenAuth):
            realm = registry.auth.realm or f"{registry.url}/token"
            repository = "/".join(self.path.split("/")[2:-2])
            challenge = f'Bearer realm="{realm}",service="fake, \\"registry\\"",scope="repository:{repository}:pull"'
        else:
            challenge = 'Basic realm="fake"'
        self._answer(401, {"WWW-Authenticate": challenge}, _error_body(401))

    def _token(self, seen: Seen) -> None:
        auth = self.server.registry.auth
        assert isinstance(auth, TokenAuth)
        if seen.method == "POST":
            form = dict(urllib.parse.parse_qsl(seen.body.decode()))
            if not auth.post:
                self._answer(405, {}, b"")
                return
            known = (form.get("username"), form.get("password")) in auth.users.items()
            allowed = known if form.get("grant_type") == "password" else form.get("refresh_token") in auth.refresh_tokens
        elif "authorization" in seen.headers:
            allowed = _login(seen.headers["authorization"].partition(" ")[2]) in auth.users.items()
        else:
            allowed = auth.anonymous
        if not allowed:
            self._answer(401, {}, _error_body(401))
            return
        key = "access_token" if seen.method == "POST" else "token"
        reply: dict[str, object] = {key: auth.issue()}
        if auth.expires_in is not None:
            reply["expires_in"] = auth.expires_in
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(reply).encode())


def _login(encoded: str) -> tuple[str, str]:
    name, _, password = base64.b64decode(encoded).decode().partition(":")
    return name, password


def _error_body(status: int) -> bytes:
    codes = {401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN", 429: "TOOMANYREQUESTS"}
    return json.dumps({"errors": [{"code": codes.get(status, "UNKNOWN"), "message": f"fake {status}"}]}).encode()
