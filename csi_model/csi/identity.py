"""The Identity service: who the driver is, what it offers, and whether it has started."""

# ruff: noqa: ARG002, N802 - the names and arguments of gRPC methods are given

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.wrappers_pb2 import BoolValue

from csi_model import __version__
from csi_model.generated import csi_pb2
from csi_model.generated.csi_pb2_grpc import IdentityServicer

if TYPE_CHECKING:
    import threading

    import grpc

_SERVICE = csi_pb2.PluginCapability.Service


class Identity(IdentityServicer):
    """Answers at once and from memory: kubelet and liveness probes must get through while every worker waits for a pull."""

    def __init__(self, name: str, ready: threading.Event) -> None:
        self._name = name
        self._ready = ready

    def GetPluginInfo(self, request: csi_pb2.GetPluginInfoRequest, context: grpc.ServicerContext) -> csi_pb2.GetPluginInfoResponse:
        """Name and version."""
        return csi_pb2.GetPluginInfoResponse(name=self._name, vendor_version=__version__)

    def GetPluginCapabilities(
        self, request: csi_pb2.GetPluginCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        """The same on every instance of one version, as the specification demands: a Controller is served, and nothing else."""
        service = csi_pb2.PluginCapability(service=_SERVICE(type=_SERVICE.CONTROLLER_SERVICE))
        return csi_pb2.GetPluginCapabilitiesResponse(capabilities=[service])

    def Probe(self, request: csi_pb2.ProbeRequest, context: grpc.ServicerContext) -> csi_pb2.ProbeResponse:
        """Well, and ready once it serves."""
        return csi_pb2.ProbeResponse(ready=BoolValue(value=self._ready.is_set()))
