"""The nodes of a view's tree: values that say what each inode is and where its bytes lie.

A hard link is one ``File`` found under several names: nodes compare by identity, so shared identity is a shared inode.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csi_model.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Extent:
    """``length`` bytes of a file, found at byte ``offset`` of the layer file named ``layer`` (its content digest)."""

    layer: Digest
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Hole:
    """``length`` zero bytes of a file that lie in no layer."""

    length: int


@dataclass(slots=True, eq=False)
class File:
    """A regular file; its segments, in order, add up to ``size`` bytes. ``mode`` holds permission bits only."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    segments: tuple[Extent | Hole, ...]


@dataclass(slots=True, eq=False)
class Symlink:
    """A symbolic link; its target is bytes, as stored, and is never followed on the host."""

    target: bytes
    uid: int
    gid: int
    mtime_ns: int


@dataclass(slots=True, eq=False)
class Directory:
    """A directory; ``children`` maps single path components to nodes."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    children: dict[bytes, Node] = field(default_factory=dict)


Node = File | Symlink | Directory
