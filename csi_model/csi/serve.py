"""Run the driver: serve CSI, register with kubelet, and stop in good order.

The CSI socket is served before the registration socket appears, because kubelet calls the one as soon as it sees the other. On SIGTERM
the registration socket goes first; publishes that wait are answered UNAVAILABLE, which makes kubelet come back; what is
published stays published, for mounts live in the kernel and pods go on reading.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import structlog

from csi_model.csi import sockets
from csi_model.csi.controller import Controller
from csi_model.csi.health import Health
from csi_model.csi.identity import Identity
from csi_model.csi.node import Node
from csi_model.csi.registration import Registration
from csi_model.csi.server import RESERVED, csi_server, registration_server
from csi_model.csi.shutdown import Shutdown
from csi_model.oci.layouturl import LayoutLocation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import grpc

    from csi_model.config.model import Config
    from csi_model.csi.engine import Engine
    from csi_model.csi.measured import CallMeter
    from csi_model.volumes.observer import Observer

log = structlog.get_logger(__name__)

GRACE_SECONDS = 20.0


def run(
    config: Config,
    engine: Engine,
    *,
    endpoint: str,
    node_id: str,
    registration_dir: Path | None,
    health: Health | None = None,
    meter: CallMeter | None = None,
    relabels: bool = False,
    observers: Sequence[Observer] = (),
    registered: Callable[[], None] = lambda: None,
    shutdown: Shutdown | None = None,
) -> int:
    """Serve until SIGTERM, SIGINT or kubelet's refusal; return the exit code.

    A call that has not ended ``GRACE_SECONDS`` after the signal is cancelled, but its thread may live on: the caller ends the process with ``os._exit``
    once its own clean-up is done. Signals are handled in the main thread only; elsewhere ``shutdown`` stands in for them.
    ``health`` is kept up to date, and ``meter`` told of the calls.
    ``relabels`` and ``observers`` are as for ``Node``; ``registered`` is called each time that kubelet has registered the driver.

    Raises:
        InvalidRequestError: endpoint, node id or registration directory cannot be used.
        BusyError: another process serves one of the sockets.
        UnavailableError: the kernel refused a socket.
    """
    ending = shutdown or Shutdown()
    health = health or Health()
    ready = threading.Event()
    path = sockets.parse_endpoint(endpoint)
    identity = Identity(config.csi.driver_name, ready)
    layouts = config.layouts.allowed_prefixes
    for prefix in layouts:
        # Refused now rather than at each publish that names a layout.
        LayoutLocation.parse(prefix)
    node = Node(engine, node_id=node_id, publishes=config.csi.workers - RESERVED, layouts=layouts, relabels=relabels, observers=observers)
    registration = Registration(
        driver=config.csi.driver_name, endpoint=str(path), accepted=registered, refused=lambda _reason: ending.ask(exit_code=1)
    )
    with ExitStack() as stack:
        stack.enter_context(ending.on_signals())
        server = csi_server(identity, Controller(layouts=layouts), node, workers=config.csi.workers, meter=meter)
        stack.enter_context(_served(server, path, engine))
        ready.set()
        stack.enter_context(health.serving(path, registration.registered if registration_dir is not None else None))
        if registration_dir is not None:
            socket = sockets.parse_endpoint(str(registration_dir / f"{config.csi.driver_name}-reg.sock"))
            stack.enter_context(_registered(registration_server(identity, registration), socket))
        log.info("serving", endpoint=str(path), node_id=node_id, driver=config.csi.driver_name)
        exit_code = ending.wait()
        log.info("stopping", exit_code=exit_code)
    return exit_code


@contextmanager
def _served(server: grpc.Server, path: Path, engine: Engine) -> Iterator[None]:
    sockets.listen(server, path)
    server.start()
    try:
        yield
    finally:
        # First no new calls, then an end to those that wait.
        stopped = server.stop(GRACE_SECONDS)
        engine.stop()
        if not stopped.wait(GRACE_SECONDS + 1):
            log.error("calls did not end within the grace period", seconds=GRACE_SECONDS)
        path.unlink(missing_ok=True)


@contextmanager
def _registered(server: grpc.Server, path: Path) -> Iterator[None]:
    sockets.listen(server, path)
    server.start()
    try:
        yield
    finally:
        # kubelet takes the socket's disappearance for the driver's.
        path.unlink(missing_ok=True)
        server.stop(1).wait(2)
