"""State: what is recorded is read back, also by the next process, and content is kept exactly while something names it."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from csi_model.errors import BusyError, ConflictError
from csi_model.oci.digest import Digest
from csi_model.store.records import LayerRecord, ModelLayer, ModelRecord, Publication, ViewRecord
from csi_model.store.state import State
from csi_model.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MANIFEST, OTHER = Digest.of(b"manifest"), Digest.of(b"other manifest")
CONFIG, RAW, TAR, GZIP = Digest.of(b"config"), Digest.of(b"raw"), Digest.of(b"tar"), Digest.of(b"gzip")
MODEL = ModelRecord(
    MANIFEST,
    "OCI image",
    1234,
    authenticated=True,
    layers=(ModelLayer(RAW, "none", RAW), ModelLayer(GZIP, "gzip", TAR)),
    documents=(CONFIG,),
)
PUBLICATION = Publication("/pods/a/mount", "volume-a", "registry.example/m:v1", MANIFEST, "view1", "models", ("*.bin",), ("a,b", "ü"), 5.5)
VIEW = ViewRecord("view1", MANIFEST, "erofs-direct", "models", ("*.bin",), (), 10**12, 17, 9.25)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state.db") as opened:
        yield opened


def test_layers_are_remembered_by_blob_and_compression(state: State) -> None:
    """The same blob read in two ways is two records; recording again replaces."""
    state.record_layer(GZIP, "gzip", TAR, 100, bytes(16))
    state.record_layer(GZIP, "none", GZIP, 50, b"")
    state.record_layer(GZIP, "none", GZIP, 50, bytes(range(16)))
    assert state.layer(GZIP, "gzip") == LayerRecord(TAR, 100, bytes(16))
    assert state.layer(GZIP, "none") == LayerRecord(GZIP, 50, bytes(range(16)))
    assert state.layer(RAW, "none") is None
    assert sorted(state.sizes()) == sorted([(TAR, 100), (GZIP, 50)])
    state.forget_contents([TAR])
    assert state.layer(GZIP, "gzip") is None
    assert state.sizes() == ((GZIP, 50),)


def test_a_layers_guards_grow_until_it_is_anybodys(state: State) -> None:
    """Each repository that delivered a private layer is remembered, a model tells those of its layers, and one open one ends it."""
    state.record_layer(GZIP, "gzip", TAR, 100, b"", guard="a.example/x")
    state.record_model(ModelRecord(MANIFEST, "OCI image", 100, authenticated=True, layers=(ModelLayer(GZIP, "gzip", TAR),)))
    state.vouch(GZIP, "gzip", "b.example/y")
    assert not state.is_anybodys(MANIFEST)
    assert state.guards(MANIFEST) == (frozenset({"a.example/x", "b.example/y"}),)
    state.vouch(GZIP, "gzip", None)
    state.vouch(GZIP, "gzip", "c.example/z")
    assert state.guards(MANIFEST) == ()
    assert not state.is_anybodys(MANIFEST), "its manifest took credentials"
    record = state.layer(GZIP, "gzip")
    assert record is not None
    assert record.guards == frozenset()


def test_a_model_is_anybodys_when_nothing_of_it_took_credentials(state: State) -> None:
    """Neither a manifest nor a layer that only credentials brought is; nor is what was never pulled."""
    assert not state.is_anybodys(MANIFEST)
    state.record_layer(GZIP, "gzip", TAR, 100, b"", guard="a.example/x")
    state.record_model(ModelRecord(MANIFEST, "OCI image", 100, authenticated=False, layers=(ModelLayer(GZIP, "gzip", TAR),)))
    assert not state.is_anybodys(MANIFEST)
    state.vouch(GZIP, "gzip", None)
    assert state.is_anybodys(MANIFEST)


def test_models_are_remembered_whole(state: State) -> None:
    """A model comes back equal, layers in order."""
    state.record_model(MODEL)
    state.record_model(replace(MODEL, manifest=OTHER, authenticated=False, layers=(), documents=(), last_used=7.0))
    assert state.model(MANIFEST) == MODEL
    assert {model.manifest for model in state.models()} == {MANIFEST, OTHER}
    assert state.model(RAW) is None


def test_a_model_recorded_again_keeps_its_pulled_layers_and_last_use(state: State) -> None:
    """A view that leaves a layer out does not make the store forget that an earlier one had it pulled; what was anybody's stays so."""
    state.record_model(MODEL)
    state.record_model(replace(MODEL, last_used=50.0))
    state.record_model(replace(MODEL, last_used=40.0))
    state.record_model(replace(MODEL, layers=(ModelLayer(RAW, "none"), ModelLayer(GZIP, "gzip", TAR)), authenticated=False))
    assert state.model(MANIFEST) == replace(MODEL, authenticated=False, last_used=50.0)
    state.record_model(replace(MODEL, layers=(ModelLayer(GZIP, "none"),), documents=()))
    assert state.model(MANIFEST) == replace(MODEL, layers=(ModelLayer(GZIP, "none"),), documents=(), authenticated=False, last_used=50.0)


