from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import DeniedError, UnauthenticatedError, UnavailableError
from csi_model.registry.credentials import Credential
from tests.fakes.registry import BasicAuth, FakeRegistry, Fault, TokenAuth

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.registry.conftest import Kit

GOOD, BAD = Credential("me", "canary-good"), Credential("other", "canary-bad")
USERS = {"me": "canary-good"}


@pytest.mark.parametrize("auth", [BasicAuth(USERS), TokenAuth(USERS), TokenAuth(USERS, post=False)], ids=["basic", "post", "get"])
def test_credentials_are_accepted(kit: Kit, read: Callable[..., bytes], auth: BasicAuth | TokenAuth) -> None:
    """A name and password work by Basic, by the token form, and by GET where the token server has no form; one token serves all."""
    with FakeRegistry(auth=auth) as registry:
        blob = registry.add_blob(b"weights")
        registry.add_manifest("llm/tiny", b"{}", tag="v1")
        source = kit.source(registry, GOOD)
        source.resolve(kit.reference(registry))
        assert read(source, blob) == b"weights"
        assert source.authenticated
        assert not isinstance(auth, TokenAuth) or auth.issued == 1


def test_identity_token(kit: Kit, read: Callable[..., bytes]) -> None:
    """An identity token is exchanged at the token server."""
    with FakeRegistry(auth=TokenAuth(refresh_tokens=("refresh",))) as registry:
        blob = registry.add_blob(b"weights")
        assert read(kit.source(registry, Credential("", "", "refresh")), blob) == b"weights"


def test_anonymous_token(kit: Kit, read: Callable[..., bytes]) -> None:
    """A public repository behind a token server is read without credentials, and is not called authenticated."""
    with FakeRegistry(auth=TokenAuth(anonymous=True)) as registry:
        blob = registry.add_blob(b"weights")
        source = kit.source(registry)
        assert read(source, blob) == b"weights"
        assert not source.authenticated


def test_open_registry_never_sees_credentials(kit: Kit, registry: FakeRegistry, read: Callable[..., bytes]) -> None:
    """Credentials are not volunteered, so that what a registry gives to everybody is known to be public."""
    blob = registry.add_blob(b"weights")
    source = kit.source(registry, GOOD)
    assert read(source, blob) == b"weights"
    assert not source.authenticated
    assert all("authorization" not in seen.headers for seen in registry.seen)


@pytest.mark.parametrize("auth", [BasicAuth(USERS), TokenAuth(USERS)], ids=["basic", "token"])
def test_every_matching_credential_is_tried(kit: Kit, read: Callable[..., bytes], auth: BasicAuth | TokenAuth) -> None:
    """A credential that is refused is followed by the next."""
    with FakeRegistry(auth=auth) as registry:
        blob = registry.add_blob(b"weights")
        assert read(kit.source(registry, BAD, BAD, GOOD), blob) == b"weights"


def test_next_credential_after_403(kit: Kit, registry: FakeRegistry, read: Callable[..., bytes]) -> None:
    """A credential that is known but not allowed is followed by the next too."""
    users = {"me": "canary-good", "other": "canary-bad"}
    with FakeRegistry(auth=BasicAuth(users)) as private:
        blob = private.add_blob(b"weights")
        private.add_fault(Fault(times=1, status=401, headers={"WWW-Authenticate": "Basic realm=x"}))
        private.add_fault(Fault(times=1, status=403))
        assert read(kit.source(private, BAD, GOOD), blob) == b"weights"


