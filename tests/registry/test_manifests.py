from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from csi_model.errors import CorruptContentError, InvalidRequestError, NotFoundError, UnavailableError
from csi_model.oci.descriptor import Descriptor
from csi_model.oci.digest import Digest
from csi_model.oci.document import MAX_DOCUMENT
from tests.fakes.registry import MANIFEST, Fault

if TYPE_CHECKING:
    from tests.fakes.registry import FakeRegistry
    from tests.registry.conftest import Kit

BODY = b'{"schemaVersion": 2, "config": {}, "layers": []}'
OTHER = Digest.of(b"other")


def test_head_is_enough(kit: Kit, registry: FakeRegistry) -> None:
    """A tag is resolved by one HEAD that accepts the four types, and fetched by digest over the same connection."""
    descriptor = registry.add_manifest("llm/tiny", BODY, tag="v1")
    source = kit.source(registry)
    assert source.resolve(kit.reference(registry)) == descriptor
    assert source.fetch_document(descriptor) == BODY
    head, get = registry.seen
    assert (head.method, head.path) == ("HEAD", "/v2/llm/tiny/manifests/v1")
    assert head.headers["accept"].count("application/vnd.") == 4
    assert (get.method, get.path) == ("GET", f"/v2/llm/tiny/manifests/{descriptor.digest}")
    assert registry.connections == 1


@pytest.mark.parametrize("status", [405, 501])
def test_registry_without_head(kit: Kit, registry: FakeRegistry, status: int) -> None:
    """Where HEAD is not known, GET is used."""
    descriptor = registry.add_manifest("llm/tiny", BODY, tag="v1")
    registry.head_status = status
    assert kit.source(registry).resolve(kit.reference(registry)) == descriptor


def test_registry_without_digest_header(kit: Kit, registry: FakeRegistry) -> None:
    """Where no digest is told, it is taken of the body."""
    descriptor = registry.add_manifest("llm/tiny", BODY, tag="v1")
    registry.digest_header = False
    assert kit.source(registry).resolve(kit.reference(registry)) == descriptor


@pytest.mark.parametrize("suffix", ["@{0}", ":other@{0}"])
def test_digest_wins_over_tag(kit: Kit, registry: FakeRegistry, suffix: str) -> None:
    """A reference with a digest asks for the digest, whatever its tag."""
    descriptor = registry.add_manifest("llm/tiny", BODY)
    assert kit.source(registry).resolve(kit.reference(registry, suffix=suffix.format(descriptor.digest))) == descriptor
    assert registry.seen[0].path.endswith(str(descriptor.digest))


def test_missing_tag(kit: Kit, registry: FakeRegistry) -> None:
    """A tag that does not exist is named."""
    with pytest.raises(NotFoundError, match="llm/tiny:v1 does not exist"):
        kit.source(registry).resolve(kit.reference(registry))


def test_other_repository(kit: Kit, registry: FakeRegistry) -> None:
    """A source answers for its own repository only, for its credentials are."""
    with pytest.raises(InvalidRequestError, match="is not in"):
        kit.source(registry).resolve(kit.reference(registry, "other/repo"))


def test_header_that_contradicts_the_body(kit: Kit, registry: FakeRegistry) -> None:
    """A Docker-Content-Digest that is not the body's is refused."""
    registry.add_manifest("llm/tiny", BODY, tag="v1")
    registry.head_status = 405
    registry.add_fault(Fault(where="/manifests/", headers={"Docker-Content-Digest": str(OTHER)}))
    with pytest.raises(CorruptContentError):
        kit.source(registry).resolve(kit.reference(registry))


def test_header_of_another_algorithm(kit: Kit, registry: FakeRegistry) -> None:
    """A digest header by SHA-512 is verified against the body, and the SHA-256 of the body is what the manifest goes by."""
    descriptor = registry.add_manifest("llm/tiny", BODY, tag="v1")
    registry.add_fault(Fault(where="/manifests/", headers={"Docker-Content-Digest": "sha512:" + hashlib.sha512(BODY).hexdigest()}))
    registry.digest_header = False
    assert kit.source(registry).resolve(kit.reference(registry)) == descriptor


@pytest.mark.parametrize("body", [BODY + b" ", BODY[:-1], BODY.replace(b"2", b"3"), b""], ids=["longer", "shorter", "flipped", "empty"])
def test_lying_manifest(kit: Kit, registry: FakeRegistry, body: bytes) -> None:
    """A manifest whose bytes are not the descriptor's is refused after a second look."""
    descriptor = registry.add_manifest("llm/tiny", BODY)
    registry.add_fault(Fault(where="/manifests/", body=body))
    with pytest.raises(CorruptContentError):
        kit.source(registry).fetch_document(descriptor)
    assert len(registry.seen) == 2


