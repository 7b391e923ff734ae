"""The Node service: make a model appear at a path of this node, and take it away again.

kubelet gives a call two minutes. A publish whose model is still being pulled is held as long as that allows, because kubelet's
pauses between tries double up to two minutes: the pod then starts the moment the pull ends, not at the end of a pause.
"""

# ruff: noqa: ARG002, N802 - the names and arguments of gRPC methods are given

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from csi_model.csi import capability, volumeid
from csi_model.csi.advice import advised
from csi_model.csi.context import VolumeContext, parse_request
from csi_model.csi.observed import observed
from csi_model.errors import BusyError, InvalidRequestError
from csi_model.generated import csi_pb2
from csi_model.generated.csi_pb2_grpc import NodeServicer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import grpc

    from csi_model.csi.engine import Engine
    from csi_model.volumes.observer import Observer, Tell

log = structlog.get_logger(__name__)

_RPC = csi_pb2.NodeServiceCapability.RPC
# Time left for the answer to get back, and the longest wait when the caller set no deadline or a longer one than kubelet's.
_ANSWER_SECONDS = 10.0
_LONGEST_WAIT = 110.0
_MAX_NODE_ID = 256


class Node(NodeServicer):
    """Parses requests and hands them to the engine; at most ``publishes`` of them at once, so that other calls find a free worker."""

    def __init__(
        self,
        engine: Engine,
        *,
        node_id: str,
        publishes: int,
        layouts: Sequence[str] = (),
        relabels: bool = False,
        observers: Sequence[Observer] = (),
    ) -> None:
        """``relabels`` says that this node's container runtime relabels volumes which their pods do not call read-only (SELinux)."""
        if not 0 < len(node_id.encode()) <= _MAX_NODE_ID:
            msg = f"the node id has {len(node_id.encode())} bytes; give --node-id 1 to {_MAX_NODE_ID}"
            raise InvalidRequestError(msg)
        self._engine = engine
        self._node_id = node_id
        self._layouts = tuple(layouts)
        self._relabels = relabels
        self._observers = tuple(observers)
        self._publishes = publishes
        self._free = threading.BoundedSemaphore(publishes)

    def NodePublishVolume(
        self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodePublishVolumeResponse:
        """Show the volume's view at the target path, read-only whatever the request says."""
        with observed(request, self._observers) as tell, advised():
            self._publish(request, context, tell)
        return csi_pb2.NodePublishVolumeResponse()

    def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Take the volume away from the target path; fine when it is not there, since kubelet would ask again forever."""
        volumeid.demand(request.volume_id)
        _require_path("target_path", request.target_path)
        if volumeid.is_possible(request.volume_id):
            self._engine.unpublish(volume_id=request.volume_id, target=request.target_path)
        return csi_pb2.NodeUnpublishVolumeResponse()

    def NodeGetVolumeStats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """The view's own size: nothing is free in it, and the disk it lies on is not the pod's business."""
        volumeid.demand(request.volume_id)
        _require_path("volume_path", request.volume_path)
        volumeid.find(request.volume_id)
        usage = self._engine.stats(volume_id=request.volume_id, path=request.volume_path)
        return csi_pb2.NodeGetVolumeStatsResponse(
            usage=[
                csi_pb2.VolumeUsage(total=usage.bytes, used=usage.bytes, unit=csi_pb2.VolumeUsage.BYTES),
                csi_pb2.VolumeUsage(total=usage.inodes, used=usage.inodes, unit=csi_pb2.VolumeUsage.INODES),
            ]
        )

    def NodeGetCapabilities(
        self, request: csi_pb2.NodeGetCapabilitiesRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        """Statistics, and nothing else: inline volumes are never staged, and a read-only volume neither grows nor changes its group."""
        stats = csi_pb2.NodeServiceCapability(rpc=_RPC(type=_RPC.GET_VOLUME_STATS))
        return csi_pb2.NodeGetCapabilitiesResponse(capabilities=[stats])

    def NodeGetInfo(self, request: csi_pb2.NodeGetInfoRequest, context: grpc.ServicerContext) -> csi_pb2.NodeGetInfoResponse:
        """The node's name; volumes are not limited in number, and any node reaches any registry."""
        return csi_pb2.NodeGetInfoResponse(node_id=self._node_id)

    def _publish(self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext, tell: Tell) -> None:
        volumeid.require(request.volume_id)
        _require_path("target_path", request.target_path)
        if not request.HasField("volume_capability"):
            msg = "volume_capability is missing"
            raise InvalidRequestError(msg)
        capability.require(request.volume_capability)
        volume = VolumeContext.parse(request.volume_context)
        if self._relabels and not request.readonly:
            _refuse_relabelling(volume)
        wanted = parse_request(volume.attributes, layouts=self._layouts)
        with self._worker():
            self._engine.publish(
                volume_id=request.volume_id,
                target=request.target_path,
                request=wanted,
                secrets=dict(request.secrets),
                deadline=time.monotonic() + wait_seconds(context.time_remaining()),
                tell=tell,
            )

    @contextmanager
    def _worker(self) -> Iterator[None]:
        if not self._free.acquire(blocking=False):
            msg = f"{self._publishes} publishes are waiting on this node already; try again, or raise csi.workers"
            raise BusyError(msg)
        try:
            yield
        finally:
            self._free.release()


def wait_seconds(remaining: float | None) -> float:
    """How long a publish may wait, given the seconds until its caller gives up (None: never).

    A caller with less than twice the margin gets half of what it gave.
    """
    if remaining is None:
        return _LONGEST_WAIT
    return min(max(remaining - _ANSWER_SECONDS, remaining / 2, 0.0), _LONGEST_WAIT)


def _refuse_relabelling(volume: VolumeContext) -> None:
    """Kubelet has the container runtime relabel any volume that its pod did not call read-only, which fails on one that is."""
    if volume.ephemeral is None:
        return
    where = "beside driver in the pod's csi volume" if volume.ephemeral else "beside claimName in the pod's persistentVolumeClaim volume"
    msg = f"this node has SELinux, which would relabel the volume; set readOnly: true {where}"
    raise InvalidRequestError(msg)


def _require_path(name: str, path: str) -> None:
    if not path or "\0" in path or len(path.encode()) >= 4096:
        msg = f"{name} is missing, has a NUL, or is no path that Linux can name"
        raise InvalidRequestError(msg)
