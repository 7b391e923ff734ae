"""Direct I/O: opening files past the page cache, and the page-aligned buffers that it asks for.

Offsets, lengths and buffer addresses must be multiples of the device's block size; 4096 satisfies every disk in use.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

ALIGNMENT = 4096
_HUGE_PAGE = 2 << 20


def aligned_buffer(size: int) -> mmap.mmap:
    """A private anonymous buffer whose address is page-aligned; its pages are zero, and taken when first touched.

    Huge pages where the kernel has them: a direct write then pins two pages instead of a thousand for 4 MiB, at a quarter of the CPU time.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE_PAGE:
        with contextlib.suppress(OSError):  # EINVAL: a kernel without transparent huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def open_direct(path: Path | str, flags: int, mode: int = 0o600, *, dir_fd: int | None = None) -> int:
    """Open with O_DIRECT and close-on-exec; ``OSError`` (EINVAL) where the filesystem has no direct I/O."""
    return os.open(path, flags | os.O_DIRECT | os.O_CLOEXEC, mode, dir_fd=dir_fd)