def test_the_first_pin_stays(state: State) -> None:
    """A volume keeps the manifest of its first publish though the tag moves, each reference for itself, until it is unpinned."""
    assert state.pinned("v", "r:v1") is None
    assert state.pin_volume("v", "r:v1", MANIFEST) == MANIFEST
    assert state.pin_volume("v", "r:v1", OTHER) == MANIFEST
    assert state.pin_volume("v", "r:v2", OTHER) == OTHER
    assert state.pinned("v", "r:v1") == MANIFEST
    state.unpin("other")
    assert state.pinned("v", "r:v2") == OTHER
    state.unpin("v")
    assert state.pinned("v", "r:v1") is None
    assert state.pinned("v", "r:v2") is None


def test_old_pins_of_unpublished_volumes_go(state: State) -> None:
    """A pin whose pod never came back is forgotten by its age; one of a published volume is kept."""
    state.publish(PUBLICATION)
    state.pin_volume("waiting", "r:v1", MANIFEST)
    state.unpin_older(time.time() - 60)
    assert state.pinned("waiting", "r:v1") == MANIFEST
    state.unpin_older(time.time() + 60)
    assert state.pinned("waiting", "r:v1") is None
    assert state.pinned(PUBLICATION.volume_id, PUBLICATION.reference) == PUBLICATION.manifest


def test_a_publication_pins_and_touches(state: State) -> None:
    """One publish records the target, the volume's pin and the model's last use."""
    state.record_model(MODEL)
    state.publish(PUBLICATION)
    assert state.publication(PUBLICATION.target) == PUBLICATION
    assert state.publications() == (PUBLICATION,)
    assert state.pinned("volume-a", PUBLICATION.reference) == MANIFEST
    model = state.model(MANIFEST)
    assert model is not None
    assert model.last_used == 5.5


def test_a_publication_against_the_pin_changes_nothing(state: State) -> None:
    """Showing another manifest than the volume is pinned to is refused, and no part of it is recorded."""
    state.pin_volume("volume-a", PUBLICATION.reference, OTHER)
    with pytest.raises(ConflictError, match=f"volume volume-a is pinned to {OTHER}"):
        state.publish(PUBLICATION)
    assert state.publications() == ()
    assert state.pinned("volume-a", PUBLICATION.reference) == OTHER


def test_the_pin_goes_with_the_last_target(state: State) -> None:
    """A volume at two targets keeps its pin until both are unpublished."""
    second = replace(PUBLICATION, target="/pods/b/mount")
    state.publish(PUBLICATION)
    state.publish(second)
    assert state.unpublish(PUBLICATION.target) == PUBLICATION
    assert state.pinned("volume-a", PUBLICATION.reference) == MANIFEST
    assert state.unpublish(second.target) == second
    assert state.pinned("volume-a", PUBLICATION.reference) is None
    assert state.unpublish(second.target) is None


