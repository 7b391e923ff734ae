from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import tarfile
import threading
import time
from typing import TYPE_CHECKING

import pytest
import xxhash
import zstandard

from csi_model.errors import CorruptContentError, NoSpaceError, StillPullingError, UnavailableError
from csi_model.formats.placement import Compression
from csi_model.mount.strategy import WriteMode
from csi_model.oci.digest import Digest
from csi_model.pull import job, puller
from csi_model.pull.pool import PIECE
from csi_model.pull.puller import LayerWant, Puller
from tests.pull.conftest import MemorySource, noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from csi_model.store.store import Store

PATIENCE = 20.0


@pytest.fixture
def pulling(store: Store) -> Iterator[Callable[..., Puller]]:
    made = list[Puller]()

    def make(**settings: float) -> Puller:
        made.append(Puller(store, **{"free_space_reserve": 0} | settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        assert each.close(5), "threads are left"
        assert each._resources.pool.lent() == 0, "buffers are lost"
        assert each._resources.decoders.held() == 0


def pull(puller: Puller, source: MemorySource, *wants: LayerWant, mode: WriteMode = WriteMode.BUFFERED) -> tuple[puller.LayerResult, ...]:
    with puller.pull(source, wants, write_mode=mode) as pulling:
        return pulling.wait(PATIENCE)


def a_tar(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("models/weights")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def left(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "ingest").iterdir())


ENCODERS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: bytes,
    Compression.GZIP: lambda data: gzip.compress(data, 1),
    Compression.ZSTD: zstandard.compress,
    Compression.DETECT: zstandard.compress,
}


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


def test_what_is_here_is_not_asked_for(store: Store, source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """A second pull of the same layers opens no connection and is complete at once."""
    want = LayerWant(source.add(gzip.compress(b"weights")), Compression.GZIP)
    first = pull(pulling(), source, want)
    opened = len(source.opened)
    with pulling().pull(source, [want], write_mode=WriteMode.BUFFERED) as again:
        assert again.wait(0) == first
        assert str(again.progress()).startswith("27 of 27 B")
    assert len(source.opened) == opened


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


def test_a_wrong_diff_id_fails_only_who_believes_it(store: Store, source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """Two manifests share a blob and one lies about its diff id: that one is refused, and the other gets the layer, pulled once."""
    layer = source.add(gzip.compress(b"weights"))
    shared, source.stalls_at = pulling(), 0
    with (
        shared.pull(source, [LayerWant(layer, Compression.GZIP, Digest.of(b"lie"))], write_mode=WriteMode.BUFFERED) as liar,
        shared.pull(source, [LayerWant(layer, Compression.GZIP, Digest.of(b"weights"))], write_mode=WriteMode.BUFFERED) as honest,
    ):
        source.go.set()
        assert honest.wait(PATIENCE)[0].content == Digest.of(b"weights")
        with pytest.raises(CorruptContentError, match="config says"):
            liar.wait(PATIENCE)
    assert len(source.opened) == 1


def test_one_flight_serves_everybody(source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """Fifty requests for models that share layers, one layer twice in a model, fetch each layer once."""
    shared, source.stalls_at = pulling(), 0
    wants = [LayerWant(source.add(noise(1000, seed))) for seed in range(4)]
    pulls = [shared.pull(source, [wants[0], wants[0], wants[1 + n % 3]], write_mode=WriteMode.BUFFERED) for n in range(50)]
    source.go.set()
    for each in pulls:
        with each:
            first, second, _ = each.wait(PATIENCE)
            assert first is second
    assert len(source.opened) == 4


def test_a_deadline_ends_the_wait_and_not_the_pull(source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """A wait that times out says how far it is; the bytes that came meanwhile are not fetched again for who asks next."""
    shared, data = pulling(), noise(2 * PIECE)
    source.stalls_at = PIECE + 1
    want = LayerWant(source.add(data))
    with (
        shared.pull(source, [want], write_mode=WriteMode.BUFFERED) as impatient,
        pytest.raises(StillPullingError, match=r"of 8\.4 MB"),
    ):
        impatient.wait(0.2)
    source.go.set()
    pull(shared, source, want)
    assert len(source.opened) == 1
    assert source.delivered == len(data)


def test_a_pull_that_nobody_waits_for_stops_after_its_linger_and_resumes(
    store: Store, source: MemorySource, pulling: Callable[..., Puller]
) -> None:
    """It goes on for a while, then lets go of its connection and leaves its bytes, from which the next request goes on."""
    data = noise(3 * PIECE)
    want = LayerWant(source.add(data))
    source.stalls_at = 2 * PIECE
    brief = pulling(linger=0.2)
    with brief.pull(source, [want], write_mode=WriteMode.BUFFERED) as abandoned:
        while abandoned.progress().done < 2 * PIECE:
            time.sleep(0.01)
    assert source.open_readers == 1
    deadline = time.monotonic() + 5
    while source.open_readers and time.monotonic() < deadline:
        time.sleep(0.01)
    assert source.open_readers == 0
    source.go.set()
    pull(brief, source, want)
    assert source.opened[-1] == (want.descriptor.digest, 2 * PIECE, 3 * PIECE)
    assert store.content.path(want.descriptor.digest).read_bytes() == data


def test_who_comes_back_in_time_keeps_the_pull(source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """A retry within the linger joins the flight, which then outlives the linger."""
    source.stalls_at = 0
    want = LayerWant(source.add(b"weights"))
    brief = pulling(linger=0.3)
    with brief.pull(source, [want], write_mode=WriteMode.BUFFERED):
        pass
    with brief.pull(source, [want], write_mode=WriteMode.BUFFERED) as again:
        time.sleep(0.6)
        source.go.set()
        again.wait(PATIENCE)
    assert len(source.opened) == 1


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


def test_a_silent_registry_holds_up_nobody_else(pulling: Callable[..., Puller]) -> None:
    """A pool of two buffers, twenty layers, one registry stalled in the middle of its pieces: all other pulls finish."""
    silent = MemorySource(name="silent.example/m", stalls_at=100)
    others = [MemorySource(name=f"r{number}.example/m") for number in range(3)]
    shared = pulling(buffers=2, decoders=2, connections_per_blob=3)
    stuck = shared.pull(
        silent,
        [LayerWant(silent.add(gzip.compress(noise(PIECE * 2, n))), Compression.GZIP) for n in range(4)]
        + [LayerWant(silent.add(noise(PIECE * 2, n))) for n in range(4)],
        write_mode=WriteMode.BUFFERED,
    )
    pulls = []
    for source in others:
        wants = [LayerWant(source.add(gzip.compress(noise(PIECE + 9, n), 1)), Compression.GZIP) for n in range(2)]
        wants += [LayerWant(source.add(noise(2 * PIECE + 9, n))) for n in range(2)]
        pulls.append(shared.pull(source, wants, write_mode=WriteMode.DIRECT))
    for each in pulls:
        with each:
            each.wait(PATIENCE)
    with pytest.raises(StillPullingError):
        stuck.wait(0)
    silent.go.set()
    with stuck:
        stuck.wait(PATIENCE)


def test_closing_stops_everything_and_keeps_what_resumes(store: Store, source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """Stop wakes waiters with UnavailableError, threads end within the grace, and the ingest stays."""
    source.stalls_at = PIECE
    shared = pulling()
    want = LayerWant(source.add(noise(2 * PIECE)))
    with shared.pull(source, [want], write_mode=WriteMode.BUFFERED) as stopped:
        while stopped.progress().done < PIECE:
            time.sleep(0.01)
        threading.Timer(0.05, shared.close).start()
        with pytest.raises(UnavailableError):
            stopped.wait(PATIENCE)
    assert shared.close(5)
    assert left(store) == [f"{want.descriptor.digest.hex}-none"]
    with pytest.raises(UnavailableError, match="stopping"):
        shared.pull(source, [want], write_mode=WriteMode.BUFFERED)


def test_an_error_is_told_at_once_and_forgotten(source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """The first layer to fail ends the wait while others go on; the next request begins anew."""
    bad = source.add(b"weights")
    source.delivers[bad.digest] = [b"another", b"another", b"weights"]
    slow = MemorySource(name=source.name, stalls_at=0)
    shared = pulling()
    held = shared.pull(slow, [LayerWant(slow.add(b"slow"))], write_mode=WriteMode.BUFFERED)
    source.blobs |= slow.blobs
    with (
        shared.pull(source, [LayerWant(bad), LayerWant(slow.add(b"slow"))], write_mode=WriteMode.BUFFERED) as failing,
        pytest.raises(CorruptContentError),
    ):
        failing.wait(PATIENCE)
    pull(shared, source, LayerWant(bad))
    slow.go.set()
    with held:
        held.wait(PATIENCE)


def test_room_is_checked_before_the_first_byte(
    store: Store, source: MemorySource, pulling: Callable[..., Puller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing, beside the reserve and what other pulls were promised, must fit; bytes that are here count as room."""
    monkeypatch.setattr(puller, "free_bytes", lambda _: 10_000)
    layer, other = source.add(noise(8000)), source.add(noise(8000, 1))
    with pytest.raises(NoSpaceError, match=r"needs 8\.0 kB more but only 7\.9 kB are free"):
        pulling(free_space_reserve=2100).pull(source, [LayerWant(layer)], write_mode=WriteMode.BUFFERED)
    assert source.opened == []
    with store.content.ingest(layer.digest, "none") as ingest:
        ingest.path.write_bytes(bytes(4000))
    source.stalls_at = 0
    shared = pulling(free_space_reserve=2100)
    with shared.pull(source, [LayerWant(layer)], write_mode=WriteMode.BUFFERED) as promised:
        with pytest.raises(NoSpaceError):
            shared.pull(source, [LayerWant(other)], write_mode=WriteMode.BUFFERED)
        source.go.set()
        promised.wait(PATIENCE)


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


def test_many_small_layers_pass_through_few_threads(source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """Two hundred layers are pulled with no more connections than there are slots, and the threads are gone after that."""
    shared = pulling(active_blobs=3)
    before = threading.active_count()
    wants = [LayerWant(source.add(noise(2000, seed))) for seed in range(200)]
    results = pull(shared, source, *wants)
    assert [layer.content for layer in results] == [want.descriptor.digest for want in wants]
    assert source.most_readers <= 3
    assert shared.close(5)
    assert threading.active_count() == before
