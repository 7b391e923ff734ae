"""Where chunks point, how many there are, and what is copied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_model.erofs import chunks
from csi_model.erofs.chunks import HOLE, IMAGE, MAX_COPIED, ChunkMap, ChunkPlanner, Copy, Run
from csi_model.erofs.image import build_image
from csi_model.errors import CorruptContentError, UnsupportedError
from csi_model.oci.digest import Digest
from csi_model.tree.nodes import Directory, Extent, File, Hole
from tests.erofs.reader import Reader
from tests.erofs.trees import assemble, noise, raw_file

_KIB, _MIB, _GIB, _TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
_LAYER, _OTHER = Digest.of(b"layer"), Digest.of(b"other")


def _file(*segments: Extent | Hole) -> File:
    return File(0o444, 0, 0, 0, sum(segment.length for segment in segments), segments)


def _planner(length: int, other: int = 0) -> ChunkPlanner:
    return ChunkPlanner({_LAYER: length, _OTHER: other}, block_bits=9, path_of=lambda file: "/the/file")


def _plan(planner: ChunkPlanner, file: File) -> ChunkMap:
    assert planner.contiguous(file) == 0
    plan = planner.plan(file)
    assert plan is not None
    return plan


def _raw(size: int) -> tuple[ChunkMap, list[Copy]]:
    planner = _planner(size)
    return _plan(planner, raw_file(_LAYER, size)), planner.copies


@pytest.mark.parametrize("size", [1, 513, 4096, 5000, 300 * _GIB, _TIB])
def test_a_tar_entry_is_one_chunk(size: int) -> None:
    """A contiguous file whose last block is in its layer needs one index, whatever its size: block, device, and nothing to copy."""
    planner = _planner(1536 + size + 511)
    assert planner.contiguous(_file(Extent(_LAYER, 1536, size))) == 3 << 32 | 1 << 16
    assert planner.copies == []


def test_a_file_beyond_one_chunk_has_more_indexes() -> None:
    """A file of more than 1 TiB, the largest chunk there is, continues in a second one."""
    size = _TIB + 512
    plan = _plan(_planner(size), raw_file(_LAYER, size))
    assert plan == ChunkMap(40, (Run(2, 1, 0),))


@pytest.mark.parametrize("size", [1, 100, 511, 513, 4095])
def test_a_small_raw_layer_with_an_odd_end_is_copied(size: int) -> None:
    """A raw layer below 4 KiB that is no multiple of a block is one chunk in the image."""
    plan, copies = _raw(size)
    assert plan == ChunkMap(12, (Run(1, IMAGE, 0),))
    assert copies == [Copy(_LAYER, 0, size, 0)]


@pytest.mark.parametrize("size", [4097, _MIB - 1, _MIB + 1, 512 * _MIB + 7, 20 * _GIB + 100, 140 * 10**9 + 1, 1900 * 10**9 + 1])
def test_the_odd_end_of_a_raw_layer_costs_little(size: int) -> None:
    """Only the last, partial chunk of a raw layer is copied, and copy and index together stay each below a four-thousandth of it."""
    plan, copies = _raw(size)
    mapped = size >> plan.bits
    assert plan.runs == (Run(mapped, 1, 0), Run(1, IMAGE, 0))
    assert copies == [Copy(_LAYER, mapped << plan.bits, size - (mapped << plan.bits), 0)]
    assert copies[0].length <= max(4096, size // 4000)
    assert plan.count * 8 <= max(4096, size // 4000)
    assert plan.count * 8 <= 4 * _MIB


def test_holes_between_aligned_data_are_null_chunks() -> None:
    """Segments on 4 KiB boundaries are mapped with the largest chunks that fit them, and nothing is copied."""
    planner = _planner(20 * _KIB)
    file = _file(Extent(_LAYER, 0, 8 * _KIB), Hole(16 * _KIB), Extent(_LAYER, 8 * _KIB, 8 * _KIB), Hole(100))
    assert _plan(planner, file) == ChunkMap(13, (Run(1, 1, 0), Run(2, HOLE, 0), Run(1, 1, 16), Run(1, HOLE, 0)))
    assert planner.copies == []


def test_a_file_that_is_one_hole_has_no_data() -> None:
    """A file of holes alone is one null chunk, and takes no device."""
    planner = _planner(0)
    assert _plan(planner, _file(Hole(_GIB), Hole(5))) == ChunkMap(31, (Run(1, HOLE, 0),))
    assert planner.slots == {}


def test_neighbouring_segments_are_one() -> None:
    """Segments that continue each other in a layer are planned as the one run that they are; empty ones do not count."""
    planner = _planner(8 * _KIB)
    file = _file(Extent(_LAYER, 0, 100), Hole(0), Extent(_LAYER, 100, 924), Extent(_LAYER, 1024, 0))
    assert _plan(planner, file) == ChunkMap(12, (Run(1, 1, 0),))


def test_a_chunk_across_two_segments_is_copied() -> None:
    """Only the chunk in which two segments meet is copied, data beside its hole; the rest points into layers."""
    planner = _planner(64 * _KIB, 64 * _KIB)
    file = _file(Extent(_LAYER, 0, 4096 + 1000), Hole(1000), Extent(_OTHER, 512, 2096 + 8192))
    assert _plan(planner, file) == ChunkMap(12, (Run(1, 1, 0), Run(1, IMAGE, 0), Run(2, IMAGE, 8)))
    assert planner.copies == [Copy(_LAYER, 4096, 1000, 0), Copy(_OTHER, 512, 2096, 2000), Copy(_OTHER, 2608, 8192, 4096)]


def test_unaligned_data_is_copied_within_the_budget() -> None:
    """Data off the block boundary is copied up to 64 MiB for the whole image, and the first file beyond is refused by its path."""
    planner = _planner(_GIB)
    _plan(planner, _file(Extent(_LAYER, 1, MAX_COPIED - 512)))
    _plan(planner, _file(Extent(_LAYER, 1, 512)))
    with pytest.raises(UnsupportedError, match=r"^/the/file: .*64 MiB"):
        planner.plan(_file(Extent(_LAYER, 1, 1)))


def test_indexes_are_counted_over_all_files() -> None:
    """Many sparse files, each with a long index of its own, are refused together; the largest honest models stay far below the limit."""
    planner = _planner(_GIB)
    sparse = [_file(Extent(_LAYER, 4096 * number, 4096), Hole(8 * _GIB - 4096)) for number in range(17)]
    for file in sparse[:16]:
        assert _plan(planner, file).count * chunks.INDEX_SIZE == chunks.MAX_INDEX
    with pytest.raises(UnsupportedError, match=r"^/the/file: .*256 MiB"):
        planner.plan(sparse[16])
    for size, files in ((140 * 10**9, 30), (_TIB * 3 // 2, 160), (_TIB * 3 // 2, 500)):
        planner = _planner(size // files | 1)
        for _ in range(files):
            _plan(planner, raw_file(_LAYER, size // files | 1))


def test_fine_grained_holes_of_a_huge_file_are_refused() -> None:
    """A sparse file whose index would pass 16 MiB gets larger chunks; when those would copy too much it is refused, not mangled."""
    segments: list[Extent | Hole] = []
    for number in range(40_000):
        segments += [Extent(_LAYER, 4096 * number, 4096), Hole(_MIB - 4096)]
    planner = _planner(_GIB)
    assert _plan(planner, _file(*segments[:4000])).bits == 12
    assert planner.copies == []
    with pytest.raises(UnsupportedError, match=r"^/the/file: "):
        _planner(_GIB).plan(_file(*segments))


def test_an_index_too_large_takes_larger_chunks() -> None:
    """Past 2 Mi chunks of 4 KiB, chunks grow and those that straddle are copied."""
    planner = _planner(64 * _KIB)
    file = _file(Extent(_LAYER, 0, 4096), Hole(16 * _GIB), Extent(_LAYER, 4096, 4096))
    plan = _plan(planner, file)
    assert plan.bits == 14
    assert planner.copies == [Copy(_LAYER, 0, 4096, 0), Copy(_LAYER, 4096, 4096, 16_384 + 4096)]


@pytest.mark.parametrize("size", [1 << 62, 1 << 63, 1 << 70])
def test_sizes_beyond_the_format_are_refused(size: int) -> None:
    """A file that claims more bytes than an index can cover is refused by name instead of being tried."""
    with pytest.raises(UnsupportedError, match="/the/file: a file of"):
        _planner(0).plan(_file(Hole(size)))


def test_addresses_beyond_32_bits_are_refused() -> None:
    """Data that ends beyond 2 TiB in its layer is refused by name; data that ends just below is mapped."""
    limit = 0xFFFFFFFF * 512
    assert _planner(4 * _TIB).contiguous(_file(Extent(_LAYER, limit - 1024, 1024))) == 0xFFFFFFFD << 32 | 1 << 16
    for offset, length in ((limit - 512, 1024), (3 * _TIB, 512), (0, 3 * _TIB)):
        with pytest.raises(UnsupportedError, match=r"^/the/file: its data ends beyond byte 2199023255040 "):
            _plan(_planner(4 * _TIB), _file(Extent(_LAYER, offset, length)))


def test_too_many_layers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view needs at most as many devices as their 16-bit number can tell apart."""
    monkeypatch.setattr(chunks, "_MAX_DEVICES", 1)
    planner = _planner(512, 512)
    assert planner.contiguous(raw_file(_LAYER, 512)) == 1 << 16
    with pytest.raises(UnsupportedError, match="more than 1 layers"):
        planner.contiguous(raw_file(_OTHER, 512))


