"""Idle connections: kept for a while, and no longer, whatever becomes of their hosts."""

from __future__ import annotations

import gc
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model.oci.reference import Reference, parse_reference
from csi_model.registry import transport as transports
from csi_model.sources.registry import RegistrySource
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from csi_model.registry.transport import Transport
    from tests.registry.conftest import Kit


def use(transport: Transport, registry: FakeRegistry, read: Callable[..., bytes]) -> None:
    reference = parse_reference(f"{registry.host}/llm/tiny:v1")
    assert isinstance(reference, Reference)
    assert read(RegistrySource(transport, reference), registry.add_blob(b"weights")) == b"weights"


def kept(transport: Transport) -> int:
    assert all(transport._idle.values()), "an origin without connections is not remembered"
    return sum(map(len, transport._idle.values()))


def sockets() -> int:
    gc.collect()
    return sum(os.path.realpath(entry).rpartition("/")[2].startswith("socket:") for entry in Path("/proc/self/fd").iterdir())


def test_connections_of_hosts_that_are_never_asked_again_are_closed(
    kit: Kit, read: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When any connection is given back, those of all hosts that have been idle for too long are closed, and their hosts forgotten."""
    transport = kit.transport()
    with ExitStack() as stack:
        first, *others, last = [stack.enter_context(FakeRegistry()) for _ in range(6)]
        for registry in (first, *others):
            use(transport, registry, read)
        assert kept(transport) == 5
        before = sockets()
        monkeypatch.setattr(transports, "_IDLE_SECONDS", 0.05)
        time.sleep(0.1)
        use(transport, last, read)
        assert kept(transport) == 1
        deadline = time.monotonic() + 5
        while sockets() > before - 8 + 2 and time.monotonic() < deadline:  # both ends of a connection are ours here
            time.sleep(0.01)
        assert sockets() <= before - 8


def test_the_process_keeps_a_limited_number(kit: Kit, read: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit the connection that has been idle for longest makes room."""
    monkeypatch.setattr(transports, "_IDLE_MOST", 3)
    transport = kit.transport()
    with ExitStack() as stack:
        registries = [stack.enter_context(FakeRegistry()) for _ in range(5)]
        for registry in registries:
            use(transport, registry, read)
        assert kept(transport) == 3
        use(transport, registries[-1], read)
        assert registries[-1].connections == 1
        use(transport, registries[0], read)
        assert registries[0].connections == 2
