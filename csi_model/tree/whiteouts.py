"""Whiteouts: names by which a layer of an image deletes what lower layers placed (OCI image-spec, layer.md, "Whiteouts").

They hide lower layers only, never an entry of their own layer, wherever in the layer they stand; so what a layer has placed is
remembered while it is merged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import UnsupportedError
from csi_model.tree.nodes import Directory
from csi_model.tree.paths import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARK = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
_PLINKS = b".wh..wh.plnk"

OPAQUE = b""
"""What `hidden_name` answers for the mark that hides all lower siblings."""


def is_aufs(parts: Sequence[bytes]) -> bool:
    """Whether a path is AUFS's own bookkeeping, which old Docker layers carry and which is no part of the image."""
    return any(part.startswith(_AUFS) for part in parts[:-1]) or (parts[-1].startswith(_AUFS) and parts[-1] != _OPAQUE)


def is_plink(parts: Sequence[bytes]) -> bool:
    """Whether a path is where AUFS keeps a file of several names; the names are hard links to it."""
    return len(parts) == 2 and parts[0] == _PLINKS


def hidden_name(parts: Sequence[bytes]) -> bytes | None:
    """The sibling that an entry of this path hides, `OPAQUE` for all of them, None when it is an ordinary entry.

    Raises:
        UnsupportedError: a mark that names nothing, or a path that leads through a mark.
    """
    for part in parts[:-1]:
        if part.startswith(_MARK):
            msg = f"{shown(parts)} lies below a whiteout, which is no directory"
            raise UnsupportedError(msg)
    name = parts[-1]
    if not name.startswith(_MARK):
        return None
    if name == _OPAQUE:
        return OPAQUE
    hidden = name[len(_MARK) :]
    if hidden in (b"", b".", b".."):
        msg = f"{shown(parts)} is a whiteout of no valid name"
        raise UnsupportedError(msg)
    return hidden


class LayerMarks:
    """What one layer has placed so far, and what it has already hidden; lives while that layer is merged."""

    def __init__(self) -> None:
        self._own: dict[Directory, set[bytes]] = {}
        self._cleared: set[Directory] = set()

    def place(self, directory: Directory, name: bytes) -> None:
        """Note that this layer placed ``name`` in ``directory``."""
        self._own.setdefault(directory, set()).add(name)

    def hide(self, directory: Directory, name: bytes) -> None:
        """Remove what lower layers placed as ``name``; a directory in which this layer placed something stays for its sake."""
        child = directory.children.get(name)
        if child is None:
            return
        if isinstance(child, Directory):
            self.clear(child)
        if name in self._own.get(directory, ()):
            return
        if isinstance(child, Directory) and child.children:
            # Only the lower directory's attributes are left of it, and they are hidden as well.
            child.mode, child.uid, child.gid, child.mtime_ns = 0o755, 0, 0, 0
        else:
            del directory.children[name]

    def clear(self, directory: Directory) -> None:
        """Remove everything that lower layers placed below ``directory``."""
        # Once cleared, a directory only ever gains entries of this layer: looking again would be for nothing, and costly.
        if directory not in self._cleared:
            self._cleared.add(directory)
            for name in list(directory.children):
                self.hide(directory, name)
