"""The HTTP server of metrics and probes, with callers of every kind."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from csi_model.metrics import server
from csi_model.metrics.address import Address
from csi_model.metrics.server import Answer, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_model.metrics.server import Page


@contextmanager
def served(**pages: Page) -> Iterator[int]:
    """A server with these pages; its port."""
    listener = Address("127.0.0.1", 0).listen()
    port = listener.getsockname()[1]
    with serving(listener, {f"/{name}": page for name, page in pages.items()}):
        yield port


@pytest.fixture
def port() -> Iterator[int]:
    with served(hello=lambda accept: Answer(f"hello {accept}".encode()), broken=_break) as port:
        yield port


def _break(_accept: str) -> Answer:
    raise ZeroDivisionError


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """A polite caller's answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def raw(port: int, data: bytes) -> bytes:
    """All that comes back for ``data``."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
        caller.sendall(data)
        answer = b""
        while more := caller.recv(65536):
            answer += more
        return answer


def test_a_page_is_served_by_its_path(port: int) -> None:
    """GET brings status, type, length and body, whatever the query says; the page sees the Accept header."""
    assert ask(port, "/hello?x=1", Accept="text/plain") == (200, b"hello text/plain")
    answer = raw(port, b"GET /hello HTTP/1.1\r\nHost: x\r\naccept: a\r\nAccept: b\r\n\r\n")
    assert answer == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhello a,b"
    )


def test_head_is_get_without_the_body(port: int) -> None:
    """HEAD tells the length and sends nothing."""
    answer = raw(port, b"HEAD /hello HTTP/1.0\r\n\r\n")
    assert b"Content-Length: 6\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_what_is_not_there_is_not_found(port: int) -> None:
    """An unknown path is answered 404."""
    assert ask(port, "/etc/passwd")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_nothing_can_be_changed(port: int, method: str) -> None:
    """Every method but GET and HEAD is refused, and those two are named."""
    answer = raw(port, f"{method} /hello HTTP/1.1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"Allow: GET, HEAD\r\n" in answer


@pytest.mark.parametrize(
    "head", [b"hello\r\n\r\n", b"GET /hello\r\n\r\n", b"GET /hello HTTP/2.0\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"\r\n\r\n"]
)
def test_what_is_no_http_is_refused(port: int, head: bytes) -> None:
    """A caller that speaks something else is answered 400."""
    assert raw(port, head).startswith(b"HTTP/1.1 400 ")


def test_a_large_head_is_refused(port: int) -> None:
    """More than 8 KiB of headers are answered 431 before they are all read."""
    assert raw(port, b"GET /hello HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")


def test_a_broken_page_is_a_logged_500(port: int) -> None:
    """A bug in a page is the log's to tell, not the caller's, and the server goes on."""
    with capture_logs() as lines:
        status, body = ask(port, "/broken")
    assert (status, body) == (500, b"500 Internal Server Error\n")
    assert [line["path"] for line in lines if line["log_level"] == "error"] == ["/broken"]
    assert ask(port, "/hello")[0] == 200


def test_slow_callers_hold_up_nobody(port: int) -> None:
    """A crowd that connects and says nothing, or little, costs no thread and 64 sockets: a probe among them is answered at once."""
    before = threading.active_count()
    with ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5)) for _ in range(200)]
        for caller in crowd[::2]:
            with suppress(ConnectionError):
                caller.sendall(b"GET /hello HT")
        began = time.monotonic()
        assert ask(port, "/hello")[0] == 200
        assert time.monotonic() - began < 1
        assert threading.active_count() <= before + 1
        assert sum(map(_is_open, crowd)) <= 64


def _is_open(caller: socket.socket) -> bool:
    caller.setblocking(False)
    try:
        return bool(caller.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def test_a_caller_that_never_finishes_is_sent_away(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte after byte does not keep a connection alive past the time for a request."""
    monkeypatch.setattr(server, "_PATIENCE", 0.3)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - began < 5:
                caller.sendall(b"x")
                time.sleep(0.05)
        assert 0.2 < time.monotonic() - began < 2


def test_a_caller_that_does_not_read_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that its caller does not take is given up, and its memory with it."""
    monkeypatch.setattr(server, "_PATIENCE", 0.3)
    with served(big=lambda _: Answer(b"x" * (64 << 20)), small=lambda _: Answer(b"")) as port, capture_logs() as lines:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
            caller.sendall(b"GET /big HTTP/1.1\r\n\r\n")
            end = time.monotonic() + 5
            while not any("too slow" in line["event"] for line in lines):
                assert time.monotonic() < end
                time.sleep(0.02)
        assert ask(port, "/small")[0] == 200


def test_a_stuck_page_holds_up_no_other() -> None:
    """While a scrape hangs in the disk, probes are answered."""
    release = threading.Event()

    def stuck(_accept: str) -> Answer:
        release.wait(10)
        return Answer(b"late")

    with served(metrics=stuck, healthz=lambda _: Answer(b"ok")) as port, ExitStack() as stack:
        for _ in range(100):
            caller = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            caller.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert ask(port, "/healthz") == (200, b"ok")
        release.set()


def test_the_port_is_free_again() -> None:
    """At the end nobody listens, and no thread is left."""
    before = set(threading.enumerate())
    with served(hello=lambda _: Answer(b"")) as port:
        assert ask(port, "/hello")[0] == HTTPStatus.OK
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    end = time.monotonic() + 5
    while set(threading.enumerate()) - before:
        assert time.monotonic() < end
        time.sleep(0.01)
