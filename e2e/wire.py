"""A unary gRPC call as it looks on the wire, for timing a server without the cost of a client library.

kubelet's client is written in Go and connects anew for each call; Python's takes several times as long for that as the server does for its part. So
a call's bytes are made before the clock starts, and what is exchanged is what kubelet's client and a server exchange: preface and settings, the
server's settings, the request, the answer (RFC 9113; https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

    from google.protobuf.message import Message

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACKNOWLEDGED = _END_STREAM = 0x1
_END_HEADERS = 0x4
_STREAM = 1
_PATIENCE = 120.0


def timed_call(path: Path, method: str, request: Message) -> float:
    """Call ``method`` (``/package.Service/Method``) at a Unix socket; seconds from connecting to the end of the answer.

    Raises:
        RuntimeError: the server refused the call or the connection.
    """
    body = request.SerializeToString()
    opening = _PREFACE + _frame(_SETTINGS, 0, 0, b"")
    message = struct.pack(">BI", 0, len(body)) + body
    asking = (
        _frame(_SETTINGS, _ACKNOWLEDGED, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, _STREAM, _headers(method))
        + _frame(_DATA, _END_STREAM, _STREAM, message)
    )
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(str(path))
        connection.sendall(opening)
        with connection.makefile("rb") as answers:
            answered = _converse(connection, answers, asking)
        took = time.monotonic() - began
    if not answered:
        msg = f"{method} was refused; the driver's log says why"
        raise RuntimeError(msg)
    return took


def _converse(connection: socket.socket, answers: BufferedReader, asking: bytes) -> bool:
    """Ask once the server's settings have come; whether the answer holds a message, which a refusal does not."""
    answered = False
    while True:
        head = answers.read(9)
        if len(head) < 9:
            msg = "the server closed the connection"
            raise RuntimeError(msg)
        kind, flags = head[3], head[4]
        payload = answers.read(int.from_bytes(head[:3], "big"))
        if kind == _SETTINGS and not flags & _ACKNOWLEDGED:
            connection.sendall(asking)
        elif kind == _PING and not flags & _ACKNOWLEDGED:
            connection.sendall(_frame(_PING, _ACKNOWLEDGED, 0, payload))
        elif kind in {_RESET, _GOAWAY}:
            msg = f"the server broke the call off: {payload!r}"
            raise RuntimeError(msg)
        elif kind == _DATA:
            answered = True
        elif kind == _HEADERS and flags & _END_STREAM:
            return answered


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _headers(method: str) -> bytes:
    """A header block of plain literals (RFC 7541, 6.2.2), which needs neither table nor Huffman code."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        "grpc-timeout": f"{_PATIENCE:.0f}S",
    }
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())


def _text(text: str) -> bytes:
    assert len(text) < 127, "a longer one needs a length of several bytes"
    return bytes((len(text),)) + text.encode()