def test_a_target_taken_over_frees_the_former_volume(state: State) -> None:
    """When another volume is published at the same target, the one that was there loses its pin with its last target."""
    state.publish(PUBLICATION)
    taken = replace(PUBLICATION, volume_id="volume-b", manifest=OTHER)
    state.publish(taken)
    assert state.publications() == (taken,)
    assert state.pinned("volume-a", PUBLICATION.reference) is None
    assert state.pinned("volume-b", PUBLICATION.reference) == OTHER
    state.publish(replace(taken, when=9.0))
    assert state.pinned("volume-b", PUBLICATION.reference) == OTHER


def test_views_are_remembered(state: State) -> None:
    """A view comes back equal, and goes when forgotten, or with its model."""
    state.record_view(VIEW)
    assert state.view("view1") == VIEW
    assert state.views() == (VIEW,)
    state.forget_view("view1")
    assert state.view("view1") is None
    state.record_model(MODEL)
    state.record_view(VIEW)
    state.forget_model(MANIFEST)
    assert state.views() == ()
    assert state.models() == ()


def test_contents_of_a_model_are_all_it_needs(state: State) -> None:
    """Manifest, documents and layer files; a layer whose content the model does not tell is found by its layer record."""
    state.record_model(MODEL)
    assert state.contents_of([MANIFEST]) == {MANIFEST, CONFIG, RAW, TAR}
    state.record_model(replace(MODEL, manifest=OTHER, layers=(ModelLayer(GZIP, "gzip"), ModelLayer(RAW, "none")), documents=()))
    assert state.contents_of([OTHER]) == {OTHER, GZIP, RAW}
    state.record_layer(GZIP, "gzip", TAR, 100, b"")
    assert state.contents_of([OTHER]) == {OTHER, TAR, RAW}
    assert state.contents_of([]) == frozenset()
    state.forget_model(MANIFEST)
    assert state.contents_of([MANIFEST]) == {MANIFEST}


def test_a_thousand_layers_are_one_question(state: State) -> None:
    """The contents of many models are found without a limit on how many can be asked for."""
    layers = tuple(ModelLayer(Digest.of(b"%d" % n), "none", Digest.of(b"%d" % n)) for n in range(1000))
    manifests = [Digest.of(b"m%d" % n) for n in range(50)]
    for manifest in manifests:
        state.record_model(replace(MODEL, manifest=manifest, layers=layers))
    assert len(state.contents_of(manifests)) == 50 + 1 + 1000


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    """What was recorded is there when the next process opens the same file."""
    with State.open(tmp_path / "state.db") as state:
        state.record_model(MODEL)
        state.record_view(VIEW)
        state.publish(PUBLICATION)
    with State.open(tmp_path / "state.db") as state:
        assert state.publications() == (PUBLICATION,)
        assert state.views() == (VIEW,)
        assert state.integrity() == ()


def test_a_reader_cannot_write(tmp_path: Path, state: State) -> None:
    """A second opening that only reads sees every change at once, and is refused each change of its own."""
    with State.open_for_reading(tmp_path / "state.db") as reader:
        state.publish(PUBLICATION)
        assert reader.publications() == (PUBLICATION,)
        with pytest.raises(BusyError, match="reading only"):
            reader.unpublish(PUBLICATION.target)
    assert state.publications() == (PUBLICATION,)


def test_110_publishes_at_once(state: State) -> None:
    """110 threads that publish at the same moment all succeed, quickly, while others read, and no record is lost."""
    errors: list[BaseException] = []
    start = threading.Barrier(111)

    def publish(number: int) -> None:
        try:
            start.wait()
            state.publish(replace(PUBLICATION, target=f"/pods/{number}", volume_id=f"volume-{number}"))
            assert state.publication(f"/pods/{number}") is not None
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(110)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(state.publications()) == 110
    assert time.monotonic() - began < 5  # 0.1 s on an idle machine


@pytest.mark.parametrize(("step", "there"), [("state.begun", False), ("state.committed", True)])
def test_a_killed_transaction_is_whole_or_absent(step: str, *, there: bool, root: Path, killed_at: Callable[[str, str], None]) -> None:
    """A publish killed before its commit leaves neither publication nor pin; killed after it, both."""
    killed_at(step, f"store.state.publish({PUBLICATION!r})")
    with Store.open(root, writable=True) as store:
        assert store.state.publications() == ((PUBLICATION,) if there else ())
        assert store.state.pinned("volume-a", PUBLICATION.reference) == (MANIFEST if there else None)


