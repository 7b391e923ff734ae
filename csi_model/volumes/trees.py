"""From a model's layers to the tree of a view, and which raw layers that tree needs.

A raw layer's bytes are not needed to say where it lands, so a tree may be built before they are pulled, and only what is seen in it has to
be. A tar's entries are: they may bring links that lead to a raw layer, or take its place.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from csi_model.formats.placement import FilePlacement, Placement, TarPlacement
from csi_model.store.faults import disk_errors
from csi_model.tree.layers import FileLayer, TarLayer
from csi_model.tree.tar import scan
from csi_model.tree.view import Selection, build, used

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csi_model.oci.digest import Digest
    from csi_model.store.content import ContentStore
    from csi_model.tree.entries import TarEntry
    from csi_model.tree.nodes import Directory


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer, where it lands, the digest and length of its layer file, and its tar index where it is at hand.

    A tar's file is on this node; a raw layer's may be missing while nothing that is shown needs it, and then goes by its blob's digest.
    """

    placement: Placement
    content: Digest
    size: int
    entries: tuple[TarEntry, ...] | None = None


def unpulled(placement: FilePlacement) -> Layer:
    """A raw layer as it can be known before it is pulled."""
    return Layer(placement, placement.layer.digest, placement.layer.size)


def tree_of(content: ContentStore, layers: Sequence[Layer], selection: Selection) -> Directory:
    """The tree that the selection shows of these layers, lowest first; reads the headers of tars whose index is not at hand.

    Raises:
        NotFoundError, InvalidRequestError, UnsupportedError, CorruptContentError: what is asked for cannot be shown; see ``tree.view.build``.
        DiskError: a layer file is not there, or cannot be read.
    """
    return build((_tree_layer(content, layer) for layer in layers), selection)


def needed(content: ContentStore, layers: Sequence[Layer], selection: Selection) -> frozenset[Digest]:
    """The contents that the selection shows something of.

    Raises:
        NotFoundError, InvalidRequestError, UnsupportedError, CorruptContentError, DiskError: as ``tree_of``.
    """
    if selection == Selection():
        return frozenset(layer.content for layer in layers)
    return used(tree_of(content, layers, selection))


def _tree_layer(content: ContentStore, layer: Layer) -> TarLayer | FileLayer:
    placement = layer.placement
    if isinstance(placement, FilePlacement):
        return FileLayer(layer.content, layer.size, placement.path, placement.mode)
    assert isinstance(placement, TarPlacement)
    entries = layer.entries
    if entries is None:
        descriptor = content.open(layer.content)
        try:
            with disk_errors(f"cannot read content {layer.content}"):
                entries = scan(partial(_read_at, descriptor), layer.size)
        finally:
            os.close(descriptor)
    return TarLayer(layer.content, entries, placement.whiteouts, placement.prefix, placement.strip)


def _read_at(descriptor: int, offset: int, length: int) -> bytes:
    return os.pread(descriptor, length, offset)
