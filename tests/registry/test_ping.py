from __future__ import annotations

import pytest

from csi_model.errors import UnavailableError
from csi_model.registry.ping import _ahead, ping
from csi_model.registry.settings import HttpSettings
from tests.fakes.registry import BasicAuth, FakeRegistry, Fault

PLAIN = HttpSettings(loopback_plain_http=True, connect_timeout=2, stall_timeout=2)


def test_a_registry_answers() -> None:
    """One request to /v2/ without credentials tells the status, and that the clocks agree."""
    with FakeRegistry() as registry:
        pong = ping(registry.host, PLAIN)
        assert [(seen.method, seen.path) for seen in registry.seen] == [("GET", "/v2/")]
    assert (pong.status, pong.is_registry, pong.origin) == (200, True, registry.url)
    assert pong.ahead is not None
    assert abs(pong.ahead) < 5


def test_one_that_wants_credentials_is_a_registry() -> None:
    """401 is a registry's answer to a stranger."""
    with FakeRegistry(auth=BasicAuth({"a": "b"})) as registry:
        assert ping(registry.host, PLAIN).is_registry


def test_another_server_is_none() -> None:
    """A page that is not found is no registry."""
    with FakeRegistry() as registry:
        registry.faults.append(Fault(where="/v2/", status=404))
        assert not ping(registry.host, PLAIN).is_registry


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Thu, 01 Jan 2099 00:00:00 GMT", True),
        ("Thu, 01 Jan 2099 00:00:00 -0000", True),
        ("Thu, 01 Jan 1970 00:00:00 GMT", False),
        ("not a date", None),
        ("Thu, 01 Jan 2099 00:00:00 +99999999999999999", None),
        (None, None),
    ],
)
def test_the_clock_is_compared(date: str | None, ahead: bool | None) -> None:  # noqa: FBT001 - a table
    """A Date header from the future says that the registry is ahead, one from the past that it is not; nonsense says nothing."""
    told = _ahead(date)
    assert (told is None) == (ahead is None)
    assert told is None or (told > 0) == ahead


def test_silence_ends() -> None:
    """A server that accepts and says nothing is given up after the stall time-out, without a retry."""
    with FakeRegistry() as registry:
        registry.faults.append(Fault(where="/v2/", delay=10))
        with pytest.raises(UnavailableError):
            ping(registry.host, HttpSettings(loopback_plain_http=True, connect_timeout=1, stall_timeout=0.2))
        assert len(registry.seen) == 1
