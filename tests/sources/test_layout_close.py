"""Closing a layout's reader while its filesystem hangs."""

from __future__ import annotations

import threading

import pytest

from csi_model.errors import StoppedError
from csi_model.oci.descriptor import Descriptor
from csi_model.oci.digest import Digest
from csi_model.sources.layout import LayoutSource

DATA = b"weights"


class HangingFile:
    """A file on a filesystem that answers when it is let."""

    size = len(DATA)

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()
        self.closed = 0

    def read_at(self, buffer: memoryview, offset: int) -> int:
        self.asked.set()
        assert self.go.wait(20)
        assert not self.closed
        data = DATA[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self.closed += 1


class HangingFiles:
    def __init__(self, file: HangingFile) -> None:
        self._file = file

    def open(self, _: str) -> HangingFile:
        return self._file


@pytest.mark.timeout(15)
def test_a_close_does_not_wait_for_a_read_that_hangs() -> None:
    """It returns at once; the read ends as stopped when the filesystem answers, and closes the file."""
    file = HangingFile()
    reader = LayoutSource(HangingFiles(file), "oci-layout:///hung").open(Descriptor("x", Digest.of(DATA), len(DATA)))
    ended = list[BaseException]()

    def read() -> None:
        try:
            reader.readinto(memoryview(bytearray(4)))
        except StoppedError as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert file.asked.wait(5)
    closing = threading.Thread(target=reader.close)
    closing.start()
    closing.join(2)
    hung = closing.is_alive()
    file.go.set()
    thread.join(5)
    closing.join(5)
    assert not hung
    assert len(ended) == 1
    assert file.closed == 1
    with pytest.raises(StoppedError):
        reader.readinto(memoryview(bytearray(4)))
