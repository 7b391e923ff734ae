"""Who shares a flight: requests of one registry; nobody waits for, or hears of, what another registry or repository does."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import CorruptContentError, DeniedError
from csi_model.formats.placement import Compression
from csi_model.mount.strategy import WriteMode
from csi_model.oci.digest import Digest
from csi_model.pull.pool import PIECE
from csi_model.pull.puller import LayerWant, Puller
from tests.pull.conftest import ENCODERS, PATIENCE, MemorySource, left, noise, pull

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_model.oci.descriptor import Descriptor
    from csi_model.pull.puller import LayerResult
    from csi_model.store.store import Store
    from tests.pull.conftest import MemoryReader

DATA = noise(3 * PIECE + 5)


class RefusingSource(MemorySource):
    """Refuses its blobs, once it may go."""

    def open(self, descriptor: Descriptor, *, offset: int = 0, length: int | None = None) -> MemoryReader:
        self.opened.append((descriptor.digest, offset, descriptor.size))
        self.go.wait(PATIENCE)
        msg = f"{self.name} refuses mallory"
        raise DeniedError(msg)


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD])
@pytest.mark.parametrize("name", ["evil.example/m", "oci-layout:///models/a"])
def test_a_silent_source_holds_up_nobody_who_has_another(
    store: Store, pulling: Callable[..., Puller], compression: Compression, name: str
) -> None:
    """While one source is silent in the middle of a popular blob, whoever names it elsewhere gets it; both end up with one content."""
    blob = ENCODERS[compression](DATA)
    silent, lively = (
        MemorySource(name=name, stalls_at=PIECE + 9),
        MemorySource(name="oci-layout:///models/b" if ":" in name else "good.example/m"),
    )
    wants = [LayerWant(source.add(blob), compression) for source in (silent, lively)]
    shared = pulling()
    with shared.pull(silent, wants[:1], write_mode=WriteMode.BUFFERED) as stuck:
        while not silent.opened:
            pass
        (layer,) = pull(shared, lively, wants[1])
        assert store.content.path(layer.content).read_bytes() == DATA
        assert stuck.progress().done < len(blob)
        silent.go.set()
        assert stuck.wait(PATIENCE)[0].content == layer.content
    assert left(store) == []
    assert len(list(store.content.digests())) == 1


def test_a_refusing_registry_fails_nobody_else(pulling: Callable[..., Puller]) -> None:
    """What another registry answers is not told to who names the same blob in a good one."""
    refusing, good = RefusingSource(name="evil.example/m"), MemorySource(name="good.example/m")
    shared, want = pulling(), LayerWant(good.add(DATA))
    with shared.pull(refusing, [want], write_mode=WriteMode.BUFFERED) as failing:
        while not refusing.opened:
            pass
        with shared.pull(good, [want], write_mode=WriteMode.BUFFERED) as fine:
            refusing.go.set()
            with pytest.raises(DeniedError, match="mallory"):
                failing.wait(PATIENCE)
            assert fine.wait(PATIENCE)[0].content == want.descriptor.digest


def test_repositories_of_one_registry_share_a_flight(pulling: Callable[..., Puller]) -> None:
    """A layer that two images of a registry have in common is read once, from the first that asked."""
    first, second = MemorySource(name="r.example/a", stalls_at=PIECE), MemorySource(name="r.example/b")
    shared, want = pulling(), LayerWant(first.add(DATA))
    second.add(DATA)
    with (
        shared.pull(first, [want], write_mode=WriteMode.BUFFERED) as one,
        shared.pull(second, [want], write_mode=WriteMode.BUFFERED) as other,
    ):
        first.go.set()
        assert one.wait(PATIENCE) == other.wait(PATIENCE)
    assert (len(first.opened), second.opened) == (1, [])


def test_who_joined_goes_on_alone_when_the_first_fails(pulling: Callable[..., Puller]) -> None:
    """The first repository's refusal is told to who named it, at once; who joined gets the layer from a repository of their own."""
    refusing, slow = RefusingSource(name="r.example/mallory"), MemorySource(name="r.example/b", stalls_at=PIECE)
    shared, want = pulling(), LayerWant(slow.add(DATA))
    with (
        shared.pull(refusing, [want], write_mode=WriteMode.BUFFERED) as failing,
        shared.pull(slow, [want], write_mode=WriteMode.BUFFERED) as joined,
    ):
        refusing.go.set()
        with pytest.raises(DeniedError, match="mallory"):
            failing.wait(PATIENCE)
        slow.go.set()
        assert joined.wait(PATIENCE)[0].content == want.descriptor.digest
    assert len(refusing.opened) == 1


