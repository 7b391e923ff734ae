"""Removal: what is in use stays, what nothing needs goes, and what failed half-way can be done again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import BusyError, MountError, NotFoundError
from csi_model.oci.reference import parse_reference
from csi_model.volumes import catalog
from tests.fakes.models import push_artifact

if TYPE_CHECKING:
    from tests.fakes.registry import FakeRegistry
    from tests.volumes.conftest import Node

pytestmark = pytest.mark.root

WEIGHTS = os.urandom(100_000)
FILES = {"config.json": b"{}", "model.bin": WEIGHTS}


def _remove(node: Node, reference: str) -> int:
    assert node.engine is not None
    return catalog.remove(node.engine.store, node.engine.views, parse_reference(reference))


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
