from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_model.errors import (
    CsiModelError,
    DeniedError,
    InvalidRequestError,
    NotFoundError,
    RegistryDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from csi_model.registry.credentials import Credential
from csi_model.registry.problems import one_line
from csi_model.sources.registry import RegistrySource
from tests.fakes.registry import BasicAuth, FakeRegistry, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.registry.conftest import Kit

ME = Credential("me", "canary")


def test_redirect_to_another_host_bears_no_authorization(kit: Kit, read: Callable[..., bytes]) -> None:
    """Storage on another host serves the blob, keeps the Range, and never sees the registry's credentials."""
    with FakeRegistry() as storage, FakeRegistry(auth=BasicAuth({"me": "canary"})) as registry:
        blob = registry.add_blob(b"0123456789")
        storage.add_blob(b"0123456789")
        source = kit.source(registry, ME)
        read(source, blob)
        registry.add_fault(Fault(redirect=storage.url + "{path}?signature=secret"))
        assert read(source, blob, offset=2, length=3) == b"234"
        assert registry.seen[-1].headers["authorization"].startswith("Basic ")
        assert storage.seen[-1].headers["range"] == "bytes=2-4"
        assert all("authorization" not in seen.headers for seen in storage.seen)


def test_redirect_on_the_same_origin_keeps_authorization(kit: Kit, read: Callable[..., bytes]) -> None:
    """A redirect that stays with the registry is still the registry."""
    with FakeRegistry(auth=BasicAuth({"me": "canary"})) as registry:
        blob = registry.add_blob(b"0123456789")
        source = kit.source(registry, ME)
        registry.add_fault(Fault(where="/llm/tiny/", redirect=f"/v2/moved/blobs/{blob.digest}"))
        assert read(source, blob) == b"0123456789"


def test_host_that_sends_us_back_to_the_registry(kit: Kit) -> None:
    """Another host cannot choose a path of the registry that is then asked for with our credentials."""
    with FakeRegistry() as evil, FakeRegistry(auth=BasicAuth({"me": "canary"})) as registry:
        blob = registry.add_blob(b"0123456789")
        source = kit.source(registry, ME)
        with pytest.raises(NotFoundError):
            source.resolve(kit.reference(registry))
        registry.add_fault(Fault(where="/llm/tiny/blobs/", redirect=evil.url + "/x"))
        evil.add_fault(Fault(where="/x", redirect=f"{registry.url}/v2/secret/blobs/{blob.digest}"))
        reader = source.open(blob)
        with pytest.raises(UnauthenticatedError):
            reader.readinto(memoryview(bytearray(10)))
        asked = registry.requests("/secret/")
        assert asked
        assert all("authorization" not in seen.headers for seen in asked)


@pytest.mark.parametrize(("status", "error"), [(401, UnauthenticatedError), (403, DeniedError)])
def test_another_host_that_asks_for_credentials_gets_none(kit: Kit, status: int, error: type[CsiModelError]) -> None:
    """A host behind a redirect may ask; nothing is sent to it, the registry is asked once for a new address, and the pull fails."""
    with FakeRegistry() as evil, FakeRegistry(auth=BasicAuth({"me": "canary"})) as registry:
        blob = registry.add_blob(b"0123456789")
        source = kit.source(registry, ME)
        with pytest.raises(NotFoundError):
            source.resolve(kit.reference(registry))
        registry.add_fault(Fault(redirect=evil.url + "{path}"))
        evil.add_fault(Fault(where="", status=status, headers={"WWW-Authenticate": "Basic realm=evil"}))
        reader = source.open(blob)
        with pytest.raises(error, match=evil.host):
            reader.readinto(memoryview(bytearray(10)))
        assert len(evil.seen) == 2
        assert all("authorization" not in seen.headers for seen in evil.seen)


def test_signed_url_that_ran_out(kit: Kit, registry: FakeRegistry, read: Callable[..., bytes]) -> None:
    """When storage refuses a signed URL, the registry is asked for a new one."""
    with FakeRegistry() as storage:
        blob = registry.add_blob(b"0123456789")
        storage.add_blob(b"0123456789")
        storage.add_fault(Fault(where="old", status=403))
        registry.add_fault(Fault(times=1, redirect=storage.url + "{path}?old"))
        registry.add_fault(Fault(times=1, redirect=storage.url + "{path}?new"))
        assert read(kit.source(registry), blob) == b"0123456789"


def test_redirects_without_end(kit: Kit, registry: FakeRegistry, read: Callable[..., bytes]) -> None:
    """A circle of redirects ends."""
    blob = registry.add_blob(b"0123456789")
    registry.add_fault(Fault(redirect="{path}"))
    with pytest.raises(UnavailableError, match="redirects more than 5"):
        read(kit.source(registry), blob)
    assert len(registry.seen) == 6


@pytest.mark.parametrize("location", ["ftp://other/x", "http://u:p@127.0.0.1/x", "http://[/"])
def test_redirects_that_are_not_followed(kit: Kit, registry: FakeRegistry, read: Callable[..., bytes], location: str) -> None:
    """Other protocols, URLs with users in them, and nonsense are refused at once."""
    blob = registry.add_blob(b"0123456789")
    registry.add_fault(Fault(redirect=location))
    with pytest.raises(DeniedError):
        read(kit.source(registry), blob)
    assert len(registry.seen) == 1


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (400, InvalidRequestError, "fake 400"),
        (403, RegistryDeniedError, "permission to pull"),
        (404, NotFoundError, "llm/tiny:v1 does not exist"),
        (418, UnavailableError, "418"),
        (500, UnavailableError, "500"),
    ],
)
def test_statuses(kit: Kit, registry: FakeRegistry, status: int, error: type[CsiModelError], text: str) -> None:
    """Each status becomes the right error, which names the reference."""
    registry.add_fault(Fault(where="/manifests/", status=status, method="GET"))
    registry.head_status = 405
    registry.add_manifest("llm/tiny", b"{}", tag="v1")
    with pytest.raises(error, match=text) as caught:
        kit.source(registry).resolve(kit.reference(registry))
    assert "llm/tiny:v1" in str(caught.value)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_failures_are_retried(kit: Kit, registry: FakeRegistry, read: Callable[..., bytes], status: int) -> None:
    """Overload and upsets of a registry are waited out."""
    blob = registry.add_blob(b"0123456789")
    registry.add_fault(Fault(times=3, status=status, headers={"Retry-After": "0"}))
    assert read(kit.source(registry), blob) == b"0123456789"
    assert len(registry.seen) == 4


