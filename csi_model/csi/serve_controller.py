"""Serve Identity and Controller alone, beside the external provisioner: without root, state, registry or kubelet.

A storage class may name nodes' OCI layouts only where the configuration allows it, so both halves of the driver read the same file.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import structlog

from csi_model.csi import sockets
from csi_model.csi.controller import Controller
from csi_model.csi.identity import Identity
from csi_model.csi.server import controller_server
from csi_model.csi.shutdown import Shutdown
from csi_model.oci.layouturl import LayoutLocation

if TYPE_CHECKING:
    from csi_model.config.model import Config

log = structlog.get_logger(__name__)

# Each call is a computation; none of them is worth waiting for.
_GRACE_SECONDS = 2.0


def run_controller(config: Config, *, endpoint: str, shutdown: Shutdown | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. ``shutdown`` stands in for signals outside the main thread.

    Raises:
        InvalidRequestError: the endpoint cannot be used, or a layout prefix of the configuration is none.
        BusyError: another process serves the socket.
        UnavailableError: the kernel refused the socket.
    """
    ending = shutdown or Shutdown()
    ready = threading.Event()
    path = sockets.parse_endpoint(endpoint)
    layouts = config.layouts.allowed_prefixes
    for prefix in layouts:
        # Refused now rather than at each claim whose class names a layout.
        LayoutLocation.parse(prefix)
    server = controller_server(Identity(config.csi.driver_name, ready), Controller(layouts=layouts))
    with ExitStack() as stack:
        stack.enter_context(ending.on_signals())
        sockets.listen(server, path)
        stack.callback(path.unlink, missing_ok=True)
        server.start()
        stack.callback(lambda: server.stop(_GRACE_SECONDS).wait(_GRACE_SECONDS + 1))
        ready.set()
        log.info("serving", endpoint=str(path), driver=config.csi.driver_name)
        exit_code = ending.wait()
        log.info("stopping", exit_code=exit_code)
    return exit_code
