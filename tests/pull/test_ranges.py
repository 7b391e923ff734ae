"""Registries that ignore Range: what they send, they send once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from csi_model.oci.reference import Reference, parse_reference
from csi_model.pull import fetch as fetching
from csi_model.pull.fetch import fetch
from csi_model.pull.pool import PIECE, BufferPool
from csi_model.pull.stop import Stop
from csi_model.registry.settings import HttpSettings
from csi_model.registry.transport import Transport
from csi_model.sources.registry import RegistrySource
from tests.fakes.registry import FakeRegistry, Fault
from tests.pull.conftest import noise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_model.oci.descriptor import Descriptor

SIZE = 13 * PIECE + 99
SLOW = (512 << 10, 0.005)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def far(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistrySource]:
    """The registry, all of whose pieces come slowly."""
    monkeypatch.setattr(fetching, "_SLOW_PIECE", 0.0)
    monkeypatch.setattr(fetching, "_WAITING", 0.0)
    monkeypatch.setattr(fetching, "_BUSY", math.inf)
    transport = Transport(HttpSettings(loopback_plain_http=True, retries=3, backoff=0.001, backoff_limit=0.01))
    reference = parse_reference(f"{registry.host}/llm/tiny:v1")
    assert isinstance(reference, Reference)
    yield RegistrySource(transport, reference)
    transport.close()


def fetched(source: RegistrySource, layer: Descriptor) -> bytes:
    pool, data = BufferPool(16), bytearray()
    for piece in fetch(source, layer, offset=0, pool=pool, stop=Stop(), connections=3):
        assert piece.offset == len(data)
        data += piece.view
        piece.release()
    assert pool.lent() == 0
    return bytes(data)


def test_a_slow_registry_that_ignores_ranges_sends_a_blob_once(registry: FakeRegistry, far: RegistrySource) -> None:
    """Slow pieces make nobody read a blob from its beginning for each of its parts: one more request is made, and its body not read."""
    data = noise(SIZE)
    registry.add_fault(Fault(ignore_range=True, drip=SLOW))
    assert fetched(far, registry.add_blob(data)) == data
    assert registry.body_bytes < 1.2 * SIZE
    assert len(registry.requests("/blobs/")) == 2
    other = noise(SIZE, 1)
    assert fetched(far, registry.add_blob(other)) == other
    assert len(registry.requests("/blobs/")) == 3, "what is known of a registry is not asked again"


def test_a_registry_that_delivers_ranges_is_asked_once(registry: FakeRegistry, far: RegistrySource) -> None:
    """The first slow blob costs one request for a byte; then it and all others come over several connections, each byte once."""
    data = noise(SIZE)
    registry.add_fault(Fault(drip=SLOW))
    assert fetched(far, registry.add_blob(data)) == data
    asked = [seen.headers.get("range") for seen in registry.requests("/blobs/")]
    assert asked[:2] == [None, f"bytes={SIZE - 1}-{SIZE - 1}"]
    assert len(asked) > 5
    other = noise(SIZE, 1)
    assert fetched(far, registry.add_blob(other)) == other
    assert [seen.headers.get("range") for seen in registry.requests("/blobs/")].count(f"bytes={SIZE - 1}-{SIZE - 1}") == 1
    assert registry.body_bytes < 2 * 1.2 * SIZE


def test_a_registry_that_ignores_ranges_later_is_read_over_one_connection(registry: FakeRegistry, far: RegistrySource) -> None:
    """One of several servers behind a name that ignores Range ends the window; the rest comes over one connection, skipped to once."""
    data = noise(SIZE)
    registry.add_fault(Fault(drip=SLOW, times=4))
    registry.add_fault(Fault(ignore_range=True, drip=SLOW))
    assert fetched(far, registry.add_blob(data)) == data
    assert registry.body_bytes < 2.5 * SIZE


def test_a_question_without_an_answer_holds_up_nothing(registry: FakeRegistry, far: RegistrySource) -> None:
    """While the request for a byte is not answered, the first connection goes on to the end."""
    data = noise(SIZE)
    registry.add_fault(Fault(drip=SLOW, times=1))
    registry.add_fault(Fault(delay=15.0))
    assert fetched(far, registry.add_blob(data)) == data
    assert registry.body_bytes == SIZE
