"""What liveness and readiness probes ask: whether the driver lives, and whether kubelet can use it.

Each question is answered by what is wrong, or by None. A restart cures a driver that does not answer, and nothing else: one that is still
starting, has no disk left or waits for a registry lives.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from csi_model.generated import csi_pb2
from csi_model.generated.csi_pb2_grpc import IdentityStub

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

_PROBE_SECONDS = 3.0


class Health:
    """The driver's course from its start to its end; made before the driver starts, and safe to ask from many threads."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._registered: threading.Event | None = None
        self._over = False

    @contextmanager
    def serving(self, path: Path, registered: threading.Event | None) -> Iterator[None]:
        """CSI is served at ``path`` for the body; what comes after it is the driver's end.

        ``registered`` is set once kubelet has registered the driver; None when kubelet will not be asked to.
        """
        self._registered = registered
        self._path = path
        try:
            yield
        finally:
            self._over = True
            self._path = None

    @property
    def is_registered(self) -> bool:
        """Whether kubelet has registered the driver."""
        return self._registered is not None and self._registered.is_set()

    def dead_because(self) -> str | None:
        """Why a restart would help: CSI is served, but a call over its socket is not answered in time."""
        path = self._path
        if path is None:
            return None
        failure = _probe(path)
        return failure if self._path is not None else None  # it may have ended meanwhile, in good order

    def unready_because(self) -> str | None:
        """Why kubelet cannot use the driver now."""
        if self._path is None:
            return "the driver is stopping" if self._over else "the driver is starting"
        if self._registered is not None and not self._registered.is_set():
            return "kubelet has not registered the driver yet"
        return None


def _probe(path: Path) -> str | None:
    """Call Identity.Probe as kubelet would, on a connection of its own: a socket that was removed is found out, too."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
        try:
            IdentityStub(channel).Probe(csi_pb2.ProbeRequest(), timeout=_PROBE_SECONDS)
        except grpc.RpcError as error:
            return f"Identity.Probe at {path} ended with {error.code().name}"
    return None
