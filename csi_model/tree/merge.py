"""Layers merged into one tree, lowest first, by the rules of OCI image-spec's layer.md, read as containerd reads them.

Hostile names need no defence here beyond being refused or contained: nothing is written anywhere, ``..`` and absolute links end at
the tree's own root, and what a model has no use for (set-id bits, devices, FIFOs, extended attributes) is not carried over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import UnsupportedError
from csi_model.tree.archive import MAX_WEIGHT
from csi_model.tree.entries import Kind, TarEntry
from csi_model.tree.layers import FileLayer, TarLayer
from csi_model.tree.nodes import Directory, Extent, File, Hole, Node, Symlink
from csi_model.tree.paths import MAX_DEPTH, MAX_NAME, MAX_PATH, Walker, clean, shown
from csi_model.tree.whiteouts import OPAQUE, LayerMarks, hidden_name, is_aufs, is_plink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from csi_model.oci.digest import Digest

MAX_NODES = 1_000_000
"""Names that the layers of one image may place, replaced ones and implied parents included."""


def merge(layers: Iterable[TarLayer | FileLayer]) -> Directory:
    """The tree of all layers, lowest first.

    Raises:
        UnsupportedError: an entry that cannot be placed safely or at all; the message names it.
    """
    merging = _Merge()
    for layer in layers:
        if isinstance(layer, FileLayer):
            merging.add_file(layer)
        else:
            merging.add_tar(layer)
        del layer  # its entries, before those of the next are read
    return merging.root


class _Merge:
    def __init__(self) -> None:
        self.root = Directory()
        self._walker = Walker(self.root)
        self._nodes = 1
        self._weight = 0
        self._raw: dict[Node, Digest] = {}
        # What AUFS kept for hard links; no part of the tree.
        self._plinks = Directory()
        # Where devices were dropped: a hard link to one is dropped with it instead of being refused for want of its target.
        self._dropped: set[tuple[Directory, bytes]] = set()

    def add_file(self, layer: FileLayer) -> None:
        """A raw layer; it may cover a tar's file, but neither a directory nor another raw layer's bytes."""
        path = _parts(layer.path, layer)
        if not path:
            msg = f"layer {layer.digest.short} has no file name"
            raise UnsupportedError(msg)
        parent = self._parent(path, LayerMarks())
        standing = parent.children.get(path[-1])
        if isinstance(standing, Directory):
            msg = f"layer {layer.digest.short} is a file at {shown(path)}, where another layer has a directory"
            raise UnsupportedError(msg)
        if standing is not None and self._raw.get(standing, layer.digest) != layer.digest:
            msg = f"layers {self._raw[standing].short} and {layer.digest.short} both want to be the file {shown(path)}"
            raise UnsupportedError(msg)
        segments = (Extent(layer.digest, 0, layer.size),) if layer.size else ()
        node = File(layer.mode & 0o777, 0, 0, 0, layer.size, segments)
        self._raw[node] = layer.digest
        self._place(parent, path[-1], node, LayerMarks())

    def add_tar(self, layer: TarLayer) -> None:
        """A tar layer, entry by entry; of equal names the last wins."""
        mapping = _Mapping(layer)
        marks = LayerMarks()
        for entry in layer.entries:
            self._weight += entry.weight
            if self._weight > MAX_WEIGHT:
                msg = f"the names, links and sparse maps of the image's tar entries take more than {MAX_WEIGHT >> 20} MiB; pack its files into fewer"
                raise UnsupportedError(msg)
            path = mapping.path(entry)
            if path is None:
                continue
            if not path:
                _describe(self.root, entry)
            elif layer.whiteouts and entry.kind is Kind.FILE and is_plink(path):
                self._place(self._plinks, path[-1], _node(entry, layer.digest), marks)
            elif not layer.whiteouts or not self._hides(path, marks):
                self._add(entry, path, mapping, marks)

    def _hides(self, path: list[bytes], marks: LayerMarks) -> bool:
        """Apply a whiteout; False when the path is no whiteout."""
        if is_aufs(path):
            return True
        hidden = hidden_name(path)
        if hidden is None:
            return False
        place = self._walker.walk(path[:-1])
        # A whiteout below a directory that is not there has nothing to hide.
        if not place.missing:
            if hidden == OPAQUE:
                marks.clear(place.directory)
            else:
                marks.hide(place.directory, hidden)
        return True

    def _add(self, entry: TarEntry, path: list[bytes], mapping: _Mapping, marks: LayerMarks) -> None:
        name = path[-1]
        if entry.kind is Kind.SPECIAL:
            self._drop(path, marks)
            return
        node: Node | None
        if entry.kind is Kind.HARD_LINK:
            node = self._linked(entry, path, mapping)
            if node is None:
                self._drop(path, marks)
                return
            parent = self._parent(path, marks)
        else:
            parent = self._parent(path, marks)
            standing = parent.children.get(name)
            if entry.kind is Kind.DIRECTORY and isinstance(standing, Directory):
                _describe(standing, entry)
                marks.place(parent, name)
                return
            node = _node(entry, mapping.layer.digest)
        self._place(parent, name, node, marks)

    def _drop(self, path: list[bytes], marks: LayerMarks) -> None:
        """Leave a device out; what it would have covered is covered."""
        parent = self._parent(path, marks)
        parent.children.pop(path[-1], None)
        marks.place(parent, path[-1])
        self._dropped.add((parent, path[-1]))

    def _linked(self, entry: TarEntry, path: list[bytes], mapping: _Mapping) -> Node | None:
        """What a hard link is another name of; its own attributes are ignored. None for a dropped device."""
        target = mapping.link(entry)
        node: Node | None = self.root
        if mapping.layer.whiteouts and is_plink(target):
            node = self._plinks.children.get(target[-1])
            if node is not None:
                return node
        elif target:
            place = self._walker.walk(target[:-1])
            node = None if place.missing else place.directory.children.get(target[-1])
            if node is not None and not isinstance(node, Directory):
                return node
            if not place.missing and (place.directory, target[-1]) in self._dropped:
                return None
        reason = "a directory" if isinstance(node, Directory) else "not in this layer before it, nor in a lower one"
        msg = f"{shown(path)} is a hard link to {shown(entry.link)}, which is {reason}"
        raise UnsupportedError(msg)

    def _parent(self, path: list[bytes], marks: LayerMarks) -> Directory:
        """The directory that ``path`` is to stand in; missing ones are made, root's and 0755."""
        place = self._walker.walk(path[:-1])
        if place.obstacle:
            msg = f"{shown(path)} cannot be placed: its path {place.obstacle}"
            raise UnsupportedError(msg)
        _check([*place.names, *place.missing, path[-1]])
        directory = place.directory
        for name in place.missing:
            made = Directory()
            self._place(directory, name, made, marks)
            directory = made
        return directory

    def _place(self, parent: Directory, name: bytes, node: Node, marks: LayerMarks) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            msg = f"the image has more than {MAX_NODES} files and directories; pack them into fewer files"
            raise UnsupportedError(msg)
        parent.children[name] = node
        marks.place(parent, name)
        self._dropped.discard((parent, name))


