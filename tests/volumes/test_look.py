"""What the observers of a publish are told, over a real store, a registry in this process and real mounts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import NotFoundError, StillPullingError
from csi_model.volumes import flight
from csi_model.volumes.observer import Happening, Mounted, Progressed, Pulled, Pulling
from tests.fakes.models import push_artifact
from tests.fakes.registry import Fault

if TYPE_CHECKING:
    from tests.fakes.registry import FakeRegistry
    from tests.volumes.conftest import Node

pytestmark = pytest.mark.root

FILES = {"config.json": b"{}", "model.bin": b"weights!" * 1000}
SIZE = 8002


def kinds(told: list[Happening]) -> list[type]:
    return [type(happening) for happening in told]


def test_a_cold_publish_tells_its_pull_and_its_mount(node: Node, registry: FakeRegistry) -> None:
    """Source, size, bytes fetched and seconds; then what was mounted; once each, however fast the pull is."""
    told: list[Happening] = []
    reference = push_artifact(registry, "llm/raw", FILES)
    node.publish(reference, tell=told.append)
    pulling, pulled, mounted = (happening for happening in told if not isinstance(happening, Progressed))
    assert pulling == Pulling(f"{registry.host}/llm/raw", SIZE, 0)
    assert isinstance(pulled, Pulled)
    assert (pulled.size, pulled.fetched) == (SIZE, SIZE)
    assert isinstance(mounted, Mounted)
    assert 0 < pulled.seconds <= mounted.seconds < 20
    assert pulled.manifest == mounted.manifest


def test_a_warm_publish_tells_that_nothing_was_fetched(node: Node, registry: FakeRegistry) -> None:
    """The second volume finds the model here; a retry of a live volume tells nothing at all."""
    reference = push_artifact(registry, "llm/raw", FILES)
    node.publish(reference, "a")
    told: list[Happening] = []
    node.publish(reference, "b", tell=told.append)
    assert kinds(told) == [Pulled, Mounted]
    assert isinstance(told[0], Pulled)
    assert (told[0].size, told[0].fetched) == (SIZE, 0)
    node.publish(reference, "b", tell=told.append)
    assert len(told) == 2


def test_a_pull_that_has_nothing_to_fetch_is_not_called_one(node: Node, registry: FakeRegistry) -> None:
    """With pullPolicy Always and every layer here the registry is asked and nothing is pulled."""
    reference = push_artifact(registry, "llm/raw", FILES)
    node.publish(reference, "a")
    told: list[Happening] = []
    node.publish(reference, "b", pullPolicy="Always", tell=told.append)
    assert kinds(told) == [Pulled, Mounted]
    assert isinstance(told[0], Pulled)
    assert told[0].fetched == 0


def test_two_volumes_that_wait_for_one_pull_are_both_told(node: Node, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them hears that it is pulled, how far it is and all that was fetched, though the bytes come once."""
    monkeypatch.setattr(flight, "_LOOK_EVERY", 0.05)
    reference = push_artifact(registry, "llm/raw", FILES)
    registry.faults.append(Fault(drip=(1000, 0.1)))
    told: dict[str, list[Happening]] = {"a": [], "b": []}
    threads = [threading.Thread(target=node.publish, args=(reference, name), kwargs={"tell": told[name].append}) for name in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for heard in told.values():
        assert [kind for kind in kinds(heard) if kind is not Progressed] == [Pulling, Pulled, Mounted]
        assert kinds(heard).count(Progressed) >= 2
        assert [happening.fetched for happening in heard if isinstance(happening, Pulled)] == [SIZE]
    assert registry.body_bytes < 2 * SIZE


def test_a_wait_that_ends_and_its_retry_tell_the_same_pull(node: Node, registry: FakeRegistry) -> None:
    """The first call hears of the pull and then ends; the next one goes on with it: what is here and what it fetches make the whole."""
    reference = push_artifact(registry, "llm/raw", FILES)
    registry.faults.append(Fault(drip=(1000, 0.1)))
    first: list[Happening] = []
    with pytest.raises(StillPullingError, match=r"^still pulling .*/llm/raw: .* of 8.0 kB"):
        node.publish(reference, wait=0.3, tell=first.append)
    assert kinds(first)[:1] == [Pulling]
    assert not {Pulled, Mounted} & set(kinds(first))
    second: list[Happening] = []
    node.publish(reference, tell=second.append)
    pulling, *_, pulled, _mounted = second
    assert isinstance(pulling, Pulling)
    assert isinstance(pulled, Pulled)
    assert 0 < pulling.here < SIZE
    assert pulling.here + pulled.fetched == SIZE
    assert registry.body_bytes < 2 * SIZE


def test_a_publish_that_fails_is_not_told_as_pulled(node: Node, registry: FakeRegistry) -> None:
    """The caller tells the error; the engine tells nothing."""
    told: list[Happening] = []
    with pytest.raises(NotFoundError):
        node.publish(f"{registry.host}/llm/absent:v1", tell=told.append)
    assert told == []