_VOLUMES = st.sampled_from(["v1", "v2"])
_REFERENCES = st.sampled_from(["r:a", "r:b"])
_MANIFESTS = st.sampled_from([Digest.of(b"m1"), Digest.of(b"m2"), Digest.of(b"m3")])
_TARGETS = st.sampled_from(["/t1", "/t2", "/t3"])


class StateMachine(RuleBasedStateMachine):
    """References, pins, publications and restarts in any order, against plain dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="state-machine-"))
        self.state = State.open(self.root / "state.db")
        self.resolutions: dict[str, Digest] = {}
        self.pins: dict[tuple[str, str], Digest] = {}
        self.published: dict[str, Publication] = {}

    def teardown(self) -> None:
        self.state.close()
        shutil.rmtree(self.root)

    def held(self, but: str = "") -> set[Digest]:
        named = {manifest for reference, manifest in self.resolutions.items() if reference != but}
        pinned = {manifest for (_, reference), manifest in self.pins.items() if reference != but}
        return named | pinned | {record.manifest for record in self.published.values()}

    @rule(reference=_REFERENCES, manifest=_MANIFESTS)
    def resolve(self, reference: str, manifest: Digest) -> None:
        self.state.record_resolution(reference, manifest, 1.0)
        self.resolutions[reference] = manifest

    @rule(reference=_REFERENCES)
    def forget(self, reference: str) -> None:
        assert self.state.held(but=reference) == self.held(but=reference)
        self.state.forget(reference)
        self.resolutions.pop(reference, None)
        published = {record.volume_id for record in self.published.values()}
        self.pins = {key: manifest for key, manifest in self.pins.items() if key[1] != reference or key[0] in published}

    @rule(volume=_VOLUMES, reference=_REFERENCES, manifest=_MANIFESTS)
    def pin(self, volume: str, reference: str, manifest: Digest) -> None:
        assert self.state.pin_volume(volume, reference, manifest) == self.pins.setdefault((volume, reference), manifest)

    @rule(volume=_VOLUMES)
    def unpin(self, volume: str) -> None:
        self.state.unpin(volume)
        self._drop_pins(volume)

    @rule(where=_TARGETS, volume=_VOLUMES, reference=_REFERENCES, manifest=_MANIFESTS)
    def publish(self, where: str, volume: str, reference: str, manifest: Digest) -> None:
        record = Publication(where, volume, reference, manifest, "view", "", (), (), 1.0)
        if self.pins.get((volume, reference), manifest) != manifest:
            with pytest.raises(ConflictError):
                self.state.publish(record)
            return
        self.state.publish(record)
        self.pins[volume, reference] = manifest
        former = self.published.get(where)
        self.published[where] = record
        if former:
            self._drop_pins(former.volume_id)

    @rule(where=_TARGETS)
    def unpublish(self, where: str) -> None:
        former = self.published.pop(where, None)
        assert self.state.unpublish(where) == former
        if former:
            self._drop_pins(former.volume_id)

    def _drop_pins(self, volume: str) -> None:
        if all(record.volume_id != volume for record in self.published.values()):
            self.pins = {key: manifest for key, manifest in self.pins.items() if key[0] != volume}

    @rule()
    def restart(self) -> None:
        self.state.close()
        self.state = State.open(self.root / "state.db")

    @invariant()
    def records_equal_the_dicts(self) -> None:
        assert {record.reference: record.manifest for record in self.state.resolutions()} == self.resolutions
        assert {record.target: record for record in self.state.publications()} == self.published
        for volume in ("v1", "v2"):
            for reference in ("r:a", "r:b"):
                assert self.state.pinned(volume, reference) == self.pins.get((volume, reference))

    @invariant()
    def what_is_named_is_held(self) -> None:
        assert self.state.held() == self.held()


TestStateMachine = StateMachine.TestCase
TestStateMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