class _Mapping:
    """Where the names inside a tar layer land: its ``strip`` is taken off, its ``prefix`` put before."""

    def __init__(self, layer: TarLayer) -> None:
        self.layer = layer
        self._prefix = _parts(layer.prefix, layer)
        self._strip = _parts(layer.strip, layer)

    def path(self, entry: TarEntry) -> list[bytes] | None:
        """The entry's path in the tree; None for a directory above what is stripped, which lands nowhere."""
        parts = clean(entry.name)
        if entry.kind is Kind.DIRECTORY and len(parts) < len(self._strip) and parts == self._strip[: len(parts)]:
            return None
        path = self._mapped(parts, entry)
        if entry.kind is not Kind.DIRECTORY and not (parts and path):
            msg = f"the tar entry {shown(entry.name)} stands for the root and is a {entry.kind.value}, not a directory"
            raise UnsupportedError(msg)
        return path

    def link(self, entry: TarEntry) -> list[bytes]:
        """The path of a hard link's target, which is named as entries are: from the root, wherever the link stands."""
        return self._mapped(clean(entry.link), entry)

    def _mapped(self, parts: list[bytes], entry: TarEntry) -> list[bytes]:
        if parts[: len(self._strip)] != self._strip:
            msg = f"the tar entry {shown(entry.name)} lies, or is linked to, outside {shown(self._strip)}, where its layer belongs"
            raise UnsupportedError(msg)
        return [*self._prefix, *parts[len(self._strip) :]]


def _parts(path: str, layer: TarLayer | FileLayer) -> list[bytes]:
    try:
        return clean(path.encode())
    except UnicodeEncodeError as error:
        msg = f"the path {path[:160]!r} of layer {layer.digest.short} is not valid text"
        raise UnsupportedError(msg) from error


def _describe(directory: Directory, entry: TarEntry) -> None:
    directory.mode, directory.uid, directory.gid, directory.mtime_ns = entry.mode & 0o777, entry.uid, entry.gid, entry.mtime_ns


def _node(entry: TarEntry, layer: Digest) -> Node:
    mode = entry.mode & 0o777  # no set-id bits, no sticky bit
    if entry.kind is Kind.DIRECTORY:
        return Directory(mode, entry.uid, entry.gid, entry.mtime_ns)
    if entry.kind is Kind.SYMLINK:
        if not entry.link or len(entry.link) >= MAX_PATH:
            msg = f"the symbolic link {shown(entry.name)} has an empty target, or one longer than {MAX_PATH - 1} bytes"
            raise UnsupportedError(msg)
        return Symlink(entry.link, entry.uid, entry.gid, entry.mtime_ns)
    segments = tuple(Hole(s.length) if s.offset is None else Extent(layer, s.offset, s.length) for s in entry.segments)
    return File(mode, entry.uid, entry.gid, entry.mtime_ns, entry.size, segments)


def _check(path: list[bytes]) -> None:
    if len(path) > MAX_DEPTH:
        msg = f"{shown(path)} is deeper than {MAX_DEPTH} directories"
    elif any(len(name) > MAX_NAME for name in path):
        msg = f"{shown(path)} has a name longer than {MAX_NAME} bytes"
    elif any(b"\0" in name for name in path):
        msg = f"{shown(path)} has a NUL byte in its name"
    elif sum(map(len, path)) + len(path) > MAX_PATH:
        msg = f"{shown(path)} is longer than {MAX_PATH} bytes"
    else:
        return
    raise UnsupportedError(msg)
