"""Directories on disk: blocks of entries sorted bytewise, which the kernel searches by bisection.

A block holds 12 bytes for each entry and then the names; a name ends where the next begins, the last one at a zero or at the end.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from csi_model.errors import UnsupportedError
from csi_model.tree.nodes import Directory, File, Symlink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_model.tree.nodes import Node

MAX_NAME = 255
_ENTRY = struct.Struct("<QHBx")
_KINDS: dict[type[Node], int] = {File: 1, Directory: 2, Symlink: 7}


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory whose entries have been dealt out to blocks: ``cuts`` holds the index of each block's first name, and the end."""

    node: Directory
    parent: Directory
    names: list[bytes]
    cuts: list[int]
    size: int
    path: str


def deal(node: Directory, parent: Directory, path: str, block_size: int) -> Folder:
    """Sort a directory's names and deal them out to blocks.

    Raises:
        UnsupportedError: a name that no directory can hold.
    """
    _check_names(node, path)
    names = sorted([*node.children, b".", b".."])
    cuts = [0]
    used = 0
    for index, name in enumerate(names):
        need = _ENTRY.size + len(name)
        if used + need > block_size:
            cuts.append(index)
            used = 0
        used += need
    size = (len(cuts) - 1) * block_size + used
    cuts.append(len(names))
    return Folder(node, parent, names, cuts, size, path)


def pack_entries(folder: Folder, nids: Mapping[Node, int], block_size: int) -> bytes:
    """A directory's blocks, the last one as long as what is in it."""
    here: dict[bytes, Node] = {**folder.node.children, b".": folder.node, b"..": folder.parent}
    pack = _ENTRY.pack
    blocks = []
    for first, end in pairwise(folder.cuts):
        names = folder.names[first:end]
        offset = _ENTRY.size * len(names)
        entries = []
        for name in names:
            node = here[name]
            entries.append(pack(nids[node], offset, _KINDS[type(node)]))
            offset += len(name)
        blocks.append(b"".join(entries + names).ljust(block_size, b"\0"))
    return b"".join(blocks)[: folder.size]


def _check_names(node: Directory, path: str) -> None:
    children = node.children
    if not children:
        return
    together = b"".join(children)
    bad = b"/" in together or b"\0" in together or max(map(len, children)) > MAX_NAME
    if bad or b"" in children or b"." in children or b".." in children:
        msg = f"{path or '/'}: holds a name that is empty, '.', '..', longer than {MAX_NAME} bytes, or has '/' or a zero byte in it"
        raise UnsupportedError(msg)
