"""From a reference to the source that serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csi_model.errors import InvalidRequestError, MisconfiguredError
from csi_model.oci.reference import LayoutReference
from csi_model.registry.credentials import Credential, Keyring
from csi_model.registry.settings import HttpSettings, api_host
from csi_model.registry.transport import Transport
from csi_model.sources.layout import LayoutSource
from csi_model.sources.registry import RegistrySource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csi_model.config.model import Config
    from csi_model.oci.reference import AnyReference, Reference
    from csi_model.sources.protocol import Source


class Connector:
    """Makes sources and keeps the connections that they share; one for a process.

    ``loopback_plain_http`` allows plain HTTP for loopback addresses, for a person on the command line who asked.
    """

    def __init__(self, config: Config, *, loopback_plain_http: bool = False) -> None:
        self._credential_files = {
            api_host(name): host.credentials_file for name, host in config.registries.items() if host.credentials_file
        }
        self._transport = Transport(HttpSettings.of(config, loopback_plain_http=loopback_plain_http))

    def connect(self, reference: AnyReference, credentials: Sequence[Credential] = ()) -> Source:
        """The source for ``reference``, with the given credentials or, when there are none, those of the configuration for its host.

        Nothing is sent before the source is used.

        Raises:
            MisconfiguredError: the configured credentials file is unreadable.
        """
        if isinstance(reference, LayoutReference):
            return LayoutSource.open_layout(reference)
        return RegistrySource(self._transport, reference, tuple(credentials) or self._configured(reference))

    def close(self) -> None:
        """Close the connections that are idle, and the others when they become so."""
        self._transport.close()

    def _configured(self, reference: Reference) -> tuple[Credential, ...]:
        # Read each time: kubelet and operators replace such files while we run.
        path = self._credential_files.get(reference.host.lower())
        if path is None:
            return ()
        try:
            return Keyring.load(path).matching(reference)
        except InvalidRequestError as error:
            raise MisconfiguredError(str(error)) from error
