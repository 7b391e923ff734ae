from __future__ import annotations

import fcntl
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from csi_model.linux.loops import backing_file, loop_device
from csi_model.linux.readahead import known_devices, read_ahead, set_read_ahead

pytestmark = pytest.mark.root
_BLKSSZGET, _BLKROGET = 0x1268, 0x125E


def _asked(descriptor: int, request: int) -> int:
    answer = bytearray(4)
    fcntl.ioctl(descriptor, request, answer)
    return int.from_bytes(answer, "little")


def _wait_until_free(device: str) -> None:
    end = time.monotonic() + 10
    while backing_file(Path(device).name) is not None:
        assert time.monotonic() < end, f"{device} was not freed"
        time.sleep(0.01)


def test_a_loop_device_reads_its_file_directly_and_frees_itself(tmp_path: Path) -> None:
    """The device is read-only with 512-byte blocks and direct I/O, even over a 0444 file, and is gone after its last user."""
    file = tmp_path / "file"
    file.write_bytes(b"l" * 4096 + b"m" * 512)
    file.chmod(0o444)
    with loop_device(file) as device:
        assert Path(f"/sys/block/{Path(device).name}/loop/dio").read_text() == "1\n"
        assert backing_file(Path(device).name) == file
        descriptor = os.open(device, os.O_RDONLY)
        try:
            assert _asked(descriptor, _BLKSSZGET) == 512
            assert _asked(descriptor, _BLKROGET) == 1
            assert os.read(descriptor, 8192) == file.read_bytes()
        finally:
            os.close(descriptor)
    _wait_until_free(device)


def test_many_threads_get_devices_of_their_own(tmp_path: Path) -> None:
    """The race for a free number is repeated until each has its own."""
    files = [tmp_path / f"{n}" for n in range(12)]
    for file in files:
        file.write_bytes(file.name.encode() * 512)
    with ExitStack() as stack, ThreadPoolExecutor(4) as threads:
        devices = list(threads.map(lambda file: stack.enter_context(loop_device(file)), files))
        assert len(set(devices)) == len(files)
        assert [backing_file(Path(device).name) for device in devices] == files
    for device in devices:
        _wait_until_free(device)


def test_a_missing_file_takes_no_device(tmp_path: Path) -> None:
    """The error is the file's, and no device has no backing file."""
    with pytest.raises(FileNotFoundError), loop_device(tmp_path / "absent"):
        pass
    assert backing_file("loop-absent") is None


def test_read_ahead_is_read_and_set(tmp_path: Path) -> None:
    """A device's read-ahead can be raised through its backing device's entry."""
    file = tmp_path / "file"
    file.write_bytes(b"l" * 4096)
    with loop_device(file) as device:
        name = next(entry for entry in known_devices() if entry == f"7:{device.removeprefix('/dev/loop')}")
        set_read_ahead(name, 3 << 20)
        assert read_ahead(name) == 3 << 20
    _wait_until_free(device)
