"""What a registry has to answer before credentials are taken for accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from csi_model.errors import InvalidRequestError, NotFoundError, UnauthenticatedError
from csi_model.oci.digest import Digest
from csi_model.oci.document import MAX_DOCUMENT
from tests.fakes.registry import FakeRegistry, Fault

if TYPE_CHECKING:
    from csi_model.oci.reference import Reference
    from tests.registry.conftest import Kit

BODY = b'{"schemaVersion": 2, "config": {}, "layers": []}'
LOGIN = b"<html>Please log in</html>"


@pytest.fixture
def pinned(kit: Kit, registry: FakeRegistry) -> Reference:
    """A manifest of the registry, by its digest."""
    return kit.reference(registry, suffix=f"@{registry.add_manifest('llm/tiny', BODY, tag='v1').digest}")


def test_the_digest_in_a_heads_answer_is_the_registrys_word(kit: Kit, registry: FakeRegistry, pinned: Reference) -> None:
    """One HEAD whose answer names the digest is enough."""
    kit.source(registry).confirm(pinned)
    assert [seen.method for seen in registry.seen] == ["HEAD"]


@pytest.mark.parametrize("status", [405, 501])
def test_a_registry_without_head_shows_the_manifest(kit: Kit, registry: FakeRegistry, pinned: Reference, status: int) -> None:
    """Where HEAD is not known, the manifest is fetched and hashed."""
    registry.head_status = status
    kit.source(registry).confirm(pinned)
    assert [seen.method for seen in registry.seen] == ["HEAD", "GET"]


def test_a_registry_that_names_no_digest_shows_the_manifest(kit: Kit, registry: FakeRegistry, pinned: Reference) -> None:
    """A HEAD's success without a digest, however long the body is said to be, is no word; the bytes are."""
    registry.digest_header = False
    kit.source(registry).confirm(pinned)
    assert [seen.method for seen in registry.seen] == ["HEAD", "GET"]


def test_a_page_that_asks_for_a_login_is_no_word(kit: Kit, registry: FakeRegistry, pinned: Reference) -> None:
    """A success with other bytes, from the registry itself, is a refusal that names it."""
    registry.digest_header = False
    registry.add_fault(Fault(where="/manifests/", body=LOGIN, headers={"Content-Type": "text/html"}))
    with pytest.raises(UnauthenticatedError, match=rf"{registry.host}.* login"):
        kit.source(registry).confirm(pinned)


def test_another_digest_is_no_word(kit: Kit, registry: FakeRegistry, pinned: Reference) -> None:
    """An answer that names another manifest's digest is not enough, and neither are its bytes."""
    registry.add_fault(Fault(where="/manifests/", body=LOGIN, headers={"Docker-Content-Digest": str(Digest.of(LOGIN))}))
    with pytest.raises(UnauthenticatedError):
        kit.source(registry).confirm(pinned)


def test_another_origins_word_is_worth_nothing(kit: Kit, registry: FakeRegistry, pinned: Reference) -> None:
    """A login server behind a redirect may answer whatever it likes, with the digest too."""
    with FakeRegistry() as login:
        login.add_manifest("login", LOGIN, tag="page")
        login.add_fault(Fault(where="/login/", body=LOGIN, headers={"Docker-Content-Digest": str(pinned.digest)}))
        registry.add_fault(Fault(where="/manifests/", redirect=f"{login.url}/v2/login/manifests/page"))
        with pytest.raises(UnauthenticatedError):
            kit.source(registry).confirm(pinned)


def test_a_way_back_from_another_origin_is_no_word(kit: Kit, registry: FakeRegistry, pinned: Reference) -> None:
    """An answer of the registry's own, to which another origin has sent us, without credentials, is not its word about them."""
    registry.add_manifest("public/copy", BODY, tag="v1")
    with FakeRegistry() as login:
        login.add_fault(Fault(where="/", redirect=f"{registry.url}/v2/public/copy/manifests/v1"))
        registry.add_fault(Fault(where="/llm/tiny/manifests/", method="HEAD", redirect=f"{login.url}/login"))
        registry.add_fault(Fault(where="/llm/tiny/manifests/", method="GET", status=401))
        with pytest.raises(UnauthenticatedError, match="401"):
            kit.source(registry).confirm(pinned)


def test_a_redirect_within_the_registry_changes_nothing(kit: Kit, registry: FakeRegistry, pinned: Reference) -> None:
    """Some registries redirect to another path of theirs, which is still their own word."""
    registry.add_manifest("moved/here", BODY, tag="v1")
    registry.add_fault(Fault(where="/llm/tiny/manifests/", redirect="/v2/moved/here/manifests/v1"))
    kit.source(registry).confirm(pinned)
    assert [seen.method for seen in registry.seen] == ["HEAD", "HEAD"]


def test_what_is_not_there_is_not_confirmed(kit: Kit, registry: FakeRegistry, pinned: Reference) -> None:
    """A manifest that the registry has not got, or one of another repository, is refused as ever."""
    registry.manifests.clear()
    with pytest.raises(NotFoundError):
        kit.source(registry).confirm(pinned)
    with pytest.raises(InvalidRequestError, match="is not in"):
        kit.source(registry, repository="other/repo").confirm(pinned)


def test_an_endless_answer_is_not_read(kit: Kit, registry: FakeRegistry, pinned: Reference) -> None:
    """A registry that answers with more than a manifest may have is refused after that."""
    registry.digest_header = False
    registry.add_fault(Fault(where="/manifests/", body=b"x" * (MAX_DOCUMENT + 1)))
    with pytest.raises(InvalidRequestError, match="4194304"):
        kit.source(registry).confirm(pinned)
