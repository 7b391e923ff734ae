"""Manifests and indexes: which digest a reference names, and the verified bytes behind a digest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from csi_model.errors import CorruptContentError, InvalidRequestError, UnauthenticatedError
from csi_model.oci import mediatypes
from csi_model.oci.descriptor import Descriptor
from csi_model.oci.digest import Digest
from csi_model.oci.document import MAX_DOCUMENT
from csi_model.registry.client import Call

if TYPE_CHECKING:
    from csi_model.oci.reference import Reference
    from csi_model.registry.cancellation import Cancellation
    from csi_model.registry.client import RepositoryClient
    from csi_model.registry.response import Response

_HEAD_UNKNOWN = frozenset({405, 501})
_OCTETS = "application/octet-stream"


def resolve_manifest(client: RepositoryClient, reference: Reference, cancellation: Cancellation) -> Descriptor:
    """Ask which manifest the reference names; a digest in it wins over the tag.

    A HEAD is enough where the registry answers it with digest, size and type; otherwise the manifest is fetched and its digest taken.

    Raises:
        NotFoundError, UnauthenticatedError, DeniedError, InvalidRequestError, UnavailableError: as the registry said.
        CorruptContentError: the registry names another digest than its body has.
    """
    response, _ = client.read(_call(client, "HEAD", reference, ()), 0, cancellation)
    if found := _told(response, reference):
        return found
    response, body = _get(client, reference, cancellation)
    told = _digest_header(response)
    for expected in filter(None, (reference.digest, told)):
        _verify(body, expected, f"the manifest of {reference}")
    return Descriptor(_type_of(response), reference.digest or Digest.of(body), len(body))


def confirm_manifest(client: RepositoryClient, reference: Reference, cancellation: Cancellation) -> None:
    """Have the registry show that it gives the manifest of the reference's digest to these credentials.

    A success alone shows nothing: a page that asks people to log in is one, too. It counts when the registry itself names the digest in
    its answer to a HEAD; where it does not, the manifest is fetched and hashed.

    Raises:
        UnauthenticatedError: it gives something else.
        NotFoundError, UnauthenticatedError, DeniedError, InvalidRequestError, UnavailableError: as the registry said.
    """
    response, _ = client.read(_call(client, "HEAD", reference, ()), 0, cancellation)
    if response.status == 200 and not response.strayed and _digest_header(response) == reference.digest:
        return
    _, body = _get(client, reference, cancellation)
    try:
        _verify(body, _pinned(reference), f"what {client.origin.netloc} gives as {reference}")
    except CorruptContentError as error:
        msg = (
            f"{error}, as of a page that asks for a login; it has not shown that these credentials may have the manifest; "
            "check the volume's secret (nodePublishSecretRef) or the registry's credentialsFile"
        )
        raise UnauthenticatedError(msg) from error


def fetch_manifest(client: RepositoryClient, descriptor: Descriptor, reference: Reference, cancellation: Cancellation) -> bytes:
    """The bytes of a manifest or index that a verified index lists, verified.

    Raises:
        CorruptContentError: size or digest are not the descriptor's, the digest also when asked a second time.
        InvalidRequestError: over 4 MiB; others as for ``resolve_manifest``.
    """
    if descriptor.size > MAX_DOCUMENT:
        msg = f"the manifest {descriptor.digest} is said to have {descriptor.size} bytes; at most {MAX_DOCUMENT} are read"
        raise InvalidRequestError(msg)
    body = fetch_resolved(client, descriptor, reference, cancellation)
    if len(body) != descriptor.size:
        msg = f"the manifest {descriptor.digest} of {client.repository} does not have the {descriptor.size} bytes that it should have"
        raise CorruptContentError(msg)
    return body


def fetch_resolved(client: RepositoryClient, descriptor: Descriptor, reference: Reference, cancellation: Cancellation) -> bytes:
    """The bytes of what ``resolve_manifest`` found, verified by the digest alone: the size was a header's word, which proxies get wrong.

    Raises:
        As ``fetch_manifest``.
    """
    by_digest = type(reference)(reference.registry, reference.repository, None, descriptor.digest)
    try:
        return _fetch(client, descriptor, by_digest, cancellation)
    except CorruptContentError:
        return _fetch(client, descriptor, by_digest, cancellation)


def _get(client: RepositoryClient, reference: Reference, cancellation: Cancellation, also: tuple[str, ...] = ()) -> tuple[Response, bytes]:
    response, body = client.read(_call(client, "GET", reference, also), MAX_DOCUMENT + 1, cancellation)
    if len(body) > MAX_DOCUMENT:
        msg = f"the manifest of {reference} is larger than {MAX_DOCUMENT} bytes, which is the most that is read"
        raise InvalidRequestError(msg)
    return response, body


def _pinned(reference: Reference) -> Digest:
    assert reference.digest is not None, "a manifest is confirmed by its digest"
    return reference.digest


def _fetch(client: RepositoryClient, descriptor: Descriptor, reference: Reference, cancellation: Cancellation) -> bytes:
    _, body = _get(client, reference, cancellation, (descriptor.media_type,))
    _verify(body, descriptor.digest, f"the manifest {descriptor.digest} of {client.repository}")
    return body


def _call(client: RepositoryClient, method: str, reference: Reference, also: tuple[str, ...]) -> Call:
    accept = ", ".join(dict.fromkeys((*mediatypes.ACCEPT, *also)))
    expected = frozenset({200}) | (_HEAD_UNKNOWN if method == "HEAD" else frozenset())
    name = reference.digest or reference.tag
    return Call(method, f"/v2/{client.repository}/manifests/{name}", str(reference), {"Accept": accept}, expected)


def _told(response: Response, reference: Reference) -> Descriptor | None:
    """What a HEAD told, when it is all there."""
    digest = reference.digest or _digest_header(response)
    if response.status != 200 or digest is None or digest.algorithm != "sha256" or not response.announced:
        return None
    return Descriptor(_type_of(response), digest, response.announced)


def _digest_header(response: Response) -> Digest | None:
    value = response.header("Docker-Content-Digest")
    if value is None:
        return None
    try:
        return Digest.parse(value.strip())
    except InvalidRequestError:
        return None  # an algorithm that we do not know proves nothing, and the body is hashed instead


def _type_of(response: Response) -> str:
    return (response.header("Content-Type") or _OCTETS).partition(";")[0].strip() or _OCTETS


def _verify(body: bytes, expected: Digest, what: str) -> None:
    found = hashlib.new(expected.algorithm, body).hexdigest()
    if found != expected.hex:
        msg = f"the digest of {what} is {expected.algorithm}:{found[:12]}…, not {expected.algorithm}:{expected.short}…"
        raise CorruptContentError(msg)
