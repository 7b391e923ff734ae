"""Removal: what is in use stays, what nothing needs goes, and what failed half-way can be done again."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import BusyError, MountError, NotFoundError, StillPullingError
from csi_model.oci.digest import Digest
from csi_model.oci.reference import parse_reference
from csi_model.volumes import catalog
from tests.fakes.models import push_artifact
from tests.fakes.registry import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.registry import FakeRegistry
    from tests.volumes.conftest import Node

pytestmark = pytest.mark.root

WEIGHTS = os.urandom(100_000)
FILES = {"config.json": b"{}", "model.bin": WEIGHTS}


def _remove(node: Node, reference: str) -> int:
    assert node.engine is not None
    return catalog.remove(node.engine.store, node.engine.views, parse_reference(reference))


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def _contents(node: Node) -> list[object]:
    assert node.engine is not None
    return list(node.engine.store.content.digests())


def test_the_published_reference_stays_though_another_names_its_model(node: Node, registry: FakeRegistry) -> None:
    """Of two tags of one model the one that is published cannot be removed; the other can, and takes nothing with it."""
    first, second = (push_artifact(registry, "llm/raw", FILES, tag=tag) for tag in ("v1", "v2"))
    node.publish(first, "a")
    node.publish(second, "b")
    node.unpublish("b")
    with pytest.raises(BusyError, match=str(node.target("a"))):
        _remove(node, first)
    assert _remove(node, second) == 0
    assert node.target("a").joinpath("model.bin").read_bytes() == WEIGHTS
    with pytest.raises(BusyError):
        _remove(node, first)
    node.unpublish("a")
    assert _remove(node, first) > len(WEIGHTS)
    assert not _contents(node)


@pytest.mark.parametrize("failure", [BusyError("busy"), MountError("refused")])
def test_a_removal_that_failed_is_done_again(
    node: Node, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """The reference is there until all else has gone, so that the next try finds it and frees everything."""
    reference = push_artifact(registry, "llm/raw", FILES)
    node.publish(reference)
    node.unpublish()
    assert node.engine is not None

    def refuse(_: object) -> None:
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(node.engine.views, "remove", refuse)
        with pytest.raises(type(failure)):
            _remove(node, reference)
    assert _remove(node, reference) > len(WEIGHTS)
    assert not _contents(node)
    with pytest.raises(NotFoundError):
        _remove(node, reference)


def test_a_volume_that_never_came_back_keeps_nothing(node: Node, registry: FakeRegistry) -> None:
    """The pin of a pod that waited for the model, and is published nowhere, does not outlive the model's removal."""
    reference = push_artifact(registry, "llm/raw", FILES)
    node.publish(reference)
    node.unpublish()
    assert node.engine is not None
    state = node.engine.store.state
    (model,) = state.models()
    state.pin_volume("gone", reference, model.manifest)
    assert _remove(node, reference) > len(WEIGHTS)
    assert state.pinned("gone", reference) is None
    assert not _contents(node)


def test_what_lost_its_last_name_earlier_goes_too(node: Node, registry: FakeRegistry) -> None:
    """When the tag of a published model moves, the old model has no name of its own: the next removal of anything takes it."""
    reference = push_artifact(registry, "llm/raw", FILES)
    node.publish(reference)
    other = push_artifact(registry, "llm/raw", {"small": b"1"})
    node.publish(other, "b", pullPolicy="Always")
    node.unpublish("a")
    node.unpublish("b")
    assert _remove(node, reference) > len(WEIGHTS)
    assert not _contents(node)
    assert node.engine is not None
    assert not node.engine.store.state.models()
    assert not node.engine.store.state.views()


def _tidied(node: Node, *, days: float = 2) -> list[object]:
    """What is left of content when the driver tidies some days from now."""
    assert node.engine is not None
    node.engine.volumes._tidy(time.time() + days * 86400)
    return _contents(node)


def test_layers_of_a_pull_that_failed_are_tidied_away(node: Node, registry: FakeRegistry) -> None:
    """A model of which one layer cannot be had has no name to remove it by: its other layers go a day after they came."""
    reference = push_artifact(registry, "llm/raw", FILES)
    registry.add_fault(Fault(where=Digest.of(b"{}").hex, status=404, delay=0.5))
    with pytest.raises(NotFoundError):
        node.publish(reference)
    assert _eventually(lambda: Digest.of(WEIGHTS) in _contents(node))
    assert _tidied(node, days=0.9) == [Digest.of(WEIGHTS)]
    assert _tidied(node) == []


def test_a_running_pull_keeps_the_layers_that_it_counts_on(node: Node, registry: FakeRegistry) -> None:
    """A layer that an earlier pull brought, and this one will not fetch again, is not taken from under it, however old it is."""
    assert node.engine is not None
    weights = node.engine.store.content.add(WEIGHTS)
    node.engine.store.state.record_layer(weights, "none", weights, len(WEIGHTS), b"")
    registry.add_fault(Fault(where=Digest.of(b"{}").hex, times=1, stall_after=0))
    reference = push_artifact(registry, "llm/raw", FILES)
    with pytest.raises(StillPullingError):
        node.publish(reference, wait=0)
    assert _eventually(lambda: any(Digest.of(b"{}").hex in seen.path for seen in registry.seen))
    assert weights in _tidied(node)
    assert node.publish(reference).joinpath("model.bin").read_bytes() == WEIGHTS
    assert weights in _tidied(node)


@pytest.mark.parametrize("named", [True, False])
def test_what_is_mounted_without_a_record_stays_whole(node: Node, registry: FakeRegistry, *, named: bool) -> None:
    """A live mount whose publication is lost keeps its files: by its own name the model is refused, by another's it is left."""
    reference = push_artifact(registry, "llm/raw", FILES)
    other = push_artifact(registry, "llm/other", {"small": b"1"})
    target = node.publish(reference)
    node.publish(other, "b")
    node.unpublish("b")
    assert node.engine is not None
    node.engine.store.state.unpublish(str(target))
    if named:
        with pytest.raises(BusyError, match=str(target)):
            _remove(node, reference)
    else:
        node.engine.store.state.forget(reference)
        _remove(node, other)
    assert target.joinpath("model.bin").read_bytes() == WEIGHTS
    node.publish(reference)
    node.unpublish()
