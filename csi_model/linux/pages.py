"""The page cache as seen from one file: push its pages to disk, count those in memory, let them go."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

from csi_model.linux.syscall import function, raw

_CACHESTAT = 451  # Linux 6.5
_WRITE = 2
_MINCORE_STRIDE = 1 << 30


class _Range(ctypes.Structure):
    _fields_ = (("off", ctypes.c_uint64), ("len", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = (
        ("nr_cache", ctypes.c_uint64),
        ("nr_dirty", ctypes.c_uint64),
        ("nr_writeback", ctypes.c_uint64),
        ("nr_evicted", ctypes.c_uint64),
        ("nr_recently_evicted", ctypes.c_uint64),
    )


def start_writeback(descriptor: int, offset: int, length: int) -> None:
    """Begin to write a range's dirty pages and return; says nothing of durability."""
    function("sync_file_range", ctypes.c_int(descriptor), ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(_WRITE))


def resident_bytes(descriptor: int, offset: int = 0, length: int = 0) -> int:
    """How many bytes of a file's range are in the page cache, in whole pages; a length of 0 means to the end.

    Counted by cachestat (Linux 6.5) or else by mincore, which tells only owners and root.
    """
    try:
        return _cachestat(descriptor, offset, length)
    except OSError as error:
        # ENOSYS: an older kernel. EPERM: a seccomp profile that does not know the call. EOPNOTSUPP: hugetlbfs.
        if error.errno not in {errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP}:
            raise
    return mincore_bytes(descriptor, offset, length)


def mincore_bytes(descriptor: int, offset: int = 0, length: int = 0) -> int:
    """The same count by mapping the file and asking mincore(2), on any kernel."""
    end = os.fstat(descriptor).st_size
    if length:
        end = min(end, offset + length)
    start = offset - offset % mmap.PAGESIZE
    pages = 0
    while start < end:
        stride = min(_MINCORE_STRIDE, end - start)
        pages += _mincore(descriptor, start, stride)
        start += stride
    return pages * mmap.PAGESIZE


def drop(descriptor: int, offset: int = 0, length: int = 0) -> None:
    """Let go of a range's clean pages; dirty ones and those mapped by someone stay. A length of 0 means to the end."""
    os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


def _cachestat(descriptor: int, offset: int, length: int) -> int:
    counts = _CacheStat()
    raw("cachestat", _CACHESTAT, descriptor, _Range(offset, length), counts, 0)
    return int(counts.nr_cache) * mmap.PAGESIZE


def _mincore(descriptor: int, offset: int, length: int) -> int:
    vector = (ctypes.c_char * -(-length // mmap.PAGESIZE))()
    # A private writable mapping of a file opened read-only, because ctypes takes the address of writable buffers only.
    with mmap.mmap(descriptor, length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=offset) as mapping:
        view = (ctypes.c_char * length).from_buffer(mapping)
        try:
            function("mincore", ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(length), vector)
        finally:
            del view  # the mapping cannot be closed while a view of it lives
    return sum(byte & 1 for byte in vector.raw)
