from __future__ import annotations

import gzip
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from hypothesis import assume, given
from hypothesis import strategies as st

from csi_model.errors import CorruptContentError, UnsupportedError
from csi_model.formats.placement import Compression
from csi_model.pull.decode import decoder, detect
from csi_model.pull.pool import PIECE, BufferPool, Piece
from csi_model.pull.stop import Stop
from csi_model.pull.zstdframes import FrameWalker
from tests.pull.conftest import noise

if TYPE_CHECKING:
    from collections.abc import Iterator

SKIPPABLE = b"\x53\x2a\x4d\x18" + struct.pack("<I", 5) + b"hello"
SHORT_MEMBER = gzip.compress(b"short")
POOL = BufferPool(1)


def pieces(data: bytes, step: int) -> Iterator[Piece]:
    for start in range(0, len(data), step):
        chunk = data[start : start + step]
        buffer = POOL.take("host", Stop())
        buffer.view[: len(chunk)] = chunk
        yield Piece(POOL, buffer, offset=start, length=len(chunk))


def decoded(compression: Compression, data: bytes, *, step: int = PIECE, room: int = 1 << 20) -> bytes:
    source, out, buffer = decoder(compression, pieces(data, step)), bytearray(), memoryview(bytearray(room))
    try:
        while length := source.readinto(buffer):
            out += buffer[:length]
        assert source.readinto(buffer) == 0
        assert POOL.lent() == 0
    finally:
        source.close()
    assert POOL.lent() == 0
    return bytes(out)


def member(
    text: bytes, *, extra: bytes | None = None, name: bytes | None = None, comment: bytes | None = None, checked: bool = False
) -> bytes:
    """A gzip member with those fields in its header, the header's own checksum among them."""
    flags = 2 * checked | 4 * (extra is not None) | 8 * (name is not None) | 16 * (comment is not None)
    header = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    if extra is not None:
        header += struct.pack("<H", len(extra)) + extra
    header += b"".join(field + b"\0" for field in (name, comment) if field is not None)
    if checked:
        header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    deflate = zlib.compressobj(wbits=-15)
    return header + deflate.compress(text) + deflate.flush() + struct.pack("<II", zlib.crc32(text), len(text))


PARTS = st.lists(st.binary(max_size=3000), min_size=1, max_size=4)


@given(parts=PARTS, step=st.integers(1, 4000), room=st.integers(1, 5000))
def test_gzip_members_are_joined(parts: list[bytes], step: int, room: int) -> None:
    """Members decode one after another, whatever the sizes of pieces and buffers, as ``gzip -d`` does."""
    assert decoded(Compression.GZIP, b"".join(map(gzip.compress, parts)), step=step, room=room) == b"".join(parts)


FIELD = st.none() | st.binary(max_size=40).map(lambda field: field.replace(b"\0", b"n"))
MEMBERS = st.lists(
    st.tuples(st.binary(max_size=200), st.fixed_dictionaries({"extra": FIELD, "name": FIELD, "comment": FIELD, "checked": st.booleans()})),
    min_size=1,
    max_size=4,
)


@given(members=MEMBERS, step=st.integers(1, 200))
def test_gzip_headers_of_every_form_may_be_cut_anywhere(members: list[tuple[bytes, dict[str, Any]]], step: int) -> None:
    """Extra fields, names, comments and header checksums are passed over, in any combination, wherever pieces end."""
    data = b"".join(member(text, **fields) for text, fields in members)
    assert gzip.decompress(data) == b"".join(text for text, _ in members)
    assert decoded(Compression.GZIP, data, step=step) == gzip.decompress(data)


@pytest.mark.parametrize("step", [1000, 128 << 10, PIECE])
def test_a_gzip_header_has_a_limit(step: int) -> None:
    """A header up to 128 KiB is read and a longer one refused by name, wherever pieces end, as it must be in memory as a whole."""
    most = (128 << 10) - 11
    assert decoded(Compression.GZIP, SHORT_MEMBER + member(b"text", name=b"n" * most), step=step) == b"shorttext"
    for endless in (member(b"text", name=b"n" * (most + 1)), member(b"", name=b"n" * (1 << 20))[: 1 << 20]):
        with pytest.raises(UnsupportedError, match="header is longer than 128 KiB"):
            decoded(Compression.GZIP, endless, step=step)


