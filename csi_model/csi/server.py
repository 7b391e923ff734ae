"""The two gRPC servers of a node, a large one for CSI and a small one for registration, and the one of a controller.

A publish that waits for a pull holds a worker thread. Registration and Identity therefore have threads of their own, and publishes may
not take the last ``RESERVED`` workers of the large server: unpublishing, statistics and probes always find one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc

from csi_model.csi.calllog import LogInterceptor
from csi_model.csi.measured import MeterInterceptor
from csi_model.csi.status import StatusInterceptor
from csi_model.generated.csi_pb2_grpc import (
    add_ControllerServicer_to_server,
    add_IdentityServicer_to_server,
    add_NodeServicer_to_server,
)
from csi_model.generated.pluginregistration_pb2_grpc import add_RegistrationServicer_to_server

if TYPE_CHECKING:
    from csi_model.csi.controller import Controller
    from csi_model.csi.identity import Identity
    from csi_model.csi.interceptor import Interceptor
    from csi_model.csi.measured import CallMeter
    from csi_model.csi.node import Node
    from csi_model.csi.registration import Registration

RESERVED = 32
_REGISTRATION_WORKERS = 4
_CONTROLLER_WORKERS = 8


def csi_server(identity: Identity, controller: Controller, node: Node, *, workers: int, meter: CallMeter | None = None) -> grpc.Server:
    """A server for the CSI socket, neither bound nor started; ``meter`` is told of its calls."""
    server = _server("csi", workers, meter)
    add_IdentityServicer_to_server(identity, server)
    add_ControllerServicer_to_server(controller, server)
    add_NodeServicer_to_server(node, server)
    return server


def controller_server(identity: Identity, controller: Controller) -> grpc.Server:
    """A server for the socket of a controller without a node, neither bound nor started; no call there waits for anything."""
    server = _server("csi", _CONTROLLER_WORKERS)
    add_IdentityServicer_to_server(identity, server)
    add_ControllerServicer_to_server(controller, server)
    return server


def registration_server(identity: Identity, registration: Registration) -> grpc.Server:
    """A server for the registration socket, neither bound nor started."""
    server = _server("registration", _REGISTRATION_WORKERS)
    add_IdentityServicer_to_server(identity, server)
    add_RegistrationServicer_to_server(registration, server)
    return server


def _server(name: str, workers: int, meter: CallMeter | None = None) -> grpc.Server:
    # Log and meter are outside, so that they see the code which the status interceptor sets.
    measured = [MeterInterceptor(meter)] if meter is not None else []
    interceptors: list[Interceptor] = [LogInterceptor(), *measured, StatusInterceptor()]
    # kubelet connects anew for each call of a few hundred bytes: probing each connection's bandwidth would be wasted.
    options = [("grpc.http2.bdp_probe", 0)]
    return grpc.server(ThreadPoolExecutor(max_workers=workers, thread_name_prefix=name), interceptors=interceptors, options=options)
