"""One layer: each encoding, verified, recorded, resumed, and given up without leftovers."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
import xxhash
import zstandard

from csi_model.errors import CorruptContentError, NoSpaceError
from csi_model.formats.placement import Compression
from csi_model.mount.strategy import WriteMode
from csi_model.oci.digest import Digest
from csi_model.pull import job
from csi_model.pull.pool import PIECE
from csi_model.pull.puller import LayerWant, Puller
from tests.pull.conftest import ENCODERS, MemorySource, left, noise, pull

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_model.store.store import Store


def a_tar(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("models/weights")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("mode", WriteMode)
@pytest.mark.parametrize("compression", Compression)
@pytest.mark.parametrize("size", [1, PIECE, 5 * PIECE + 777])
def test_layers_arrive_verified_and_recorded(  # noqa: PLR0917 - two fixtures, a factory and the table
    store: Store, source: MemorySource, pulling: Callable[..., Puller], mode: WriteMode, compression: Compression, size: int
) -> None:
    """Each encoding in both write modes becomes the same bytes under their own digest, with their piece checksums, and is recorded."""
    data = noise(size)
    want = LayerWant(source.add(ENCODERS[compression](data)), compression, Digest.of(data))
    (layer,) = pull(pulling(), source, want, mode=mode)
    assert layer.content == Digest.of(data)
    assert store.content.path(layer.content).read_bytes() == data
    assert layer.pieces == b"".join(xxhash.xxh3_128_digest(data[start : start + PIECE]) for start in range(0, size, PIECE))
    record = store.state.layer(want.descriptor.digest, compression.value)
    assert record is not None
    assert (record.content, record.size, record.pieces) == (layer.content, layer.size, layer.pieces)
    assert left(store) == []


def test_content_without_a_record_is_read_again_not_fetched(store: Store, source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """A raw layer whose record was lost is hashed from the disk; when the disk lies, it is fetched."""
    data = noise(PIECE + 5)
    layer = source.add(data)
    store.content.add(data)
    (found,) = pull(pulling(), source, LayerWant(layer))
    assert source.opened == []
    assert found.content == layer.digest
    other = source.add(noise(2000, 1))
    store.content.add(source.blobs[other.digest])
    path = store.content.path(other.digest)
    path.chmod(0o600)
    path.write_bytes(bytes(2000))
    pull(pulling(), source, LayerWant(other))
    assert path.read_bytes() == source.blobs[other.digest]


def test_an_empty_layer_is_made_here(store: Store, source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """Zero bytes are never asked for; zero bytes that should have been a gzip stream, or another digest, are refused."""
    empty = source.add(b"")
    (layer,) = pull(pulling(), source, LayerWant(empty))
    assert (layer.size, layer.content) == (0, Digest.of(b""))
    with pytest.raises(CorruptContentError):
        pull(pulling(), source, LayerWant(empty, Compression.GZIP))
    lying = source.add(b"x").__class__("x", Digest.of(b"x"), 0)
    with pytest.raises(CorruptContentError):
        pull(pulling(), source, LayerWant(lying))
    assert source.opened == []


def test_tar_headers_are_indexed_on_the_way(store: Store, source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """A tar's entries come with the pull, plain or compressed; bytes that are no tar come without, and are pulled all the same."""
    data = a_tar(noise(PIECE))
    results = pull(
        pulling(),
        source,
        LayerWant(source.add(data), index=True),
        LayerWant(source.add(gzip.compress(data)), Compression.GZIP, index=True),
        LayerWant(source.add(noise(5000)), index=True),
        LayerWant(source.add(a_tar(b"x")), index=False),
    )
    assert results[0].entries == results[1].entries
    assert results[0].entries is not None
    assert len(results[0].entries) == 1
    assert results[2].entries is results[3].entries is None


