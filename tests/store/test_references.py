"""What references name, by which answer, and what is held by it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from csi_model.oci.digest import Digest
from csi_model.store.records import Publication, Resolution
from csi_model.store.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
PUBLICATION = Publication("/t", "volume-a", "r:v1", OLD, "view1", "", (), (), 1.0)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.open(tmp_path / "state.db") as state:
        yield state


def test_the_latest_answer_counts(state: State) -> None:
    """A tag that moved names its new manifest, also when the answer of before is recorded last, after a slow pull."""
    state.record_resolution("r:v1", OLD, 1.0)
    state.record_resolution("r:v1", NEW, 2.0)
    assert state.resolutions() == (Resolution("r:v1", NEW, 2.0),)
    state.record_resolution("r:v1", OLD, 1.5)
    assert state.resolution("r:v1") == Resolution("r:v1", NEW, 2.0)
    assert state.resolution("r:v2") is None


def test_a_clock_that_was_ahead_does_not_freeze_a_tag(state: State) -> None:
    """An answer from the future, recorded before the clock was set right, gives way to the next."""
    now = time.time()
    state.record_resolution("r:v1", OLD, now + 1e6)
    state.record_resolution("r:v1", NEW, now)
    assert state.resolution("r:v1") == Resolution("r:v1", NEW, now)


def test_what_nobody_asked_for_counts_least(state: State) -> None:
    """A pinned manifest is what the reference names only until there is any answer."""
    state.assume_resolution("r:v1", OLD)
    assert state.resolution("r:v1") == Resolution("r:v1", OLD, 0.0)
    state.record_resolution("r:v1", NEW, 1.0)
    state.assume_resolution("r:v1", OLD)
    assert state.resolution("r:v1") == Resolution("r:v1", NEW, 1.0)


def test_a_manifest_is_held_by_whatever_names_it(state: State) -> None:
    """By a reference, a volume's pin or a publication; with one reference left out, by the others, its pins left out too."""
    assert state.held() == frozenset()
    state.record_resolution("r:v1", OLD, 1.0)
    assert state.held() == state.held(but="r:v2") == {OLD}
    assert state.held(but="r:v1") == frozenset()
    state.record_resolution("r:v2", OLD, 1.0)
    assert state.held(but="r:v1") == {OLD}
    state.forget("r:v2")
    state.pin_volume("waits", "r:v1", OLD)
    assert state.held(but="r:v1") == frozenset()
    state.pin_volume("other", "r:v3", OLD)
    assert state.held(but="r:v1") == {OLD}
    state.unpin("other")
    state.publish(PUBLICATION)
    assert state.held(but="r:v1") == {OLD}


def test_a_forgotten_reference_means_nothing_to_volumes_that_wait(state: State) -> None:
    """Its pins go with it, but for those of published volumes, which show what is pinned."""
    state.record_resolution("r:v1", OLD, 1.0)
    state.pin_volume("waits", "r:v1", OLD)
    state.pin_volume("waits", "r:v2", NEW)
    state.publish(PUBLICATION)
    state.forget("r:v1")
    assert state.resolution("r:v1") is None
    assert state.pinned("waits", "r:v1") is None
    assert state.pinned("waits", "r:v2") == NEW
    assert state.pinned("volume-a", "r:v1") == OLD
