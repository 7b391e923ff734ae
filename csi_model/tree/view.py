"""The tree of a view: layers merged, cut down to a selection, and what came out counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from csi_model.tree.merge import merge
from csi_model.tree.nodes import Directory, Extent, File, Node
from csi_model.tree.select import Selection, select

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from csi_model.oci.digest import Digest
    from csi_model.tree.layers import FileLayer, TarLayer

__all__ = ["Selection", "Totals", "build", "totals", "used"]


@dataclass(frozen=True, slots=True)
class Totals:
    """What a view holds: the apparent bytes of its files, and its inodes, the root's among them."""

    bytes: int
    inodes: int


def build(layers: Iterable[TarLayer | FileLayer], selection: Selection) -> Directory:
    """The tree that a view shows; ``layers`` lowest first, each of which is let go of before the next is taken.

    Only what the layers are is needed, not their bytes: a raw layer may be given before it is pulled.

    Raises:
        UnsupportedError: an entry that cannot be placed safely or at all; the message names it.
        NotFoundError: the selection's path does not exist, or its globs leave nothing.
        InvalidRequestError: the selection's path is not a directory.
    """
    return select(merge(layers), selection)


def totals(root: Directory) -> Totals:
    """Bytes and inodes of a tree; a file under several names counts once."""
    size = inodes = 0
    for node in _nodes(root):
        inodes += 1
        if isinstance(node, File):
            size += node.size
    return Totals(size, inodes)


def used(root: Directory) -> frozenset[Digest]:
    """The layers whose bytes a tree's files are made of."""
    return frozenset(
        segment.layer for node in _nodes(root) if isinstance(node, File) for segment in node.segments if isinstance(segment, Extent)
    )


def _nodes(root: Directory) -> Iterator[Node]:
    """Every inode once."""
    seen: set[Node] = set()
    pending: list[Node] = [root]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if isinstance(node, Directory):
            pending.extend(node.children.values())
