"""``build_image``: a tree and the lengths of its layer files become an EROFS image, as values.

    0        nothing (1 KiB)
    1024     superblock, device table                 superblock.py
    area     inodes, each with its chunk indexes      layout.py says where, inodes.py writes
             or with its small directory or target
             blocks of larger directories, targets    directories.py
    copies   bytes that no chunk can point at         chunks.py
    end      zeros up to a multiple of 4096

The same tree and lengths give the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from csi_model.erofs.chunks import ChunkPlanner, Copy
from csi_model.erofs.inodes import write_inodes
from csi_model.erofs.layout import lay_out, path_of
from csi_model.erofs.pieces import PieceWriter
from csi_model.erofs.superblock import START, head_size, pack_head

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from csi_model.oci.digest import Digest
    from csi_model.tree.nodes import Directory

__all__ = ["SMALL_BLOCKS", "Copy", "Image", "build_image"]

SMALL_BLOCKS = 9
"""512-byte blocks: tar data lies at multiples of 512."""
_PAGE = 4096
_LABEL = b"csi-model"


@dataclass(frozen=True, slots=True)
class Image:
    """An image of ``size`` bytes: zeros, but for the pieces of ``metadata`` (offset, bytes) and the ``copies`` out of layer files.

    ``devices`` are the layers to be attached, in this order; a layer that is only copied from is not among them. ``size`` is a
    multiple of 4096, for some kernels refuse to read inodes in a last partial page.
    """

    devices: tuple[Digest, ...]
    size: int
    metadata: tuple[tuple[int, bytes], ...]
    copies: tuple[Copy, ...]


def build_image(root: Directory, layers: Mapping[Digest, int], *, block_bits: int = SMALL_BLOCKS) -> Image:
    """Build the image of a tree; ``layers`` maps the digest of each layer file to its true length in bytes.

    ``block_bits`` is 9, or 12 for readers that know no other blocks; with 12 the data of most tar entries has to be copied.

    Raises:
        UnsupportedError: something in the tree does not fit EROFS, or too much would have to be copied; the message names the path.
        CorruptContentError: a file points outside its layer, or its segments do not add up to its size.
    """
    planner = ChunkPlanner(layers, block_bits=block_bits, path_of=lambda file: path_of(root, file))
    layout = lay_out(root, planner, block_bits)
    area = head_size(len(planner.slots), block_bits)
    copy_start = area + layout.end
    size = -(-(copy_start + planner.copied) // _PAGE) * _PAGE
    writer = PieceWriter(area)
    write_inodes(layout, root, area=area, copy_block=copy_start >> block_bits, writer=writer)
    pieces = writer.finish()
    devices = {layer: layers[layer] for layer in planner.slots}
    copies = tuple(replace(copy, image_offset=copy_start + copy.image_offset) for copy in planner.copies)
    head = pack_head(
        block_bits=block_bits,
        blocks=size >> block_bits,
        inodes=len(layout.nids),
        root_nid=layout.nids[root],
        uuid=_uuid(pieces, devices, copies),
        label=_LABEL,
        devices=devices,
    )
    return Image(tuple(devices), size, ((START, head), *pieces), copies)


def _uuid(pieces: Iterable[tuple[int, bytes]], devices: Mapping[Digest, int], copies: Iterable[Copy]) -> bytes:
    """A version 8 UUID (RFC 9562) over everything that the image holds and points at."""
    content = hashlib.sha256()
    for _, data in pieces:
        content.update(data)
    for layer, length in devices.items():
        content.update(f"{layer} {length}\n".encode())
    for copy in copies:
        content.update(f"{copy.layer} {copy.offset} {copy.length} {copy.image_offset}\n".encode())
    uuid = bytearray(content.digest()[:16])
    uuid[6] = uuid[6] & 0x0F | 0x80
    uuid[8] = uuid[8] & 0x3F | 0x80
    return bytes(uuid)
