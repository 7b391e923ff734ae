from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import pytest

from csi_model.linux import pages
from csi_model.linux.direct import ALIGNMENT, aligned_buffer, open_direct

if TYPE_CHECKING:
    from pathlib import Path


def test_buffers_are_aligned() -> None:
    """A buffer's address and the writes from it are good for direct I/O."""
    with aligned_buffer(3 * ALIGNMENT) as buffer:
        view = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        address = ctypes.addressof(view)
        del view
        assert address % ALIGNMENT == 0
        assert len(buffer) == 3 * ALIGNMENT


def test_direct_writes_pass_the_page_cache(tmp_path: Path) -> None:
    """Bytes written through a direct descriptor are on the disk's side, with no page left in memory."""
    with aligned_buffer(16 * ALIGNMENT) as buffer:
        buffer[:] = b"d" * len(buffer)
        descriptor = open_direct(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        try:
            assert os.pwrite(descriptor, buffer, 0) == len(buffer)
            assert pages.resident_bytes(descriptor) == 0
            with pytest.raises(OSError, match="Invalid argument"):
                os.pwrite(descriptor, b"unaligned", 0)
        finally:
            os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"d" * 16 * ALIGNMENT
