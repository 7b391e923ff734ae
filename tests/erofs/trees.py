"""Trees to build images of: Hypothesis strategies, what each path must read as, and images made whole."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from csi_model.oci.digest import Digest
from csi_model.tree.nodes import Directory, Extent, File, Hole, Symlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from csi_model.erofs.image import Image
    from csi_model.tree.nodes import Node

LENGTHS = (0, 1, 511, 512, 513, 1024, 4095, 4096, 4097, 8192, 12800, 40_000)


@dataclass(frozen=True)
class Case:
    """A tree and the bytes of the layers that it points into."""

    root: Directory
    layers: dict[Digest, bytes]

    def __repr__(self) -> str:
        lengths = {digest.short: len(data) for digest, data in self.layers.items()}
        return f"Case({self.root}, {lengths})"

    @property
    def lengths(self) -> dict[Digest, int]:
        return {digest: len(data) for digest, data in self.layers.items()}


def content(file: File, layers: Mapping[Digest, bytes]) -> bytes:
    """What a file reads as, by the meaning of its segments."""
    parts = (
        bytes(segment.length) if isinstance(segment, Hole) else layers[segment.layer][segment.offset : segment.offset + segment.length]
        for segment in file.segments
    )
    return b"".join(parts)


def walk(root: Directory) -> Iterator[tuple[bytes, Node]]:
    """Every path below the root and its node."""
    pending = [(b"", root)]
    while pending:
        path, directory = pending.pop()
        for name, node in directory.children.items():
            yield path + b"/" + name, node
            if isinstance(node, Directory):
                pending.append((path + b"/" + name, node))


def assemble(image: Image, layers: Mapping[Digest, bytes]) -> bytes:
    """The whole image file; writes that overlap or fall outside are failures."""
    data = bytearray(image.size)
    writes = [(offset, piece) for offset, piece in image.metadata]
    writes += [(copy.image_offset, layers[copy.layer][copy.offset : copy.offset + copy.length]) for copy in image.copies]
    end = 0
    for offset, piece in sorted(writes):
        assert end <= offset
        end = offset + len(piece)
        assert end <= image.size
        data[offset:end] = piece
    return bytes(data)


def noise(length: int, seed: int = 0) -> bytes:
    """Bytes no two blocks of which are the same."""
    return random.Random(seed).randbytes(length)


def raw_file(layer: Digest, size: int) -> File:
    """A raw layer as a file."""
    return File(0o444, 0, 0, 0, size, (Extent(layer, 0, size),) if size else ())


names = st.one_of(
    st.sampled_from([b"a", b"b", b"config.json", b"!", b"...", b"\xff\xfe", b"z" * 255, b"model-00001-of-00002.safetensors"]),
    st.binary(min_size=1, max_size=255).map(lambda name: name.replace(b"/", b"s").replace(b"\0", b"n")),
).filter(lambda name: name not in {b".", b".."})
_owners = st.one_of(st.sampled_from([0, 1000, 0xFFFFFFFF - 1]), st.integers(0, 0xFFFFFFFE))
_times = st.one_of(st.sampled_from([0, 1, -1, 10**18 + 1, -(10**18)]), st.integers(-(2**61), 2**61))
_targets = st.binary(min_size=1, max_size=600).map(lambda target: target.replace(b"\0", b"."))
_modes = st.integers(0, 0o777)


class _Draw:
    """Draws nodes one after another; plain recursion, for nested strategies describe themselves at great length."""

    def __init__(self, draw: st.DrawFn, layers: dict[Digest, bytes]) -> None:
        self.draw = draw
        self.layers = layers
        self.digests = list(layers)
        self.files: list[File] = []

    def segments(self) -> tuple[Extent | Hole, ...]:
        unit = self.draw(st.sampled_from([1, 512, 4096]))
        segments: list[Extent | Hole] = []
        for _ in range(self.draw(st.integers(0, 4))):
            digest = self.digests[self.draw(st.integers(0, len(self.digests) - 1))]
            size = len(self.layers[digest])
            if self.draw(st.integers(0, 3)) == 0:
                segments.append(Hole(self.draw(st.integers(0, 8)) * unit))
                continue
            offset = self.draw(st.integers(0, size // unit)) * unit
            rest = size - offset
            length = rest if self.draw(st.booleans()) else self.draw(st.integers(0, rest // unit)) * unit
            segments.append(Extent(digest, offset, length))
        return tuple(segments)

    def node(self, depth: int) -> Node:
        kind = self.draw(st.sampled_from(["file", "file", "file", "again", "symlink", "directory"]))
        if kind == "directory" and depth:
            return self.directory(depth - 1)
        uid, gid, mtime_ns = self.draw(_owners), self.draw(_owners), self.draw(_times)
        if kind == "symlink":
            return Symlink(self.draw(_targets), uid, gid, mtime_ns)
        if kind == "again" and self.files:
            return self.files[self.draw(st.integers(0, len(self.files) - 1))]  # a hard link
        segments = self.segments()
        file = File(self.draw(_modes), uid, gid, mtime_ns, sum(segment.length for segment in segments), segments)
        self.files.append(file)
        return file

    def directory(self, depth: int) -> Directory:
        children = {name: self.node(depth) for name in self.draw(st.lists(names, max_size=6, unique=True))}
        return Directory(self.draw(_modes), self.draw(_owners), self.draw(_owners), self.draw(_times), children)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Trees of every kind of node over layers of awkward lengths."""
    lengths = draw(st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=4))
    bodies = [noise(length, seed) for seed, length in enumerate(lengths)]
    layers = {Digest.of(body): body for body in bodies}
    return Case(_Draw(draw, layers).directory(3), layers)
