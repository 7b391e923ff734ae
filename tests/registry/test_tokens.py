"""Token servers that redirect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_model.errors import DeniedError, UnauthenticatedError, UnavailableError
from csi_model.oci.reference import Reference
from csi_model.registry.credentials import Credential
from csi_model.registry.transport import Transport
from csi_model.sources.registry import RegistrySource
from tests.fakes.registry import FakeRegistry, Fault, Seen, TokenAuth

if TYPE_CHECKING:
    from collections.abc import Callable

    from csi_model.oci.descriptor import Descriptor
    from tests.registry.conftest import Kit

ME, REFRESH = Credential("me", "canary"), Credential("", "", "canary-refresh")


def auth(*, anonymous: bool = False) -> TokenAuth:
    return TokenAuth({"me": "canary"}, anonymous=anonymous, refresh_tokens=("canary-refresh",))


def private(registry: FakeRegistry, realm: str) -> Descriptor:
    """A blob for which the registry wants a token of ``realm``."""
    assert isinstance(registry.auth, TokenAuth)
    registry.auth.realm = realm
    return registry.add_blob(b"weights")


def asked(registry: FakeRegistry) -> list[tuple[str, str]]:
    """What the token server was asked, without queries."""
    return [(seen.method, seen.path.partition("?")[0]) for seen in registry.requests("/token")]


def bears_secret(seen: Seen) -> bool:
    return "authorization" in seen.headers or b"canary" in seen.body


@pytest.mark.parametrize("credential", [ME, REFRESH], ids=["password", "identity token"])
@pytest.mark.parametrize("status", [307, 308])
def test_the_form_goes_along_within_the_origin(kit: Kit, read: Callable[..., bytes], status: int, credential: Credential) -> None:
    """A token server that moves the form to another path of its own gets it there."""
    with FakeRegistry(auth=auth()) as registry:
        blob = private(registry, f"{registry.url}/token/old")
        registry.add_fault(Fault(where="/token/old", status=status, redirect="/token/new"))
        source = kit.source(registry, credential)
        assert read(source, blob) == b"weights"
        assert source.authenticated
        assert asked(registry) == [("POST", "/token/old"), ("POST", "/token/new")]


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_loses_the_form(kit: Kit, read: Callable[..., bytes], status: int) -> None:
    """Where the method becomes GET, the credential goes with a GET from the start, and with it to the end of the redirects."""
    with FakeRegistry(auth=auth()) as registry:
        blob = private(registry, f"{registry.url}/token/old")
        registry.add_fault(Fault(where="/token/old", status=status, redirect="/token/new"))
        assert read(kit.source(registry, ME), blob) == b"weights"
        assert asked(registry) == [("POST", "/token/old"), ("GET", "/token/old"), ("GET", "/token/new")]
        assert [seen.body for seen in registry.requests("/token/new")] == [b""]


def test_a_redirect_that_loses_an_identity_token(kit: Kit, read: Callable[..., bytes]) -> None:
    """An identity token has no form but the form: where that is lost, the redirect is the failure."""
    with FakeRegistry(auth=auth()) as registry:
        blob = private(registry, f"{registry.url}/token/old")
        registry.add_fault(Fault(where="/token/old", status=302, redirect="/token/new"))
        with pytest.raises(UnavailableError, match="answered 302 for a token"):
            read(kit.source(registry, REFRESH), blob)
        assert asked(registry) == [("POST", "/token/old")]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_anonymous_tokens(kit: Kit, read: Callable[..., bytes], status: int) -> None:
    """A public repository's token server may send us to another origin, for nothing secret goes along."""
    elsewhere = TokenAuth(anonymous=True)
    with FakeRegistry(auth=elsewhere) as tokens, FakeRegistry(auth=auth()) as registry:
        assert isinstance(registry.auth, TokenAuth)
        registry.auth.valid = elsewhere.valid
        blob = private(registry, f"{registry.url}/token/old")
        registry.add_fault(Fault(where="/token/old", status=status, redirect=f"{tokens.url}/token?scope=public"))
        assert read(kit.source(registry), blob) == b"weights"
        assert asked(tokens) == [("GET", "/token")]