@pytest.mark.parametrize("status", [429, 503])
def test_failures_that_do_not_pass(kit: Kit, registry: FakeRegistry, read: Callable[..., bytes], status: int) -> None:
    """After the retries the failure is Unavailable, with what the registry said."""
    blob = registry.add_blob(b"0123456789")
    registry.add_fault(Fault(status=status))
    with pytest.raises(UnavailableError, match=f"fake {status}"):
        read(kit.source(registry), blob)
    assert len(registry.seen) == 4


def test_retry_after_is_obeyed(kit: Kit, registry: FakeRegistry, read: Callable[..., bytes]) -> None:
    """The registry is left alone for as long as it asked, or no more if that is longer than we wait."""
    import time

    blob = registry.add_blob(b"0123456789")
    registry.add_fault(Fault(times=1, status=429, headers={"Retry-After": "1"}))
    started = time.monotonic()
    assert read(kit.source(registry, retry_after_limit=1.0), blob) == b"0123456789"
    assert 1 <= time.monotonic() - started < 5
    registry.add_fault(Fault(status=429, headers={"Retry-After": "7200"}))
    asked = len(registry.seen)
    with pytest.raises(UnavailableError, match="a pause of 7200 s"):
        read(kit.source(registry, retry_after_limit=1.0), blob)
    assert len(registry.seen) == asked + 1


