"""Readings of a real engine, and how rarely its files are weighed."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.config.model import Config, Pull, RegistryHost, Views
from csi_model.errors import NotFoundError
from csi_model.metrics.readings import Gauges, Seldom
from csi_model.store.usage import Usage
from tests.fakes.models import push_artifact, push_tars, tar_of
from tests.fakes.registry import FakeRegistry, Fault
from tests.volumes.conftest import Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {"config.json": b"{}", "model.bin": b"weights" * 1000}
SIZE = sum(map(len, FILES.values()))


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def node(tmp_path: Path, registry: FakeRegistry) -> Iterator[Node]:
    (tmp_path / "targets").mkdir()
    config = Config(
        registries={registry.host: RegistryHost(plain_http=True)},
        pull=Pull(retries=0, free_space_reserve=0),
        views=Views(strategy="materialise"),
    )
    node = Node(tmp_path, config)
    with node.running():
        yield node


@pytest.mark.root
def test_an_engine_is_read_as_it_is(node: Node, registry: FakeRegistry) -> None:
    """After a publish and a failed one: a model, its bytes by registry, a mounted view, a publication, a success and a failure."""
    assert node.engine is not None
    gauges = Gauges(node.engine)
    before = gauges.read()
    assert (before.recorded.models, before.pulls.started, before.usage.content) == (0, 0, 0)
    tar = tar_of(FILES)
    node.publish(push_tars(registry, "llm/car", tar))
    with pytest.raises(NotFoundError):
        node.publish(f"{registry.host}/llm/none:v1", "b")
    readings = Gauges(node.engine).read()
    assert (readings.pulls.started, readings.pulls.succeeded, readings.pulls.failed["not_found"], readings.pulls.in_flight) == (2, 1, 1, 0)
    assert readings.pulls.fetched == {registry.host: len(tar)}
    assert readings.recorded.models == readings.recorded.references == readings.recorded.views == readings.recorded.publications == 1
    assert readings.views_mounted == 1
    assert readings.usage.content >= len(tar)
    assert (readings.usage.ingest, readings.usage.views) == (0, SIZE)
    assert (readings.rung, readings.rung_forced) == ("materialise", True)
    assert 0 < readings.disk.free <= readings.disk.total
    assert (readings.publishes_waiting, readings.buffers) == (0, 0)
    assert gauges.read().usage == before.usage, "weighed again within 30 s"


@pytest.mark.root
def test_what_waits_is_seen(node: Node, registry: FakeRegistry) -> None:
    """While a registry is slow, the waiting publish and its pull show; once it has answered they are gone."""
    assert node.engine is not None
    gauges = Gauges(node.engine)
    reference = push_artifact(registry, "llm/raw", FILES)
    registry.add_fault(Fault(delay=1.0))
    thread = threading.Thread(target=node.publish, args=(reference,))
    thread.start()
    end = time.monotonic() + 10
    while not gauges.read().publishes_waiting:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert gauges.read().pulls.in_flight == 1
    thread.join(20)
    assert (gauges.read().publishes_waiting, gauges.read().pulls.in_flight) == (0, 0)


class Weighing:
    """A store whose weight grows by one byte, and takes some time, whenever it is asked for."""

    def __init__(self, seconds: float) -> None:
        self.now = 100.0
        self._seconds = seconds
        self._weighed = 0

    def clock(self) -> float:
        return self.now

    def weigh(self) -> Usage:
        self.now += self._seconds
        self._weighed += 1
        return Usage(self._weighed, 0, 0)


def test_a_store_is_weighed_every_half_minute() -> None:
    """Scrapes in between show the former weight."""
    scales = Weighing(0.01)
    seldom = Seldom(scales.weigh, scales.clock)
    assert [seldom.value().content, seldom.value().content] == [1, 1]
    scales.now += 29
    assert seldom.value().content == 1
    scales.now += 2
    assert seldom.value().content == 2


def test_a_large_store_is_weighed_less_often() -> None:
    """Weighing takes a hundredth of the time at most: one that takes 2 s is not done again before 200 s are over."""
    scales = Weighing(2.0)
    seldom = Seldom(scales.weigh, scales.clock)
    seldom.value()
    scales.now += 199
    assert seldom.value().content == 1
    scales.now += 2
    assert seldom.value().content == 2
