"""Which credentials a volume may use: its own secret's first, then the node's for that registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.oci.reference import Reference
from csi_model.registry.credentials import Keyring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from csi_model.config.model import Config
    from csi_model.oci.reference import AnyReference
    from csi_model.registry.credentials import Credential


class Access:
    """Credentials by reference. The node's files are read anew each time, so that a rotated one needs no restart."""

    def __init__(self, config: Config) -> None:
        self._registries = config.registries

    def credentials(self, reference: AnyReference, secrets: Mapping[str, str]) -> tuple[Credential, ...]:
        """All that may be sent for the reference, best first; an OCI layout needs none.

        Raises:
            InvalidRequestError: the secret or the node's file is malformed.
        """
        if not isinstance(reference, Reference):
            return ()
        found = Keyring.parse_secret(secrets).matching(reference)
        settings = self._registries.get(reference.registry)
        if settings is not None and settings.credentials_file is not None:
            found += Keyring.load(settings.credentials_file).matching(reference)
        return found