@pytest.mark.parametrize("credential", [ME, REFRESH], ids=["password", "identity token"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_secret_leaves_the_origin(kit: Kit, read: Callable[..., bytes], status: int, credential: Credential) -> None:
    """Another origin gets neither the form nor the header, and neither does the first one when it sends us back."""
    with FakeRegistry(auth=auth()) as evil, FakeRegistry(auth=auth()) as registry:
        blob = private(registry, f"{registry.url}/token/old")
        registry.add_fault(Fault(where="/token/old", status=status, redirect=f"{evil.url}/token/evil"))
        evil.add_fault(Fault(where="/token/evil", status=status, redirect=f"{registry.url}/token/back"))
        with pytest.raises((UnauthenticatedError, UnavailableError)):
            read(kit.source(registry, credential), blob)
        assert not any(bears_secret(seen) for seen in (*evil.seen, *registry.requests("/token/back")))
        assert [bears_secret(seen) for seen in registry.requests("/token/old")] == [True] * (2 if credential is ME else 1)
        assert asked(evil) == ([("GET", "/token/evil")] if credential is ME else [])


def test_redirects_without_end(kit: Kit, read: Callable[..., bytes]) -> None:
    """A circle of redirects of a token server ends."""
    with FakeRegistry(auth=auth()) as registry:
        blob = private(registry, f"{registry.url}/token")
        registry.add_fault(Fault(where="/token", redirect="/token"))
        with pytest.raises(UnavailableError, match="redirects more than 5 times for a token"):
            read(kit.source(registry, ME), blob)
        assert asked(registry) == [("POST", "/token")] * 6


@pytest.mark.parametrize("credential", [ME, None], ids=["form", "anonymous"])
def test_plain_http_is_followed_only_to_hosts_that_were_named(kit: Kit, read: Callable[..., bytes], credential: Credential | None) -> None:
    """A token server without TLS sends us to another plain host only if the configuration names it, as a blob's redirect does."""
    credentials = [credential] if credential else []
    with FakeRegistry(auth=auth(anonymous=True)) as other, FakeRegistry(auth=auth()) as registry:
        blob = private(registry, f"{registry.url}/token")
        registry.add_fault(Fault(where="/token", redirect=f"{other.url}/token"))
        source = kit.source(registry, *credentials, loopback_plain_http=False, plain_http=frozenset({registry.host}))
        with pytest.raises(DeniedError, match=rf"a redirect to {other.host}.*registries\.{other.host}\.plainHttp: true"):
            read(source, blob)
        assert other.seen == []


@pytest.mark.parametrize("location", ["ftp://other/token", "http://u:p@127.0.0.1/token", "http://[/"])
def test_redirects_that_are_not_followed(kit: Kit, read: Callable[..., bytes], location: str) -> None:
    """Other protocols, URLs with users in them, and nonsense are refused at once."""
    with FakeRegistry(auth=auth()) as registry:
        blob = private(registry, f"{registry.url}/token")
        registry.add_fault(Fault(where="/token", redirect=location))
        with pytest.raises(DeniedError):
            read(kit.source(registry, ME), blob)
        assert asked(registry) == [("POST", "/token")]


@pytest.mark.parametrize("target", ["metadata.example", "me.example", "127.0.0.1"])
def test_a_token_server_does_not_point_to_this_machine(kit: Kit, read: Callable[..., bytes], target: str) -> None:
    """A registry out in the world that hands out tokens itself cannot make the node talk to itself by redirecting who wants one."""
    with FakeRegistry(auth=auth(anonymous=True)) as registry:
        port = registry.port
        resolved = {"registry.example": ["127.0.0.1"], "metadata.example": ["169.254.169.254"], "me.example": ["127.0.0.1"]}
        plain = frozenset(f"{name}:{port}" for name in (*resolved, "127.0.0.1"))
        blob = private(registry, f"http://registry.example:{port}/token")
        registry.add_fault(Fault(where="/token", redirect=f"http://{target}:{port}/token/inside"))
        transport = Transport(kit.transport(plain_http=plain).settings, resolve=lambda name, _port: resolved[name])
        kit.transports.append(transport)
        source = RegistrySource(transport, Reference(f"registry.example:{port}", "llm/tiny", "v1", None))
        with pytest.raises(DeniedError, match="link-local"):
            read(source, blob)
        assert registry.requests("/inside") == []
