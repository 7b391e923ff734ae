from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from csi_model.linux import pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PAGES = 64


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(descriptor, b"x" * (_PAGES * mmap.PAGESIZE - 1))
    yield descriptor
    os.close(descriptor)


def test_written_pages_are_resident_and_clean_ones_can_be_dropped(file: int) -> None:
    """What was just written is counted as resident, and after write-back and drop none of it is."""
    assert pages.resident_bytes(file) == _PAGES * mmap.PAGESIZE
    pages.start_writeback(file, 0, mmap.PAGESIZE)
    os.fsync(file)
    pages.drop(file)
    assert pages.resident_bytes(file) == 0


def test_a_range_is_counted_alone(file: int) -> None:
    """Only pages of the asked range count."""
    os.fsync(file)
    pages.drop(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
    os.pread(file, 1, 10 * mmap.PAGESIZE)
    assert pages.resident_bytes(file, 10 * mmap.PAGESIZE, mmap.PAGESIZE) == mmap.PAGESIZE
    assert pages.resident_bytes(file, 11 * mmap.PAGESIZE, mmap.PAGESIZE) == 0


def test_mincore_agrees_with_cachestat(file: int) -> None:
    """The fallback for old kernels counts the same pages, whole file or range, and none of an empty range."""
    os.fsync(file)
    pages.drop(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    os.pread(file, 3 * mmap.PAGESIZE, 8 * mmap.PAGESIZE)
    assert pages.mincore_bytes(file) == pages.resident_bytes(file) == 3 * mmap.PAGESIZE
    assert pages.mincore_bytes(file, 9 * mmap.PAGESIZE, mmap.PAGESIZE) == mmap.PAGESIZE
    assert pages.mincore_bytes(file, _PAGES * mmap.PAGESIZE, mmap.PAGESIZE) == 0


def test_without_cachestat_mincore_answers(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not know cachestat (ENOSYS) is asked by mincore instead."""
    monkeypatch.setattr(pages, "_CACHESTAT", 9999)
    assert pages.resident_bytes(file) == _PAGES * mmap.PAGESIZE


def test_a_bad_descriptor_is_an_error() -> None:
    """The errno comes out as OSError that names the call."""
    with pytest.raises(OSError, match="cachestat"):
        pages.resident_bytes(-1)