@pytest.mark.parametrize("auth", [BasicAuth(USERS), TokenAuth(USERS)], ids=["basic", "token"])
def test_401_names_what_was_tried(kit: Kit, auth: BasicAuth | TokenAuth, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal says which users were tried, or none, and never shows a secret; nothing is retried."""
    caplog.set_level(logging.DEBUG)
    with FakeRegistry(auth=auth) as registry:
        registry.add_manifest("llm/tiny", b"{}", tag="v1")
        with pytest.raises(UnauthenticatedError, match="credentials tried: none"):
            kit.source(registry).resolve(kit.reference(registry))
        with pytest.raises(UnauthenticatedError, match="user 'other' from the volume's secret") as caught:
            kit.source(registry, BAD).resolve(kit.reference(registry))
        assert "canary" not in f"{caught.value} {caught.value.__cause__} {caplog.text}"
        assert len(registry.seen) < 9


def test_no_password_goes_to_a_plain_host_that_nobody_named(kit: Kit) -> None:
    """A token server without TLS gets credentials only if the configuration names it, whatever the registry says."""
    with FakeRegistry(auth=TokenAuth(USERS)) as elsewhere, FakeRegistry(auth=TokenAuth(USERS, realm=f"{elsewhere.url}/token")) as registry:
        registry.add_manifest("llm/tiny", b"{}", tag="v1")
        source = kit.source(registry, GOOD, loopback_plain_http=False, plain_http=frozenset({registry.host}))
        with pytest.raises(DeniedError, match=rf"a token server's address to {elsewhere.host}.*registries\.{elsewhere.host}\.plainHttp"):
            source.resolve(kit.reference(registry))
        assert elsewhere.seen == []


def test_token_that_is_revoked_in_mid_pull(kit: Kit, read: Callable[..., bytes]) -> None:
    """When a token stops working between two parts of a blob, one new token is fetched and the pull goes on."""
    auth = TokenAuth(USERS)
    with FakeRegistry(auth=auth) as registry:
        data = bytes(range(256)) * 1000
        blob = registry.add_blob(data)
        registry.add_fault(Fault(times=2, close_after=100_000))  # the first is spent on the challenge
        source = kit.source(registry, GOOD)
        reader = source.open(blob)
        buffer = memoryview(bytearray(len(data)))
        assert reader.readinto(buffer[:50_000]) == 50_000
        auth.revoke()
        assert reader.readinto(buffer[50_000:]) == len(data) - 50_000
        assert buffer == data
        assert auth.issued == 2
        reader.close()


def test_token_that_is_never_accepted(kit: Kit) -> None:
    """A registry that hands out tokens and refuses them ends in an error, not in a loop."""
    auth = TokenAuth(USERS)
    with FakeRegistry(auth=auth) as registry:
        registry.add_fault(Fault(where="/v2/", status=401, headers={"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'}))
        with pytest.raises(UnauthenticatedError):
            kit.source(registry, GOOD).resolve(kit.reference(registry))
        assert auth.issued == 1


def test_token_is_renewed_before_it_runs_out(kit: Kit, read: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A token past its lifetime on the monotonic clock is replaced without asking the registry in vain."""
    auth = TokenAuth(USERS, expires_in=100)
    with FakeRegistry(auth=auth) as registry:
        blob = registry.add_blob(b"weights")
        source = kit.source(registry, GOOD)
        read(source, blob)
        later = __import__("time").monotonic() + 95
        monkeypatch.setattr("csi_model.registry.tokens.time.monotonic", lambda: later)
        asked = len(registry.requests("/blobs/"))
        read(source, blob)
        assert auth.issued == 2
        assert len(registry.requests("/blobs/")) == asked + 1


def test_one_token_for_many_threads(kit: Kit, read: Callable[..., bytes]) -> None:
    """Readers that start together wait for one token instead of fetching one each."""
    auth = TokenAuth(USERS)
    with FakeRegistry(auth=auth) as registry:
        blob = registry.add_blob(b"weights")
        source = kit.source(registry, GOOD)
        results: list[bytes] = []
        threads = [threading.Thread(target=lambda: results.append(read(source, blob))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [b"weights"] * 8
        assert auth.issued == 1


def _is_in(thread: threading.Thread, function: str) -> bool:
    frames = traceback.walk_stack(sys._current_frames().get(thread.ident or 0))
    return any(frame.f_code.co_name == function for frame, _ in frames)


def test_who_waits_for_anothers_token_can_stop(kit: Kit) -> None:
    """A reader that is closed while another one fetches the token ends then, and leaves the other to it."""
    auth = TokenAuth(USERS)
    with FakeRegistry(auth=auth) as registry:
        blob = registry.add_blob(b"weights")
        registry.add_fault(Fault(where="/token", delay=10))
        source = kit.source(registry, GOOD, stall_timeout=30)
        readers = [source.open(blob) for _ in range(2)]
        ended: list[str] = []

        def wait(number: int) -> None:
            with pytest.raises(UnavailableError, match="stopped"):
                readers[number].wait()
            ended.append(f"reader {number}")

        threads = [threading.Thread(target=wait, args=(number,)) for number in range(2)]
        threads[0].start()
        while not registry.requests("/token"):
            time.sleep(0.01)
        threads[1].start()
        while not _is_in(threads[1], "_turn"):
            time.sleep(0.01)
        readers[1].close()
        threads[1].join()
        assert (ended, auth.issued) == (["reader 1"], 0)
        readers[0].close()
        threads[0].join()
        assert ended == ["reader 1", "reader 0"]


def test_token_server_on_another_host(kit: Kit, read: Callable[..., bytes]) -> None:
    """The realm may be elsewhere; the token goes to the registry only, the credential to the token server only."""
    elsewhere = TokenAuth(USERS)
    with FakeRegistry(auth=elsewhere) as tokens, FakeRegistry(auth=TokenAuth(realm=f"{tokens.url}/token")) as registry:
        assert isinstance(registry.auth, TokenAuth)
        registry.auth.valid = elsewhere.valid
        blob = registry.add_blob(b"weights")
        assert read(kit.source(registry, GOOD), blob) == b"weights"
        assert [seen.headers.get("authorization") for seen in registry.seen] == [None, "Bearer token-1"]
        assert [(seen.method, "authorization" in seen.headers) for seen in tokens.seen] == [("POST", False)]


def test_failing_token_server_is_retried(kit: Kit, read: Callable[..., bytes]) -> None:
    """503 from a token server is as passing as one from a registry, and its end is Unavailable, not Unauthenticated."""
    with FakeRegistry(auth=TokenAuth(USERS)) as registry:
        blob = registry.add_blob(b"weights")
        registry.add_fault(Fault(where="/token", times=2, status=503))
        assert read(kit.source(registry, GOOD), blob) == b"weights"
        registry.add_fault(Fault(where="/token", status=503))
        with pytest.raises(UnavailableError, match="503"):
            read(kit.source(registry, GOOD), blob)


@pytest.mark.parametrize(
    "body", [b"no json", b"[]", b"{}", b'{"token": 3}', b'{"token": "a\\nb"}', b'{"token": "x", "expires_in": "never"}']
)
def test_replies_that_are_no_token(kit: Kit, body: bytes, read: Callable[..., bytes]) -> None:
    """A token server's nonsense ends in Unavailable, and never in a broken header."""
    with FakeRegistry(auth=TokenAuth(USERS)) as registry:
        blob = registry.add_blob(b"weights")
        with FakeRegistry() as tokens:
            tokens.manifests["llm/tiny", "t"] = ("application/json", body)
            registry.auth = TokenAuth(realm=f"{tokens.url}/v2/llm/tiny/manifests/t")
            with pytest.raises(UnavailableError, match=r"token server .* sent"):
                read(kit.source(registry), blob)


def test_https_registry_cannot_name_a_plain_realm(kit: Kit, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Credentials do not leave TLS because a challenge says so."""
    from tests.fakes.certificates import server_context

    context, ca = server_context(tmp_path_factory.mktemp("tls"))
    with FakeRegistry() as tokens, FakeRegistry(tls=context, auth=TokenAuth(realm=f"{tokens.url}/token")) as registry:
        source = kit.source(registry, GOOD, loopback_plain_http=False, ca_files={registry.host: ca})
        with pytest.raises(DeniedError, match="leaves TLS"):
            source.resolve(kit.reference(registry))
        assert tokens.seen == []
