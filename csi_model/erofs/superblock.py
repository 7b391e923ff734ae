"""The head of an image: 1 KiB of nothing, the superblock, and the device table that names the layer files.

Source: ``fs/erofs/erofs_fs.h`` in the kernel, ``struct erofs_super_block`` and ``struct erofs_deviceslot``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from csi_model.erofs.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_model.oci.digest import Digest

START = 1024
_SIZE = 128
_TABLE_START = START + _SIZE
_SLOT_SIZE = 128
_MAGIC = 0xE0F5E1E2
_COMPAT_CHECKSUM, _COMPAT_MTIME = 0x1, 0x2
_INCOMPAT_CHUNKED, _INCOMPAT_DEVICES = 0x4, 0x8
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHH38x")
_SLOT = struct.Struct("<64sII56x")


def head_size(devices: int, block_bits: int) -> int:
    """How many bytes the superblock and a table of ``devices`` slots take, in whole blocks; the inodes start there."""
    block = 1 << block_bits
    return -(-(_TABLE_START + devices * _SLOT_SIZE) // block) * block


def pack_head(
    *, block_bits: int, blocks: int, inodes: int, root_nid: int, uuid: bytes, label: bytes, devices: Mapping[Digest, int]
) -> bytes:
    """The bytes from ``START`` up to the first inode; ``devices`` maps each slot's layer, in order, to its length in bytes."""
    first_block = head_size(len(devices), block_bits) >> block_bits
    fields = (
        block_bits,
        0,
        root_nid,
        inodes,
        0,
        0,
        blocks,
        first_block,
        0,
        uuid,
        label,
        _INCOMPAT_CHUNKED | (_INCOMPAT_DEVICES if devices else 0),
        0,
        len(devices),
        _TABLE_START // _SLOT_SIZE,
    )
    compat = _COMPAT_CHECKSUM | _COMPAT_MTIME
    # The tag is for people and dump.erofs; whoever mounts gives the devices in slot order. A length beyond 32 bits of blocks
    # only makes statfs say less: what files may point at is checked where their chunks are planned.
    slots = b"".join(_SLOT.pack(layer.hex.encode(), min(length >> block_bits, 0xFFFFFFFF), 0) for layer, length in devices.items())
    body = (slots + bytes((first_block << block_bits) - _TABLE_START))[: (first_block << block_bits) - _TABLE_START]
    # The checksum covers the superblock's block, and with small blocks the superblock does not share it with the first KiB.
    covered = (1 << block_bits) - (START & ((1 << block_bits) - 1)) - _SIZE
    checksum = crc32c(_SUPERBLOCK.pack(_MAGIC, 0, compat, *fields) + body[:covered])
    return _SUPERBLOCK.pack(_MAGIC, checksum, compat, *fields) + body
