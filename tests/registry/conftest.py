"""A fast client for the fake registry: pauses of a millisecond, and time-outs that a test can wait for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from csi_model.oci.reference import Reference, parse_reference
from csi_model.registry.settings import HttpSettings
from csi_model.registry.transport import Transport
from csi_model.sources.registry import RegistrySource
from tests.fakes.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from csi_model.oci.descriptor import Descriptor
    from csi_model.registry.credentials import Credential

FAST = HttpSettings(
    loopback_plain_http=True, connect_timeout=2, stall_timeout=0.3, retries=3, backoff=0.001, backoff_limit=0.01, retry_after_limit=0.2
)


class Kit:
    """What a test needs to talk to a fake registry."""

    def __init__(self) -> None:
        self.transports: list[Transport] = []

    def transport(self, **changes: Any) -> Transport:
        """A transport with the fast settings, some of them changed; closed when the test ends."""
        transport = Transport(replace(FAST, **changes))
        self.transports.append(transport)
        return transport

    def source(self, registry: FakeRegistry, *credentials: Credential, repository: str = "llm/tiny", **changes: Any) -> RegistrySource:
        """A source for a repository of ``registry``."""
        return RegistrySource(self.transport(**changes), self.reference(registry, repository), credentials)

    @staticmethod
    def reference(registry: FakeRegistry, repository: str = "llm/tiny", suffix: str = ":v1") -> Reference:
        """A reference into ``registry``."""
        reference = parse_reference(f"{registry.host}/{repository}{suffix}")
        assert isinstance(reference, Reference)
        return reference


def read_all(source: RegistrySource, blob: Descriptor, piece: int = 100_000, **part: int) -> bytes:
    """A blob, or a part of it, through a reader, ``piece`` bytes at a time."""
    reader = source.open(blob, offset=part.get("offset", 0), length=part.get("length"))
    buffer, out = memoryview(bytearray(piece)), bytearray()
    try:
        while True:
            reader.wait()
            count = reader.readinto(buffer)
            if not count:
                return bytes(out)
            out += buffer[:count]
    finally:
        reader.close()


@pytest.fixture
def kit() -> Iterator[Kit]:
    """Helpers; closes what they opened."""
    made = Kit()
    yield made
    for transport in made.transports:
        transport.close()


@pytest.fixture
def read() -> Callable[..., bytes]:
    """``read_all``."""
    return read_all


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    """An open registry over plain HTTP."""
    with FakeRegistry() as fake:
        yield fake
