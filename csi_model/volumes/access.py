"""Access: whether a model that is on this node may be handed out as it is, and proofs of a right to private bytes.

Cached does not mean allowed (docs/decisions/0005): what credentials brought here is for those whose registry says so, each time.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

from csi_model.errors import CorruptContentError
from csi_model.oci.reference import Reference, parse_reference
from csi_model.pull.guards import guard_of
from csi_model.volumes.flight import Flight, Flights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csi_model.oci.descriptor import Descriptor
    from csi_model.oci.digest import Digest
    from csi_model.oci.reference import AnyReference
    from csi_model.pull.puller import LayerWant
    from csi_model.registry.credentials import Credential
    from csi_model.sources.connect import Connector
    from csi_model.sources.protocol import Source
    from csi_model.store.state import State
    from csi_model.volumes.flight import Waiter

_PROOF_STEP = 1 << 20


class Access:
    """Decides who may have what is here. Safe to use from many threads; those who ask the same with the same credentials ask once."""

    def __init__(self, state: State, connector: Connector, linger: float) -> None:
        self._state = state
        self._connector = connector
        self._checks: Flights[Flight[None]] = Flights(Flight, "access", linger)

    def may_have(
        self,
        reference: AnyReference,
        manifest: Digest,
        credentials: Sequence[Credential],
        *,
        deadline: float | None = None,
        waiter: Waiter | None = None,
    ) -> bool:
        """Whether a model that is here may be handed out for the reference as it is; if not, it has to be fetched.

        One that was pulled with credentials is handed out when the repository that delivered it, and each of its layers, gives its
        manifest to these. Another repository's word that it has the manifest is worth nothing, for its owner may just know the digest.

        The question goes on when its caller's ``deadline`` has passed, so that a registry's wish for a pause is kept; a retry joins it.

        Raises:
            UnauthenticatedError, DeniedError: the repository does not accept them.
            UnavailableError: it cannot be asked now, or the process is stopping.
            StillPullingError, BusyError: as ``Flight.wait``.
        """
        if self._state.is_anybodys(manifest):
            return True
        repository = _repository(str(reference))
        if not all(repository in guard for guard in self._state.guards(manifest)) or repository not in self._repositories(manifest):
            return False
        pinned = dataclasses.replace(reference, tag=None, digest=manifest)
        check = self._checks.join((str(pinned), tuple(credentials)), lambda flight: self._ask(flight, pinned, credentials))
        check.wait(deadline, waiter)
        return True

    def prove(self, flight: Flight[Any], source: Source, want: LayerWant) -> None:
        """Have the source deliver all of a blob that only others brought here with credentials: who cannot read it there may not here.

        Less than all would not do: whoever names the blob may run the registry that answers, and know its digest and a part of it.

        Raises:
            NotFoundError, UnauthenticatedError, DeniedError: it is not theirs.
            CorruptContentError: what they have under its name is something else.
            UnavailableError: the source is silent, or ``flight``, for which this is done, was asked to end.
        """
        blob, compression = want.descriptor, want.compression.value
        record = self._state.layer(blob.digest, compression)
        if record is None or not record.guards or source.name in record.guards:
            return
        _deliver(flight, source, blob)
        self._state.vouch(blob.digest, compression, guard_of(source))

    def stop(self, grace: float) -> None:
        """Wake all who wait and end what is being asked."""
        self._checks.stop(grace)

    def _ask(self, flight: Flight[None], pinned: AnyReference, credentials: Sequence[Credential]) -> None:
        source = self._connector.connect(pinned, credentials)
        flight.describe = lambda: (
            f"{source.name} has not answered yet whether these credentials may have {pinned.digest}, which is on this node; it is being asked"
        )
        with flight.ending(source.close):
            try:
                source.confirm(pinned)
            finally:
                source.close()

    def _repositories(self, manifest: Digest) -> set[str]:
        """The repositories that have delivered the manifest."""
        return {_repository(found.reference) for found in self._state.resolutions() if found.manifest == manifest}


def _deliver(flight: Flight[Any], source: Source, blob: Descriptor) -> None:
    """Read all of a blob and compare, without keeping it."""
    sums = hashlib.new(blob.digest.algorithm)
    buffer = memoryview(bytearray(min(blob.size, _PROOF_STEP)))
    reader = source.open(blob)
    flight.describe = lambda: f"{source.name} is being read once more: it has to show that it has {blob.digest}, which others brought here"
    try:
        with flight.ending(reader.close):
            while count := reader.readinto(buffer):
                flight.check(f"reading {blob.digest} of {source.name}")
                sums.update(buffer[:count])
    finally:
        reader.close()
    if sums.hexdigest() != blob.digest.hex:
        msg = f"{source.name} delivers something else as {blob.digest}, which another repository brought here with credentials"
        raise CorruptContentError(msg)


def _repository(reference: str) -> str:
    """What a reference says before its tag and digest: the unit in which registries grant access."""
    parsed = parse_reference(reference)
    return parsed.name if isinstance(parsed, Reference) else parsed.url