def test_each_of_many_failures_is_told_to_its_own(pulling: Callable[..., Puller]) -> None:
    """When nobody can read a layer, each request fails with what its own repository answered, and the next one begins anew."""
    sources = [RefusingSource(name=f"r.example/{n}") for n in range(3)]
    good = MemorySource(name="r.example/good")
    shared, want = pulling(), LayerWant(good.add(DATA))
    pulls = [shared.pull(source, [want], write_mode=WriteMode.BUFFERED) for source in sources]
    for source in sources:
        source.go.set()
    for number, each in enumerate(pulls):
        with each, pytest.raises(DeniedError, match=f"r.example/{number} refuses"):
            each.wait(PATIENCE)
    pull(shared, good, want)


def test_a_size_that_is_a_lie_fails_the_liar(pulling: Callable[..., Puller]) -> None:
    """A manifest that names a blob with another size than it has shares no flight with an honest one."""
    source = MemorySource(stalls_at=PIECE)
    honest = LayerWant(source.add(DATA))
    lie = LayerWant(dataclasses.replace(honest.descriptor, size=len(DATA) + 1))
    shared = pulling()
    with (
        shared.pull(source, [lie], write_mode=WriteMode.BUFFERED) as liar,
        shared.pull(source, [honest], write_mode=WriteMode.BUFFERED) as fine,
    ):
        source.go.set()
        assert fine.wait(PATIENCE)[0].content == honest.descriptor.digest
        with pytest.raises(CorruptContentError):
            liar.wait(PATIENCE)


def test_two_registries_that_want_credentials_both_keep_their_right(store: Store, pulling: Callable[..., Puller]) -> None:
    """A layer that two registries deliver to credentials at a time is recorded as that of both."""
    first, second = (MemorySource(name=f"{host}.example/m", authenticated=True, stalls_at=PIECE) for host in "ab")
    shared, want = pulling(), LayerWant(first.add(DATA))
    second.add(DATA)
    with (
        shared.pull(first, [want], write_mode=WriteMode.BUFFERED) as one,
        shared.pull(second, [want], write_mode=WriteMode.BUFFERED) as other,
    ):
        for source, each in ((first, one), (second, other)):
            while not source.opened:
                pass
            source.go.set()
            each.wait(PATIENCE)
    record = store.state.layer(want.descriptor.digest, "none")
    assert record is not None
    assert record.guards == {first.name, second.name}


def test_a_layer_that_lands_while_somebody_asks_is_not_pulled_again(
    source: MemorySource, pulling: Callable[..., Puller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flight that ends between a request's look at the disk and its look at the flights has brought what is asked for."""
    shared, want = pulling(), LayerWant(source.add(DATA))
    look, looks = shared._present, list[LayerWant]()

    def landing(wanted: LayerWant) -> LayerResult | None:
        found = look(wanted)
        looks.append(wanted)
        if len(looks) == 1:
            pull(shared, source, want)
        return found

    monkeypatch.setattr(shared, "_present", landing)
    with shared.pull(source, [want], write_mode=WriteMode.BUFFERED) as second:
        assert second.wait(0)[0].content == Digest.of(DATA)
    assert len(source.opened) == 1
