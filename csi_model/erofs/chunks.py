"""Where the bytes of files come from: chunk indexes that point into layer files, and the few bytes that must be copied.

The kernel reads whole blocks, so a chunk can point into a layer only where its data starts on a block boundary and its last block
lies in the layer in full. A contiguous file is one chunk. Any other file is cut into smaller chunks, and those that cannot point into
a layer (they straddle two segments, start off a boundary, or end in the layer's unpadded tail) are copied into the image itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from csi_model.errors import CorruptContentError, UnsupportedError
from csi_model.tree.nodes import Extent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from csi_model.oci.digest import Digest
    from csi_model.tree.nodes import File

IMAGE = 0
HOLE = -1
INDEX_SIZE = 8
MAX_INDEX = 16 << 20
"""Bytes of chunk indexes that one file may have."""
MAX_INDEXES = 256 << 20
"""Bytes of chunk indexes that all files of an image may have which take more than one chunk: they are all in memory when it is written.

Raw layers need some 4 MiB for 140 GB in 30 files, 100 MiB for 1.5 TiB in 500; of many more, what they copy is refused first.
"""
MAX_COPIED = 64 << 20
"""Bytes that one image may copy out of layers."""
_MAX_DEVICES = 0xFFFF
_MIN_BITS = 12
_MAX_BLOCK = 0xFFFFFFFF
"""Block addresses have 32 bits, and the highest of them says "hole"."""


@dataclass(frozen=True, slots=True)
class Copy:
    """``length`` bytes to be copied from byte ``offset`` of a layer file to byte ``image_offset`` of the image."""

    layer: Digest
    offset: int
    length: int
    image_offset: int


@dataclass(frozen=True, slots=True)
class Run:
    """``count`` chunks that follow each other from ``block`` of ``device``: a slot (from 1), ``IMAGE`` or ``HOLE``.

    Blocks of ``IMAGE`` count from the start of the image's copy area.
    """

    count: int
    device: int
    block: int


@dataclass(frozen=True, slots=True)
class ChunkMap:
    """A file as chunks of ``1 << bits`` bytes."""

    bits: int
    runs: tuple[Run, ...]

    @property
    def count(self) -> int:
        """How many chunks, and so how many indexes, there are."""
        return sum(run.count for run in self.runs)


@dataclass(frozen=True, slots=True)
class _Span:
    """A maximal run of a file's bytes that is contiguous in one layer, or a hole (``layer`` is None)."""

    start: int
    length: int
    layer: Digest | None
    offset: int

    @property
    def end(self) -> int:
        return self.start + self.length


def contiguous_bits(size: int) -> int:
    """The chunk bits of a file that lies in one chunk."""
    return max(_MIN_BITS, (size - 1).bit_length())


