"""What a tag means to the next volume, when pulls end in another order than they began."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import StillPullingError
from csi_model.oci.digest import Digest
from tests.fakes.models import push_artifact
from tests.fakes.registry import Fault

if TYPE_CHECKING:
    from tests.fakes.registry import FakeRegistry
    from tests.volumes.conftest import Node

pytestmark = pytest.mark.root


@pytest.fixture
def slow(node: Node, registry: FakeRegistry) -> str:
    """A tag that has moved on since a volume, ``a``, began to pull what it named, which goes on; ``b`` has asked since."""
    old = os.urandom(600_000)
    reference = push_artifact(registry, "llm/raw", {"v": old})
    registry.add_fault(Fault(where=f"/blobs/{Digest.of(old)}", drip=(100_000, 0.1), times=1))
    with pytest.raises(StillPullingError):
        node.publish(reference, "a", wait=0.1)
    push_artifact(registry, "llm/raw", {"v": b"new"})
    assert node.publish(reference, "b", pullPolicy="Always", include="v").joinpath("v").read_bytes() == b"new"
    return reference


def test_a_slow_pull_does_not_turn_its_tag_back(node: Node, slow: str) -> None:
    """The answer of before the move, whose pull ends after it, is not what a later volume gets."""
    assert node.engine is not None
    (flight,) = node.engine.models._flights.under_way()
    flight.wait()
    assert node.publish(slow, "c").joinpath("v").read_bytes() == b"new"


def test_a_pinned_pull_does_not_turn_its_tag_back(node: Node, slow: str) -> None:
    """A volume gets what it was pinned to, by a pull that did not ask what the tag names, and nobody else does."""
    assert node.publish(slow, "a").joinpath("v").stat().st_size == 600_000
    assert node.publish(slow, "c").joinpath("v").read_bytes() == b"new"
