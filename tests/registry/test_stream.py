from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from csi_model.registry.stream import BUFFER, PatientSocket, Stream

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


def test_waiting_takes_nothing_and_ends_with_a_byte_or_the_patience() -> None:
    """After a read past the reader's buffer, waiting leaves what has come to the next read, and gives up a peer that stays silent."""
    here, there = socket.socketpair()
    with here, there:
        patient = PatientSocket(here, 0.2, "registry.example")
        reader, stream = patient.makefile("rb"), patient.stream
        there.sendall(bytes(2 * BUFFER))
        assert not stream.direct
        assert reader.readinto(bytearray(2 * BUFFER)) == 2 * BUFFER
        assert stream.direct
        there.sendall(b"x")
        stream.wait()
        assert stream.failure is None
        assert reader.read(1) == b"x"
        stream.wait()
        assert stream.timed_out
        assert "sent nothing" in str(stream.failure)


def test_what_the_readers_buffer_holds_is_not_waited_for() -> None:
    """A last part that is shorter than the buffer may bring more along than was asked for; then the reader itself is to be looked at."""
    here, there = socket.socketpair()
    with here, there:
        patient = PatientSocket(here, 0.2, "registry.example")
        reader = patient.makefile("rb")
        there.sendall(bytes(BUFFER))
        assert reader.read(1) == b"\0"
        assert not patient.stream.direct
        assert len(reader.peek(1)) == BUFFER - 1