@given(parts=PARTS, step=st.integers(1, 4000), room=st.integers(1, 5000), checksum=st.booleans(), sized=st.booleans())
def test_zstd_frames_are_joined(parts: list[bytes], step: int, room: int, *, checksum: bool, sized: bool) -> None:
    """Frames of every header form decode one after another, skippable ones in between and at both ends."""
    compressor = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=sized)
    data = SKIPPABLE + SKIPPABLE.join(map(compressor.compress, parts)) + SKIPPABLE
    assert decoded(Compression.ZSTD, data, step=step, room=room) == b"".join(parts)


@given(cut=st.integers(1, 10_000))
def test_truncated_streams_are_refused(cut: int) -> None:
    """A stream that ends in the middle is refused wherever it ends, also where the decoder itself would be content."""
    text = noise(5000) + bytes(200_000)
    for compression, data in ((Compression.GZIP, gzip.compress(text)), (Compression.ZSTD, zstandard.compress(text))):
        with pytest.raises(CorruptContentError):
            decoded(compression, data[: -min(cut, len(data) - 1)])


@pytest.mark.parametrize("trailer", [b"x", b"\0", bytes(512), b"\x1f", b"\x1f\x8b", b"PK\x03\x04"])
def test_trailing_bytes_are_refused(trailer: bytes) -> None:
    """Nothing may follow the last member or frame: neither garbage nor padding nor the beginning of another."""
    for compression, data in ((Compression.GZIP, gzip.compress(b"abc")), (Compression.ZSTD, zstandard.compress(b"abc"))):
        with pytest.raises(CorruptContentError):
            decoded(compression, data + trailer)


def test_damage_is_found_by_the_checks_of_the_format() -> None:
    """A flipped bit in data, CRC or length is an error of ours."""
    text = bytes(range(256)) * 100
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(text)
    for compression, data, positions in (
        (Compression.GZIP, gzip.compress(text), (2, 30, -8, -2)),
        (Compression.ZSTD, checked, (4, 20, -1)),
        (Compression.GZIP, SHORT_MEMBER + gzip.compress(text), (len(SHORT_MEMBER), len(SHORT_MEMBER) + 1)),
        (Compression.ZSTD, SKIPPABLE + checked, (len(SKIPPABLE), len(SKIPPABLE) + 3)),
    ):
        for position in positions:
            damaged = bytearray(data)
            damaged[position] ^= 0x41
            with pytest.raises(CorruptContentError):
                decoded(compression, bytes(damaged))


def test_an_empty_stream_is_no_stream() -> None:
    """Zero bytes are neither a gzip member nor a zstd frame."""
    for compression in (Compression.GZIP, Compression.ZSTD):
        with pytest.raises(CorruptContentError, match="truncated"):
            decoded(compression, b"")


@pytest.mark.parametrize("blob", [b"\x1f", b"\x1f\x8b", b"\x28\xb5\x2f", b"tar"])
def test_less_than_a_magic_is_no_stream(blob: bytes) -> None:
    """A blob that ends before it can be told what it is counts as truncated, whatever it is called."""
    for compression in (Compression.GZIP, Compression.ZSTD):
        with pytest.raises(CorruptContentError, match="truncated"):
            decoded(compression, blob)


@pytest.mark.parametrize("named", [Compression.GZIP, Compression.ZSTD])
@pytest.mark.parametrize("step", [1, 3, PIECE])
def test_the_first_bytes_choose_the_decoder(named: Compression, step: int) -> None:
    """A blob that is called gzip or zstd and is the other, or neither, is read as what it is, as in containerd."""
    text = b"models/config.json" + bytes(500)
    for blob in (gzip.compress(text), zstandard.compress(text), SKIPPABLE + zstandard.compress(text), text):
        assert decoded(named, blob, step=step) == text


@given(blob=st.binary(min_size=4, max_size=3000), step=st.integers(1, 4000), room=st.integers(1, 5000))
def test_what_is_no_stream_passes_unchanged(blob: bytes, step: int, room: int) -> None:
    """Bytes that begin neither a gzip member nor a zstd frame come out as they are, whatever the sizes of pieces and buffers."""
    assume(detect(blob) is Compression.NONE)
    assert decoded(Compression.GZIP, blob, step=step, room=room) == blob


@pytest.mark.parametrize("single", [True, False])
def test_an_enormous_window_is_refused_before_its_memory_is_taken(*, single: bool) -> None:
    """A frame that asks for more than 128 MiB is refused from its header, in both forms of header."""
    if single:
        head = b"\x28\xb5\x2f\xfd" + bytes([0b1010_0000]) + struct.pack("<I", (128 << 20) + 1)
    else:
        head = b"\x28\xb5\x2f\xfd" + bytes([0]) + bytes([(27 - 10) << 3 | 1])
    with pytest.raises(UnsupportedError, match="window"):
        decoded(Compression.ZSTD, head + b"\x01\x00\x00")
    FrameWalker().feed(b"\x28\xb5\x2f\xfd" + bytes([0]) + bytes([(27 - 10) << 3]))  # 128 MiB exactly


