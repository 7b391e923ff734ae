from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from csi_model.registry.stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Silent(ssl.SSLSocket):
    """Delivers two records and then waits in vain, which it can bear once."""

    def __init__(self) -> None:
        socket.socket.__init__(self)
        self.answers = [16384, 16384, 0]

    def recv_into(self, _buffer: Buffer, _nbytes: int | None = None, _flags: int = 0) -> int:
        if count := self.answers.pop(0):
            return count
        raise TimeoutError


def test_a_silence_between_records_is_waited_for_once() -> None:
    """What came before it is delivered, and the next read says what happened instead of waiting as long again."""
    with _Silent() as sock:
        stream = Stream(sock, 30, "registry.example")
        assert stream.readinto(bytearray(1 << 20)) == 32768
        assert stream.failure is None
        assert stream.readinto(bytearray(1 << 20)) == 0
        assert stream.timed_out
        assert "sent nothing" in str(stream.failure)
