"""A reader of EROFS images written from the format's description, sharing no code with the writer, and as strict as the kernel.

It looks names up by bisection as the kernel does, and refuses what the kernel would answer with EIO: a block that its device does not
hold in full, inline data across a block's end, an index out of range.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NULL = 0xFFFFFFFF


@dataclass(frozen=True)
class Inode:
    """An inode as it is on disk."""

    nid: int
    form: int
    mode: int
    size: int
    union: int
    ino: int
    uid: int
    gid: int
    mtime_ns: int
    nlink: int
    behind: int

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


class Reader:
    """Reads one image and its devices, all of them bytes."""

    def __init__(self, image: bytes, devices: Sequence[bytes]) -> None:
        self.image = image
        self.devices = [image, *devices]
        (magic, self.checksum, self.compat, self.bits, slots, self.root_nid, self.inodes) = struct.unpack_from("<IIIBBHQ", image, 1024)
        assert (magic, slots) == (0xE0F5E1E2, 0)
        self.block = 1 << self.bits
        (self.blocks, self.meta_block) = struct.unpack_from("<II", image, 1024 + 36)
        self.uuid = image[1024 + 48 : 1024 + 64]
        (self.incompat, _, extra, slot) = struct.unpack_from("<IHHH", image, 1024 + 80)
        assert extra == len(devices)
        assert bool(self.incompat & 0x8) == bool(devices)
        self.tags = [image[slot * 128 + 128 * number :][:64].rstrip(b"\0") for number in range(extra)]
        self.device_blocks = [struct.unpack_from("<I", image, slot * 128 + 128 * number + 64)[0] for number in range(extra)]
        self.root = self.inode(self.root_nid)

    def inode(self, nid: int) -> Inode:
        at = self.meta_block * self.block + nid * 32
        assert at % self.block + 64 <= self.block, "an inode crosses a block's end"
        fields = struct.unpack_from("<HHHHQIIIIqIIQQ", self.image, at)
        form, xattrs, mode, reserved, size, union, ino, uid, gid, seconds, nanoseconds, nlink, *rest = fields
        assert (form & 1, xattrs, reserved, *rest) == (1, 0, 0, 0, 0)
        assert nanoseconds < 10**9
        return Inode(nid, form >> 1, mode, size, union, ino, uid, gid, seconds * 10**9 + nanoseconds, nlink, at + 64)

    def read(self, inode: Inode) -> bytes:
        if inode.form == 0:
            return self._blocks(0, inode.union, inode.size) if inode.size else b""
        if inode.form == 2:
            assert inode.behind % self.block + inode.size <= self.block, "inline data crosses a block's end"
            return self.image[inode.behind : inode.behind + inode.size]
        assert inode.form == 4
        assert inode.union & ~0x3F == 0
        assert inode.union & 0x20
        chunk = self.block << (inode.union & 0x1F)
        return b"".join(self._chunk(inode, number, chunk) for number in range(-(-inode.size // chunk)))

    def _chunk(self, inode: Inode, number: int, chunk: int) -> bytes:
        high, device, low = struct.unpack_from("<HHI", self.image, inode.behind + 8 * number)
        assert high == 0
        length = min(chunk, inode.size - number * chunk)
        return bytes(length) if low == _NULL else self._blocks(device, low, length)

    def _blocks(self, device: int, block: int, length: int) -> bytes:
        data = self.devices[device]
        start = block * self.block
        assert start + -(-length // self.block) * self.block <= len(data), "a block is not in its device in full"
        return data[start : start + length]

    def _entries(self, block: bytes) -> list[tuple[bytes, int, int]]:
        count = struct.unpack_from("<QH", block)[1] // 12
        raw = [struct.unpack_from("<QHBB", block, 12 * number) for number in range(count)]
        ends = [offset for _, offset, _, _ in raw[1:]] + [len(block)]
        names = [block[offset:end] for (_, offset, _, _), end in zip(raw, ends, strict=True)]
        names[-1] = names[-1].split(b"\0")[0]
        return [(name, nid, kind) for name, (nid, _, kind, _) in zip(names, raw, strict=True)]

    def _directory_blocks(self, inode: Inode) -> list[bytes]:
        data = self.read(inode)
        return [data[start : start + self.block] for start in range(0, len(data), self.block)]

    def entries(self, inode: Inode) -> list[tuple[bytes, int, int]]:
        """Every entry (name, nid, kind) of a directory, in the order of the disk."""
        return [entry for block in self._directory_blocks(inode) for entry in self._entries(block)]

    def lookup(self, inode: Inode, wanted: bytes) -> int | None:
        """Find a name as the kernel does: bisect blocks by their first name, then the entries of one."""
        blocks = self._directory_blocks(inode)
        low, high = 0, len(blocks) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self._entries(blocks[middle])[0][0] <= wanted:
                low = middle
            else:
                high = middle - 1
        entries = self._entries(blocks[low])
        low, high = 0, len(entries)
        while low < high:
            middle = (low + high) // 2
            if entries[middle][0] < wanted:
                low = middle + 1
            else:
                high = middle
        return entries[low][1] if low < len(entries) and entries[low][0] == wanted else None

    def walk(self) -> Iterator[tuple[bytes, Inode]]:
        """Every path below the root and its inode, each name looked up too."""
        pending = [(b"", self.root)]
        while pending:
            path, directory = pending.pop()
            for name, nid, kind in self.entries(directory):
                inode = self.inode(nid)
                assert self.lookup(directory, name) == nid
                assert kind == {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFLNK: 7}[stat.S_IFMT(inode.mode)]
                if name not in {b".", b".."}:
                    yield path + b"/" + name, inode
                    if inode.is_directory:
                        pending.append((path + b"/" + name, inode))
