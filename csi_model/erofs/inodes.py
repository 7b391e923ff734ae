"""Inodes on disk, in the extended form of 64 bytes, with their chunk indexes or inline data behind them.

Source: ``fs/erofs/erofs_fs.h`` in the kernel, ``struct erofs_inode_extended`` and ``struct erofs_inode_chunk_index``.
"""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING

from csi_model.erofs.chunks import HOLE, IMAGE, contiguous_bits
from csi_model.erofs.directories import pack_entries
from csi_model.erofs.layout import NID_BITS, path_of
from csi_model.errors import UnsupportedError
from csi_model.tree.nodes import Directory, File

if TYPE_CHECKING:
    from csi_model.erofs.chunks import ChunkMap
    from csi_model.erofs.layout import Layout
    from csi_model.erofs.pieces import PieceWriter

_EXTENDED = 1
_PLAIN, _INLINE, _CHUNKED = _EXTENDED | 0 << 1, _EXTENDED | 2 << 1, _EXTENDED | 4 << 1
_WITH_DEVICES = 0x20
_INODE = struct.Struct("<HHHHQIIIIqII16x")
_PERMISSIONS = 0o777
"""No more of a mode than this reaches an image: no setuid, setgid or sticky bit."""
_HOLE_INDEX = 0xFFFFFFFF << 32
_BATCH = 1 << 16


def write_inodes(layout: Layout, root: Directory, *, area: int, copy_block: int, writer: PieceWriter) -> None:
    """Write every inode, and then the data that did not fit inside its inode.

    ``area`` is the byte of the image at which the metadata area starts, ``copy_block`` the block of it at which the copy area does.

    Raises:
        UnsupportedError: an owner or a time that does not fit its field.
    """
    block_bits = layout.block_size.bit_length() - 1
    data_block = (area + layout.data_start) >> block_bits
    outside, folders = layout.outside, iter(layout.folders)
    blocks: list[bytes] = []
    for number, (node, nid) in enumerate(layout.nids.items()):
        tail = b""
        union = 0
        form = _PLAIN
        if isinstance(node, File):
            mode, size = stat.S_IFREG | node.mode & _PERMISSIONS, node.size
            index = layout.indexes[number]
            if index:
                form, union, tail = _CHUNKED, contiguous_bits(size) - block_bits | _WITH_DEVICES, index.to_bytes(8, "little")
            elif chunk_map := layout.chunked.get(node):
                form, union, tail = _CHUNKED, chunk_map.bits - block_bits | _WITH_DEVICES, _pack_indexes(chunk_map, copy_block, block_bits)
        else:
            if isinstance(node, Directory):
                mode, tail = stat.S_IFDIR | node.mode & _PERMISSIONS, pack_entries(next(folders), layout.nids, layout.block_size)
            else:
                mode, tail = stat.S_IFLNK | _PERMISSIONS, node.target
            size = len(tail)
            form = _INLINE
            if node in outside:
                form, union = _PLAIN, data_block + outside[node]
                blocks.append(tail)
                tail = b""
        seconds, nanoseconds = divmod(node.mtime_ns, 1_000_000_000)
        links = layout.links.get(node, 1)
        try:
            inode = _INODE.pack(form, 0, mode, 0, size, union, number + 1, node.uid, node.gid, seconds, nanoseconds, links)
        except struct.error as error:
            msg = f"{path_of(root, node)}: its owner ({node.uid}:{node.gid}) or its time does not fit EROFS"
            raise UnsupportedError(msg) from error
        writer.write(area + (nid << NID_BITS), inode + tail)
    for first, data in zip(outside.values(), blocks, strict=True):
        writer.write((data_block + first) << block_bits, data)


def _pack_indexes(chunk_map: ChunkMap, copy_block: int, block_bits: int) -> bytes:
    step = 1 << (chunk_map.bits - block_bits) << 32
    packed = []
    for run in chunk_map.runs:
        if run.device == HOLE:
            packed.append(_HOLE_INDEX.to_bytes(8, "little") * run.count)
            continue
        block = run.block + (copy_block if run.device == IMAGE else 0)
        first = block << 32 | run.device << 16
        for start in range(0, run.count, _BATCH):
            count = min(_BATCH, run.count - start)
            packed.append(struct.pack(f"<{count}Q", *(first + step * number for number in range(start, start + count))))
    return b"".join(packed)