def test_segments_must_fit_their_layer_and_size() -> None:
    """A file that points past its layer, into no layer, or whose segments miss its size is corrupt, and named."""
    for file, message in (
        (_file(Extent(_LAYER, 0, 513)), "past the end of layer"),
        (_file(Extent(Digest.of(b"unknown"), 0, 1)), "not among the layers"),
        (File(0o444, 0, 0, 0, 10, (Extent(_LAYER, 0, 9),)), "9 bytes of segments and a size of 10"),
    ):
        with pytest.raises(CorruptContentError, match=rf"^/d/f: .*{message}.*; pull the model again"):
            build_image(Directory(children={b"d": Directory(children={b"f": file})}), {_LAYER: 512})


@given(st.integers(1, 1 << 41))
def test_balanced_chunks_keep_index_and_copy_alike(size: int) -> None:
    """For any size, neither the index nor the largest possible copy is more than eight times the other, above the smallest chunk."""
    bits = chunks.balanced_bits(size)
    index, copy = 8 * -(-size >> bits), 1 << bits
    assert index <= 2 * copy or copy == 4096
    assert copy <= 2 * index or copy == 4096


def test_batches_of_indexes_continue_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of indexes longer than one batch reads back in order."""
    monkeypatch.setattr("csi_model.erofs.inodes._BATCH", 3)
    body = noise(40_001)
    digest = Digest.of(body)
    image = build_image(Directory(children={b"f": raw_file(digest, len(body))}), {digest: len(body)})
    reader = Reader(assemble(image, {digest: body}), [body])
    assert [reader.read(inode) for _, inode in reader.walk()] == [body]