def test_a_sha512_blob_is_stored_under_its_sha256(store: Store, source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """The blob's own algorithm verifies it; the content goes by SHA-256. A SHA-512 diff id is checked too."""
    data = noise(10_000)
    blob = source.add(gzip.compress(data), algorithm="sha512")
    right, wrong = (Digest("sha512", hashlib.sha512(text).hexdigest()) for text in (data, b"other"))
    (layer,) = pull(pulling(), source, LayerWant(blob, Compression.GZIP, right))
    assert layer.content == Digest.of(data)
    source.delivers[blob.digest] = [gzip.compress(b"lie")]
    other = source.add(gzip.compress(b"data"))
    with pytest.raises(CorruptContentError, match="decoded"):
        pull(pulling(), source, LayerWant(other, Compression.GZIP, wrong))
    assert not store.content.has(Digest.of(b"data"))


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP, Compression.ZSTD])
def test_wrong_bytes_are_pulled_once_more_and_then_refused(
    store: Store, source: MemorySource, pulling: Callable[..., Puller], compression: Compression
) -> None:
    """Bytes of the right length and the wrong digest: a second try that is right succeeds, one that is wrong leaves nothing."""
    blob = ENCODERS[compression](noise(3000))
    layer = source.add(blob)
    flipped = bytearray(blob)
    flipped[len(blob) // 2] ^= 1
    source.delivers[layer.digest] = [bytes(flipped), blob]
    pull(pulling(), source, LayerWant(layer, compression))
    other = source.add(ENCODERS[compression](noise(3000, 1)))
    source.delivers[other.digest] = [bytes(other.size)]
    with pytest.raises(CorruptContentError):
        pull(pulling(), source, LayerWant(other, compression))
    assert [opened[0] for opened in source.opened].count(other.digest) == 2
    assert left(store) == []
    assert len(list(store.content.digests())) == 1


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_a_well_formed_stream_of_another_blob_is_refused(
    store: Store, source: MemorySource, pulling: Callable[..., Puller], compression: Compression
) -> None:
    """Bytes that decode without complaint but are not the blob's are found by the blob's digest, with no diff id to help."""
    blob, impostor = (ENCODERS[compression](noise(3000, seed)) for seed in (1, 2))
    layer = source.add(blob)
    assert len(impostor) == layer.size
    source.delivers[layer.digest] = [impostor]
    with pytest.raises(CorruptContentError, match="should be"):
        pull(pulling(), source, LayerWant(layer, compression))
    assert list(store.content.digests()) == []


@pytest.mark.parametrize("mode", WriteMode)
@pytest.mark.parametrize("tail", [0, 1, 4096])
def test_a_resumed_layer_is_hashed_from_its_start(
    store: Store, source: MemorySource, pulling: Callable[..., Puller], mode: WriteMode, tail: int
) -> None:
    """What an earlier process left is used down to the last whole piece; a damaged rest is thrown away and all of it fetched."""
    data = noise(3 * PIECE + 50)
    layer = source.add(data)
    with store.content.ingest(layer.digest, "none") as ingest:
        ingest.path.write_bytes(data[: 2 * PIECE + tail])
    (result,) = pull(pulling(), source, LayerWant(layer), mode=mode)
    assert source.opened == [(layer.digest, 2 * PIECE, len(data))]
    assert result.pieces[:16] == xxhash.xxh3_128_digest(data[:PIECE])
    other = source.add(noise(3 * PIECE + 50, 1))
    with store.content.ingest(other.digest, "none") as ingest:
        ingest.path.write_bytes(bytes(2 * PIECE))
    pull(pulling(), source, LayerWant(other), mode=mode)
    assert source.opened[1:] == [(other.digest, 2 * PIECE, other.size), (other.digest, 0, other.size)]
    assert store.content.path(other.digest).read_bytes() == source.blobs[other.digest]


def test_a_finished_ingest_needs_no_network(store: Store, source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """Killed between the last byte and the commit, a layer is committed from what is on disk."""
    data = noise(PIECE + 50)
    layer = source.add(data)
    with store.content.ingest(layer.digest, "none") as ingest:
        ingest.path.write_bytes(data)
    pull(pulling(), source, LayerWant(layer))
    assert source.delivered == 0
    assert store.content.path(layer.digest).read_bytes() == data


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD])
def test_a_disk_that_fills_up_frees_what_was_written_and_harms_nobody(
    store: Store, source: MemorySource, pulling: Callable[..., Puller], monkeypatch: pytest.MonkeyPatch, compression: Compression
) -> None:
    """ENOSPC in the middle ends this layer with NoSpaceError and its ingest, while another layer arrives."""
    data = noise(6 * PIECE)
    layer, small = source.add(ENCODERS[compression](data)), source.add(noise(PIECE, 7))
    write = os.pwrite

    def full(fd: int, view: memoryview, offset: int) -> int:
        if offset >= 4 * PIECE:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, view, offset)

    monkeypatch.setattr(os, "pwrite", full)
    shared = pulling()
    with pytest.raises(NoSpaceError):
        pull(shared, source, LayerWant(layer, compression))
    pull(shared, source, LayerWant(small))
    assert left(store) == []


def test_a_bomb_stops_at_the_reserve(
    store: Store, source: MemorySource, pulling: Callable[..., Puller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small blob that decodes to more than the disk may hold is given up, and what it wrote is freed."""
    monkeypatch.setattr(job, "free_bytes", lambda _: 0)
    bomb = zstandard.compress(bytes(200 << 20))
    with pytest.raises(NoSpaceError, match="decodes to more"):
        pull(pulling(free_space_reserve=1), source, LayerWant(source.add(bomb), Compression.ZSTD))
    assert left(store) == []