def test_a_dictionary_is_refused_by_name() -> None:
    """A frame that names a dictionary cannot be decoded, and says why."""
    head = b"\x28\xb5\x2f\xfd" + bytes([0b0010_0001, 7, 0])
    with pytest.raises(UnsupportedError, match="dictionary"):
        decoded(Compression.ZSTD, head + b"\x01\x00\x00")


def test_a_bomb_comes_out_one_buffer_at_a_time() -> None:
    """A thousandfold expansion fills only the buffer that was offered, however much is still to come."""
    bomb = zstandard.compress(bytes(256 << 20))
    source, buffer = decoder(Compression.ZSTD, pieces(bomb, PIECE)), memoryview(bytearray(1 << 20))
    assert source.readinto(buffer) == 1 << 20
    source.close()
    packed = zlib.compressobj(wbits=31)
    data = packed.compress(bytes(64 << 20)) + packed.flush()
    source = decoder(Compression.GZIP, pieces(data, PIECE))
    assert source.readinto(buffer) == 1 << 20
    source.close()
    assert POOL.lent() == 0


@pytest.mark.parametrize(
    ("head", "compression"),
    [
        (gzip.compress(b"x")[:4], Compression.GZIP),
        (zstandard.compress(b"x")[:4], Compression.ZSTD),
        (SKIPPABLE[:4], Compression.ZSTD),
        (b"mode", Compression.NONE),
        (b"\x50\x2a", Compression.NONE),
        (b"", Compression.NONE),
    ],
)
def test_the_first_bytes_tell_the_compression(head: bytes, compression: Compression) -> None:
    """gzip, zstd and skippable frames have their magics; all else is a plain tar."""
    assert detect(head) is compression


BLOCKS = st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(0, 40)), min_size=1, max_size=12)


def frame(blocks: list[tuple[int, int]], *, checked: bool) -> bytes:
    """A zstd frame of raw (0) and run-length (1) blocks that decode to so many zeros each."""
    data = b"\x28\xb5\x2f\xfd" + bytes([4 * checked, 0])
    for number, (kind, size) in enumerate(blocks, 1):
        data += (size << 3 | kind << 1 | (number == len(blocks))).to_bytes(3, "little") + bytes(1 if kind else size)
    text = bytes(sum(size for _, size in blocks))
    checksum = zstandard.ZstdCompressor(write_checksum=True).compress(text)[-4:]
    return data + checksum * checked


@given(frames=st.lists(BLOCKS, min_size=1, max_size=3), step=st.integers(1, 300), checked=st.booleans(), data=st.data())
def test_the_frame_walker_follows_blocks_of_every_size(
    frames: list[list[tuple[int, int]]], step: int, data: st.DataObject, *, checked: bool
) -> None:
    """Frames of small and empty blocks are walked to their end wherever pieces end, and a cut inside a frame, even between blocks, is found."""
    streams = [frame(blocks, checked=checked) for blocks in frames]
    whole = b"".join(streams)
    assert decoded(Compression.ZSTD, whole, step=step) == bytes(sum(size for blocks in frames for _, size in blocks))
    cut = data.draw(st.integers(1, len(streams[-1]) - 1))
    walker = FrameWalker()
    for start in range(0, len(whole) - cut, step):
        walker.feed(memoryview(whole)[start : min(start + step, len(whole) - cut)])
    with pytest.raises(CorruptContentError, match="middle of a frame"):
        walker.finish()


@given(data=st.binary(max_size=300), steps=st.integers(1, 50))
def test_the_frame_walker_never_fails_otherwise(data: bytes, steps: int) -> None:
    """Any bytes either walk or raise an error of ours, and the sizes of the chunks make no difference."""

    def verdict(step: int) -> str:
        walker = FrameWalker()
        try:
            for start in range(0, len(data), step):
                walker.feed(b"\x28\xb5\x2f\xfd"[: 4 * (start == 0)] + data[start : start + step])
            walker.finish()
        except (CorruptContentError, UnsupportedError) as error:
            return str(error)
        return "fine"

    assert verdict(steps) == verdict(max(1, len(data)))
