"""Sparse maps."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_model.tree.entries import Segment
from csi_model.tree.sparse import MAX_SEGMENTS, LineMap, comma_map, lay_out


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20), st.integers(0, 50))
def test_segments_cover_the_file_exactly(steps: list[tuple[int, int]], tail: int) -> None:
    """Segments put every stored byte where the map says, zeros elsewhere, merge neighbours and are never empty."""
    stored = bytes(range(1, 251)) * 5
    expected = bytearray()
    regions = []
    source = 0
    for gap, length in steps:
        expected += bytes(gap)
        regions.append((len(expected), length))
        expected += stored[source : source + length]
        source += length
    expected += bytes(tail)
    segments = lay_out(regions, size=len(expected), data=1000, stored=source)
    read = b"".join(bytes(s.length) if s.offset is None else stored[s.offset - 1000 : s.offset - 1000 + s.length] for s in segments)
    assert read == expected
    assert all(s.length > 0 for s in segments)
    assert all((a.offset is None) != (b.offset is None) for a, b in itertools.pairwise(segments))


@pytest.mark.parametrize(
    "regions",
    [
        [(5, 5), (0, 5)],
        [(0, 6), (5, 4)],
        [(95, 10)],
        [(0, -10), (0, 20)],
        [(-5, 10)],
        [(0, 9)],
        [(0, 11)],
        [(2**63, 10)],
    ],
)
def test_maps_that_overlap_run_backwards_or_miscount_are_refused(regions: list[tuple[int, int]]) -> None:
    """A region out of order, out of the file or not accounted for by stored bytes is refused."""
    with pytest.raises(ValueError, match="sparse map"):
        lay_out(regions, size=100, data=0, stored=10)


def test_an_empty_map_is_one_hole() -> None:
    """A file of zeros only has one hole and no data."""
    assert lay_out([(100, 0)], size=100, data=0, stored=0) == (Segment(100),)
    assert lay_out([], size=0, data=0, stored=0) == ()


def test_line_map_spans_blocks() -> None:
    """A map is read over as many blocks as it needs and ends with its block."""
    text = b"60\n" + b"".join(b"%d\n1\n" % (10**9 + i * 10) for i in range(60))
    padded = text + bytes(-len(text) % 512)
    lines = LineMap()
    for at in range(0, len(padded), 512):
        assert not lines.complete
        lines.feed(padded[at : at + 512])
    assert lines.complete
    assert lines.regions == [(10**9 + i * 10, 1) for i in range(60)]


@pytest.mark.parametrize("text", [b"x\n", b"1\n-1\n1\n", b"999999999\n", b"7" * 512, b"1\n\n\n"])
def test_line_maps_of_something_else_are_refused(text: bytes) -> None:
    """A map with a huge count or with other text than numbers is refused at once."""
    with pytest.raises(ValueError, match="sparse map"):
        LineMap().feed(text.ljust(512, b"\0"))


@pytest.mark.parametrize("value", [b"1", b"1,2,3", b"a,b", b"1,,2,3", b"0,1," * MAX_SEGMENTS + b"0,1"])
def test_comma_maps_must_pair_numbers(value: bytes) -> None:
    """A map of an odd count, of other text or beyond the limit is refused."""
    with pytest.raises(ValueError, match="sparse map"):
        comma_map(value)
