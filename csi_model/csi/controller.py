"""The Controller service, without state: a storage class's parameters become the volume's context, and no byte moves.

That keeps creation far below the provisioner's ten seconds, and means that nothing here can be lost.
"""

# ruff: noqa: ARG002, N802 - the names and arguments of gRPC methods are given

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from csi_model.csi import capability, volumeid
from csi_model.csi.context import VolumeContext, parse_request
from csi_model.errors import CsiModelError, InvalidRequestError, NotFoundError
from csi_model.generated import csi_pb2
from csi_model.generated.csi_pb2_grpc import ControllerServicer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

_RPC = csi_pb2.ControllerServiceCapability.RPC
_MAX_NAME = 128
# The specification bans control characters from names, but for tab, line feed and carriage return.
_BANNED = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Controller(ControllerServicer):
    """Creates, validates and deletes volumes that exist only as ids and contexts."""

    def __init__(self, *, layouts: Sequence[str] = ()) -> None:
        self._layouts = tuple(layouts)

    def CreateVolume(self, request: csi_pb2.CreateVolumeRequest, context: grpc.ServicerContext) -> csi_pb2.CreateVolumeResponse:
        """Turn a storage class's parameters into a volume, after refusing what no publish could serve."""
        _require_name(request.name)
        capability.require_all(request.volume_capabilities)
        _require_range(request.capacity_range)
        _refuse_extras(request)
        attributes = VolumeContext.parse(request.parameters).attributes
        parse_request(attributes, layouts=self._layouts)
        volume = csi_pb2.Volume(volume_id=volumeid.created(request.name), volume_context=attributes)
        return csi_pb2.CreateVolumeResponse(volume=volume)

    def DeleteVolume(self, request: csi_pb2.DeleteVolumeRequest, context: grpc.ServicerContext) -> csi_pb2.DeleteVolumeResponse:
        """Nothing is kept, so nothing is deleted; any id will do."""
        volumeid.demand(request.volume_id)
        return csi_pb2.DeleteVolumeResponse()

    def ValidateVolumeCapabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Whether a created volume could be published so; only an id that CreateVolume could have made is known here."""
        volumeid.demand(request.volume_id)
        if not request.volume_capabilities:
            capability.require_all(request.volume_capabilities)
        if not volumeid.is_created(request.volume_id):
            msg = f"no volume {request.volume_id[:128]!r} was created by this driver"
            raise NotFoundError(msg)
        try:
            capability.require_all(request.volume_capabilities)
            for given in (request.volume_context, request.parameters):
                if given:
                    parse_request(VolumeContext.parse(given).attributes, layouts=self._layouts)
            _refuse_mutable(request.mutable_parameters)
        except CsiModelError as error:
            return csi_pb2.ValidateVolumeCapabilitiesResponse(message=str(error))
        return csi_pb2.ValidateVolumeCapabilitiesResponse(
            confirmed=csi_pb2.ValidateVolumeCapabilitiesResponse.Confirmed(
                volume_context=request.volume_context,
                volume_capabilities=request.volume_capabilities,
                parameters=request.parameters,
            )
        )

    def ControllerGetCapabilities(
        self, request: csi_pb2.ControllerGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Creation and deletion."""
        create = csi_pb2.ControllerServiceCapability(rpc=_RPC(type=_RPC.CREATE_DELETE_VOLUME))
        return csi_pb2.ControllerGetCapabilitiesResponse(capabilities=[create])


def _require_name(name: str) -> None:
    if not name or len(name.encode()) > _MAX_NAME or _BANNED.search(name):
        msg = f"name is missing, has more than {_MAX_NAME} bytes, or has control characters"
        raise InvalidRequestError(msg)


def _require_range(capacity: csi_pb2.CapacityRange) -> None:
    """A model has the size that it has, so any sensible wish is fine and none is measured."""
    required, limit = capacity.required_bytes, capacity.limit_bytes
    if required < 0 or limit < 0 or (limit and limit < required):
        msg = f"capacity_range from {required} to {limit} bytes makes no sense"
        raise InvalidRequestError(msg)


def _refuse_extras(request: csi_pb2.CreateVolumeRequest) -> None:
    if request.HasField("volume_content_source"):
        msg = "csi-model makes no volumes from snapshots or other volumes; name the model in the storage class's parameters"
        raise InvalidRequestError(msg)  # so says the specification for a plugin without the capability
    _refuse_mutable(request.mutable_parameters)


def _refuse_mutable(parameters: object) -> None:
    if parameters:
        msg = "csi-model's volumes have no parameters that can be changed; remove the VolumeAttributesClass"
        raise InvalidRequestError(msg)
