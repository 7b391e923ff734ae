"""kubelet's plugin registration: it finds our socket, asks what we are, and says whether it took us."""

# ruff: noqa: ARG002, N802 - the names and arguments of gRPC methods are given

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from csi_model.generated import pluginregistration_pb2 as messages
from csi_model.generated.pluginregistration_pb2_grpc import RegistrationServicer

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

log = structlog.get_logger(__name__)

# Versions of kubelet's plugin interface, not of CSI or of the driver.
_SUPPORTED_VERSIONS = ("1.0.0",)


class Registration(RegistrationServicer):
    """Tells kubelet where the CSI socket is, and remembers what kubelet made of it.

    ``endpoint`` is the path as the host sees it. ``accepted`` is called each time that kubelet registers the driver, also after a restart of kubelet's.
    ``refused`` is called once with kubelet's reason when it does not: the process then ends, so that the failure is seen and the next start
    tries anew.
    """

    def __init__(self, *, driver: str, endpoint: str, refused: Callable[[str], None], accepted: Callable[[], None] = lambda: None) -> None:
        self._driver = driver
        self._endpoint = endpoint
        self._refused = refused
        self._accepted = accepted
        self.registered = threading.Event()

    def GetInfo(self, request: messages.InfoRequest, context: grpc.ServicerContext) -> messages.PluginInfo:
        """What we are; kubelet waits one second for it."""
        return messages.PluginInfo(
            type="CSIPlugin", name=self._driver, endpoint=self._endpoint, supported_versions=list(_SUPPORTED_VERSIONS)
        )

    def NotifyRegistrationStatus(
        self, request: messages.RegistrationStatus, context: grpc.ServicerContext
    ) -> messages.RegistrationStatusResponse:
        """Take note of kubelet's decision."""
        if request.plugin_registered:
            self.registered.set()
            log.info("registered with kubelet", driver=self._driver, endpoint=self._endpoint)
            self._accepted()
        else:
            self.registered.clear()
            log.error("kubelet refused the registration", driver=self._driver, endpoint=self._endpoint, reason=request.error)
            self._refused(request.error)
        return messages.RegistrationStatusResponse()
