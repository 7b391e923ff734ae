"""The puller: one flight for everybody who wants a layer, waits that end before it, and a stop that keeps what resumes."""

from __future__ import annotations

import gzip
import threading
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import CorruptContentError, DiskMissingError, NoSpaceError, StillPullingError, UnavailableError
from csi_model.formats.placement import Compression
from csi_model.mount.strategy import WriteMode
from csi_model.oci.digest import Digest
from csi_model.pull import puller
from csi_model.pull.pool import PIECE
from csi_model.pull.puller import LayerWant, Puller
from tests.pull.conftest import ENCODERS, PATIENCE, MemorySource, left, noise, pull

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_model.store.store import Store


def test_what_is_here_is_not_asked_for(store: Store, source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """A second pull of the same layers opens no connection and is complete at once."""
    want = LayerWant(source.add(gzip.compress(b"weights")), Compression.GZIP)
    first = pull(pulling(), source, want)
    opened = len(source.opened)
    with pulling().pull(source, [want], write_mode=WriteMode.BUFFERED) as again:
        assert again.wait(0) == first
        assert str(again.progress()).startswith("27 of 27 B")
    assert len(source.opened) == opened


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


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_closing_keeps_nothing_of_a_layer_that_was_being_decoded(
    store: Store, source: MemorySource, pulling: Callable[..., Puller], compression: Compression
) -> None:
    """A decoder's state does not outlive the process, so what it had written would only take room."""
    blob = ENCODERS[compression](noise(3 * PIECE))
    source.stalls_at = 2 * PIECE
    shared = pulling()
    with shared.pull(source, [LayerWant(source.add(blob), compression)], write_mode=WriteMode.BUFFERED) as stopped:
        while not any(path.stat().st_size for path in store.root.glob("ingest/*/data")):
            time.sleep(0.01)
        threading.Timer(0.05, shared.close).start()
        with pytest.raises(UnavailableError):
            stopped.wait(PATIENCE)
    assert shared.close(5)
    assert left(store) == []


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


def test_a_folder_of_content_that_is_gone_is_the_disks_fault(store: Store, source: MemorySource, pulling: Callable[..., Puller]) -> None:
    """Whoever took it away hears of the disk, and not of a bug; nothing was asked of the source."""
    (store.root / "content" / "sha256").rmdir()
    with pytest.raises(DiskMissingError, match="content/sha256"):
        pulling().pull(source, [LayerWant(source.add(noise(8000)))], write_mode=WriteMode.BUFFERED)
    assert source.opened == []


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