def balanced_bits(size: int) -> int:
    """Chunk bits with which the index of a file and its copied last chunk are about equally small.

    512 MiB: 64 KiB of index and at most 64 KiB copied; 140 GB: about 1 MiB of each.
    """
    return max(_MIN_BITS, ((INDEX_SIZE * size).bit_length()) // 2)


class ChunkPlanner:
    """Plans the files of one image, one after another, and gives out device slots and room in the copy area as it goes."""

    def __init__(self, layers: Mapping[Digest, int], *, block_bits: int, path_of: Callable[[File], str]) -> None:
        self.slots: dict[Digest, int] = {}
        self.copies: list[Copy] = []
        self.copied = 0
        self._indexes = 0
        self._layers = layers
        self._block_bits = block_bits
        self._mask = (1 << block_bits) - 1
        self._max_bits = block_bits + 31
        self._path_of = path_of
        # Neighbouring files mostly share a layer, and hashing a digest costs more than all else in ``contiguous``.
        self._recent: Digest | None = None
        self._recent_usable = self._recent_slot = 0

    def contiguous(self, file: File) -> int:
        """The one chunk index of a file that can be mapped whole, or 0 where it takes ``plan`` to say."""
        segments = file.segments
        if len(segments) != 1:
            return 0
        extent = segments[0]
        if not isinstance(extent, Extent) or extent.length != file.size:
            return 0
        layer, offset, size = extent.layer, extent.offset, file.size
        if layer is not self._recent:
            self._recent, self._recent_usable, self._recent_slot = layer, self._usable(layer, file), self.slots.get(layer, 0)
        mask = self._mask
        if offset & mask or offset + ((size + mask) & ~mask) > self._recent_usable or not 0 < size <= 1 << self._max_bits:
            return 0
        slot = self._recent_slot
        if not slot:
            slot = self._recent_slot = self._slot(layer, file)
        return (offset >> self._block_bits) << 32 | slot << 16

    def plan(self, file: File) -> ChunkMap | None:
        """Plan any file; None says that it is empty.

        Raises:
            UnsupportedError: the image would have to copy or to list too much, or an address does not fit the format.
            CorruptContentError: the file's segments do not fit its size or their layer.
        """
        spans = self._spans(file)
        if not spans:
            return None
        bits = self._choose_bits(file, spans)
        self._count_indexes(file, bits)
        runs: list[Run] = []
        shift = 0  # from a place in the file to its place in the copy area, inside the newest copied chunks
        for span in spans:
            # A span that starts inside a chunk shares it with the span before, and that one had the chunk copied.
            head = min(span.end, _round_up(span.start, bits)) - span.start
            self._copy(span, 0, head, shift)
            if span.start + head == span.end:
                continue
            mapped = self._mappable(span, head, file, bits)
            if mapped:
                runs.append(self._run(span, head, mapped, file))
            done = min(span.length, head + (mapped << bits))
            if done < span.length:
                place = span.start + done
                shift = self.copied - place
                count = -(-(span.length - done) >> bits)
                runs.append(Run(count, IMAGE, self.copied >> self._block_bits))
                self._copy(span, done, span.length - done, shift)
                self.copied += _round_up(min(count << bits, file.size - place), self._block_bits)
                self._check_copied(file)
        return ChunkMap(bits, tuple(runs))

    def _spans(self, file: File) -> list[_Span]:
        spans: list[_Span] = []
        position = 0
        for segment in file.segments:
            if not segment.length:
                continue
            layer, offset = (segment.layer, segment.offset) if isinstance(segment, Extent) else (None, 0)
            if layer is not None:
                self._check_inside(layer, offset + segment.length, file)
            last = spans[-1] if spans else None
            if last and last.layer == layer and (layer is None or last.offset + last.length == offset):
                spans[-1] = _Span(last.start, last.length + segment.length, layer, last.offset)
            else:
                spans.append(_Span(position, segment.length, layer, offset))
            position += segment.length
        if position != file.size:
            self._corrupt(file, f"has {position} bytes of segments and a size of {file.size}")
        return spans

    def _check_inside(self, layer: Digest, end: int, file: File) -> None:
        if end > self._length(layer, file):
            self._corrupt(file, f"points past the end of layer {layer.short}")
        reach = _MAX_BLOCK << self._block_bits
        if end > reach:
            msg = f"{self._path_of(file)}: its data ends beyond byte {reach} of layer {layer.short}, which EROFS cannot address; split the layer"
            raise UnsupportedError(msg)

    def _choose_bits(self, file: File, spans: list[_Span]) -> int:
        bits = min(contiguous_bits(file.size), self._max_bits)
        for span in spans[1:]:
            bits = min(bits, (span.start & -span.start).bit_length() - 1)
        last = spans[-1]
        if last.layer is not None and not last.offset & self._mask and last.offset + last.length > self._usable(last.layer, file):
            bits = min(bits, balanced_bits(file.size))
        bits = max(bits, _MIN_BITS)
        while -(-file.size >> bits) * INDEX_SIZE > MAX_INDEX:
            bits += 1
        if bits > self._max_bits or file.size >= 1 << 63:
            msg = f"{self._path_of(file)}: a file of {file.size} bytes does not fit EROFS"
            raise UnsupportedError(msg)
        return bits

    def _count_indexes(self, file: File, bits: int) -> None:
        self._indexes += -(-file.size >> bits) * INDEX_SIZE
        if self._indexes > MAX_INDEXES:
            msg = (
                f"{self._path_of(file)}: with its chunks, those of the view's files would take more than {MAX_INDEXES >> 20} MiB to list; "
                "pack sparse files again without sparse entries, or select fewer files with include"
            )
            raise UnsupportedError(msg)

    def _mappable(self, span: _Span, head: int, file: File, bits: int) -> int:
        """How many chunks, from ``head`` bytes into the span on, need no copy."""
        length = span.length - head
        is_last = span.end == file.size
        if span.layer is None:
            return -(-length >> bits) if is_last else length >> bits
        offset = span.offset + head
        if offset & self._mask:
            return 0
        in_full = offset + _round_up(length, self._block_bits) <= self._usable(span.layer, file)
        return -(-length >> bits) if is_last and in_full else length >> bits

    def _run(self, span: _Span, head: int, count: int, file: File) -> Run:
        if span.layer is None:
            return Run(count, HOLE, 0)
        return Run(count, self._slot(span.layer, file), (span.offset + head) >> self._block_bits)

    def _copy(self, span: _Span, start: int, length: int, shift: int) -> None:
        if length and span.layer is not None:
            self.copies.append(Copy(span.layer, span.offset + start, length, span.start + start + shift))

    def _check_copied(self, file: File) -> None:
        if self.copied > MAX_COPIED:
            msg = (
                f"{self._path_of(file)}: its data is sparse or unaligned in a way that would copy more than "
                f"{MAX_COPIED >> 20} MiB into the image; pack it again without sparse entries, or as a raw layer"
            )
            raise UnsupportedError(msg)

    def _slot(self, layer: Digest, file: File) -> int:
        slot = self.slots.setdefault(layer, len(self.slots) + 1)
        if slot > _MAX_DEVICES:
            msg = f"{self._path_of(file)}: the view needs more than {_MAX_DEVICES} layers; select fewer of them with include"
            raise UnsupportedError(msg)
        return slot

    def _length(self, layer: Digest, file: File) -> int:
        length = self._layers.get(layer)
        if length is None:
            self._corrupt(file, f"points into layer {layer}, which is not among the layers of the view")
        return length

    def _usable(self, layer: Digest, file: File) -> int:
        """How far chunks may point into a layer: its whole blocks, as far as block addresses reach."""
        return min(self._length(layer, file) >> self._block_bits, _MAX_BLOCK) << self._block_bits

    def _corrupt(self, file: File, what: str) -> NoReturn:
        msg = f"{self._path_of(file)}: {what}; pull the model again"
        raise CorruptContentError(msg)


def _round_up(value: int, bits: int) -> int:
    return -(-value >> bits) << bits
