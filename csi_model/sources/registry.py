"""A registry's repository as a source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import InvalidRequestError
from csi_model.oci.reference import Reference
from csi_model.registry.blob import RegistryBlobReader, RegistryPartReader
from csi_model.registry.cancellation import Cancellation
from csi_model.registry.client import RepositoryClient
from csi_model.registry.manifests import confirm_manifest, fetch_manifest, fetch_resolved, resolve_manifest
from csi_model.sources.extent import extent_end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csi_model.oci.descriptor import Descriptor
    from csi_model.oci.digest import Digest
    from csi_model.oci.reference import AnyReference
    from csi_model.registry.credentials import Credential
    from csi_model.registry.transport import Transport


class RegistrySource:
    """See ``Source``. Connections belong to the transport, which outlives it; tokens are its own, so that no volume uses another's."""

    def __init__(self, transport: Transport, reference: Reference, credentials: Sequence[Credential] = ()) -> None:
        self._reference = reference
        self._client = RepositoryClient(transport, reference, credentials)
        self._cancellation = Cancellation()
        self._ranges: bool | None = None
        self._resolved: set[Digest] = set()

    @property
    def name(self) -> str:
        """``registry/repository``."""
        return self._reference.name

    @property
    def authenticated(self) -> bool:
        """Whether the registry asked for credentials and accepted them."""
        return self._client.authenticated

    @property
    def ranges(self) -> bool | None:
        """What the registry's newest answer to a request for a part was: that part, or the whole."""
        return self._ranges

    def resolve(self, reference: AnyReference) -> Descriptor:
        """See the protocol; a HEAD, unless the registry needs more."""
        found = resolve_manifest(self._client, self._own(reference), self._cancellation)
        self._resolved.add(found.digest)
        return found

    def confirm(self, reference: AnyReference) -> None:
        """See the protocol; a HEAD, unless the registry needs more."""
        confirm_manifest(self._client, self._own(reference), self._cancellation)

    def fetch_document(self, descriptor: Descriptor) -> bytes:
        """See the protocol; of what ``resolve`` found the digest alone is verified, for no verified index has told its size."""
        fetch = fetch_resolved if descriptor.digest in self._resolved else fetch_manifest
        return fetch(self._client, descriptor, self._reference, self._cancellation)

    def open(self, descriptor: Descriptor, *, offset: int = 0, length: int | None = None) -> RegistryBlobReader:
        """See the protocol; nothing is asked for before the first read."""
        reader = RegistryBlobReader if length is None else RegistryPartReader
        return reader(self._client, descriptor, offset, extent_end(descriptor, offset, length), self._note_ranges)

    def close(self) -> None:
        """End what ``resolve``, ``confirm`` and ``fetch_document`` are doing; readers are closed by their owners."""
        self._cancellation.cancel()

    def _own(self, reference: AnyReference) -> Reference:
        if not isinstance(reference, Reference) or reference.name != self._reference.name:
            msg = f"{reference} is not in {self.name}"
            raise InvalidRequestError(msg)
        return reference

    def _note_ranges(self, served: bool) -> None:  # noqa: FBT001 - an observation, not an option
        self._ranges = served