def test_manifest_that_was_garbled_once(kit: Kit, registry: FakeRegistry) -> None:
    """One wrong answer is not the end."""
    descriptor = registry.add_manifest("llm/tiny", BODY)
    registry.add_fault(Fault(where="/manifests/", times=1, body=BODY.replace(b"2", b"3")))
    assert kit.source(registry).fetch_document(descriptor) == BODY


@pytest.mark.parametrize("told", [1, len(BODY) - 1, len(BODY) + 1, MAX_DOCUMENT + 1, 10**18])
def test_size_that_a_head_misreports(kit: Kit, registry: FakeRegistry, told: int) -> None:
    """A proxy that gets the Content-Length of a HEAD wrong keeps nobody from a manifest that has its digest."""
    digest = registry.add_manifest("llm/tiny", BODY, tag="v1").digest
    registry.add_fault(Fault(where="/manifests/", method="HEAD", headers={"Content-Length": str(told)}))
    source = kit.source(registry)
    found = source.resolve(kit.reference(registry))
    assert found.digest == digest
    assert source.fetch_document(found) == BODY
    assert [seen.method for seen in registry.seen] == ["HEAD", "GET"]


@pytest.mark.parametrize("body", [BODY + b" ", BODY.replace(b"2", b"3"), b""], ids=["longer", "flipped", "empty"])
def test_resolved_manifest_that_lies(kit: Kit, registry: FakeRegistry, body: bytes) -> None:
    """What a tag was resolved to is held to its digest, and refused after a second look."""
    registry.add_manifest("llm/tiny", BODY, tag="v1")
    registry.add_fault(Fault(where="/manifests/", method="GET", body=body))
    source = kit.source(registry)
    with pytest.raises(CorruptContentError):
        source.fetch_document(source.resolve(kit.reference(registry)))
    assert [seen.method for seen in registry.seen] == ["HEAD", "GET", "GET"]


def test_resolved_manifest_without_end(kit: Kit, registry: FakeRegistry) -> None:
    """Of a resolved manifest, too, no more than 4 MiB is read, whatever size a HEAD told."""
    registry.add_manifest("llm/tiny", b"x" * (MAX_DOCUMENT + 1), tag="v1")
    registry.add_fault(Fault(where="/manifests/", method="HEAD", headers={"Content-Length": "100"}))
    source = kit.source(registry)
    with pytest.raises(InvalidRequestError, match="4194304"):
        source.fetch_document(source.resolve(kit.reference(registry)))


@pytest.mark.parametrize("size", [len(BODY) - 1, len(BODY) + 1])
def test_size_that_an_index_names(kit: Kit, registry: FakeRegistry, size: int) -> None:
    """A descriptor that comes out of a verified index is held to its size as well as to its digest."""
    found = registry.add_manifest("llm/tiny", BODY)
    with pytest.raises(CorruptContentError, match=f"the {size} bytes"):
        kit.source(registry).fetch_document(Descriptor(found.media_type, found.digest, size))


def test_huge_manifests(kit: Kit, registry: FakeRegistry) -> None:
    """Over 4 MiB nothing is read, whether the descriptor says so or the body turns out so."""
    huge = registry.add_manifest("llm/tiny", b"x" * (MAX_DOCUMENT + 1), tag="v1")
    registry.head_status = 405
    source = kit.source(registry)
    with pytest.raises(InvalidRequestError, match="4194304"):
        source.fetch_document(huge)
    with pytest.raises(InvalidRequestError, match="4194304"):
        source.resolve(kit.reference(registry))
    assert source.fetch_document(registry.add_manifest("llm/tiny", b"x" * MAX_DOCUMENT)) == b"x" * MAX_DOCUMENT


def test_body_that_breaks_off_is_asked_for_again(kit: Kit, registry: FakeRegistry) -> None:
    """A manifest is retried like a blob, from its start."""
    descriptor = registry.add_manifest("llm/tiny", BODY)
    registry.add_fault(Fault(where="/manifests/", times=3, close_after=10))
    assert kit.source(registry).fetch_document(descriptor) == BODY


def test_close_ends_a_resolve(kit: Kit, registry: FakeRegistry) -> None:
    """Closing the source ends a request that waits, so that the driver can stop."""
    registry.add_fault(Fault(where="/manifests/", delay=3))
    source = kit.source(registry, stall_timeout=30)
    timer = threading.Timer(0.1, source.close)
    timer.start()
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="stopped"):
        source.resolve(kit.reference(registry))
    timer.join()
    assert time.monotonic() - started < 2


def test_size_and_type_are_the_answers(kit: Kit, registry: FakeRegistry) -> None:
    """Parameters of the Content-Type are left out, and a missing one is called octets."""
    registry.add_manifest("llm/tiny", BODY, tag="v1", media_type=f"{MANIFEST}; charset=utf-8")
    assert kit.source(registry).resolve(kit.reference(registry)) == Descriptor(MANIFEST, Digest.of(BODY), len(BODY))