@pytest.mark.parametrize("fault", [Fault(times=2, hang_up=True), Fault(times=2, delay=0.6)], ids=["hang up", "silence"])
def test_registry_that_does_not_answer(kit: Kit, registry: FakeRegistry, read: Callable[..., bytes], fault: Fault) -> None:
    """A connection that breaks or stays silent before the headers is tried again."""
    blob = registry.add_blob(b"0123456789")
    registry.add_fault(fault)
    assert read(kit.source(registry), blob) == b"0123456789"


def test_silent_registry_is_unavailable(kit: Kit, registry: FakeRegistry) -> None:
    """Silence ends in Unavailable after the configured time and retries, and says so."""
    registry.add_fault(Fault(where="/manifests/", delay=5))
    with pytest.raises(UnavailableError, match=r"sent nothing, or next to nothing, for 0\.05 s"):
        kit.source(registry, stall_timeout=0.05, retries=1).resolve(kit.reference(registry))


def test_what_a_registry_says_is_made_harmless(kit: Kit, registry: FakeRegistry) -> None:
    """A stranger's text comes to one short printable line, and a body that is not JSON to none."""
    assert one_line("a\x1b[31m\nb\t\u202e  c" + "d" * 500) == ("a [31m b c" + "d" * 500)[:199] + "…"
    registry.head_status = 405
    registry.add_manifest("llm/tiny", b"{}", tag="v1")
    registry.add_fault(Fault(where="/manifests/", method="GET", status=404, body=b"<html>\x1b[31m"))
    with pytest.raises(NotFoundError) as caught:
        kit.source(registry).resolve(kit.reference(registry))
    assert "html" not in str(caught.value)


def test_plain_http_is_followed_only_to_hosts_that_were_named(kit: Kit, read: Callable[..., bytes]) -> None:
    """A registry without TLS may send us to another plain host that the configuration names; any other is refused, and the key named."""
    with FakeRegistry() as storage, FakeRegistry() as registry:
        blob = registry.add_blob(b"0123456789")
        storage.add_blob(b"0123456789")
        registry.add_fault(Fault(redirect=storage.url + "{path}"))
        with pytest.raises(DeniedError, match=rf"a redirect to {storage.host}.*registries\.{storage.host}\.plainHttp: true"):
            read(kit.source(registry, loopback_plain_http=False, plain_http=frozenset({registry.host})), blob)
        assert storage.seen == []
        named = frozenset({registry.host, storage.host})
        assert read(kit.source(registry, loopback_plain_http=False, plain_http=named), blob) == b"0123456789"


def test_what_a_registry_points_to_is_not_this_machine(kit: Kit) -> None:
    """A registry out in the world cannot make the node talk to itself or to a metadata service; one on loopback may."""
    with FakeRegistry() as registry:
        blob = registry.add_blob(b"0123456789")
        resolved = {"registry.example": ["127.0.0.1"], "inside.example": ["169.254.169.254"], "me.example": ["127.0.0.1"]}
        from csi_model.oci.reference import Reference
        from csi_model.registry.transport import Transport

        host = f"registry.example:{registry.port}"
        names = ("inside.example", "me.example", "127.0.0.1")
        plain = frozenset({host, *(f"{name}:{registry.port}" for name in names)})
        transport = Transport(kit.transport(plain_http=plain).settings, resolve=lambda name, _port: resolved[name])
        kit.transports.append(transport)
        source = RegistrySource(transport, Reference(host, "llm/tiny", "v1", None))
        for name in names:
            registry.faults = [Fault(redirect=f"http://{name}:{registry.port}/x")]
            reader = source.open(blob)
            with pytest.raises(DeniedError, match="link-local"):
                reader.readinto(memoryview(bytearray(10)))
            reader.close()
