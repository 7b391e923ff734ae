"""The startup taint: pods are kept off the node until kubelet knows the driver, and no longer."""

from __future__ import annotations

import enum
import threading
from typing import TYPE_CHECKING

import structlog

from csi_model.errors import ConflictError, CsiModelError, InvalidRequestError
from csi_model.kube.backoff import Backoff
from csi_model.kube.taints import removal, startup_taint

if TYPE_CHECKING:
    from csi_model.kube.api import Cluster

log = structlog.get_logger(__name__)

_LOOK_EVERY = 120.0


class Found(enum.Enum):
    """What one look at the node came to."""

    OPEN = "open"
    """The node has no such taint."""
    REMOVED = "removed"
    NOT_LISTED = "not listed"
    """The taint stays, for the node's CSINode object does not list the driver yet."""
    CHANGED = "changed"
    """Somebody changed the node's taints at the same moment."""


class Gate:
    """Removes the taint ``<driver>/agent-not-ready`` from the node whenever it is there and the driver is in the node's CSINode object.

    Nothing is done before the first ``look``: what CSINode lists at the start may be the driver that was killed before us. kubelet gives
    a node its taints when it makes the Node object, which may happen again: the node is looked at anew every two minutes, and after each
    registration of the driver.
    """

    def __init__(self, cluster: Cluster, *, driver: str, node: str, backoff: Backoff | None = None) -> None:
        self._cluster = cluster
        self._driver = driver
        self._node = node
        self._backoff = backoff or Backoff(first=1.0, longest=30.0)
        self._wake = threading.Event()
        self._closing = False
        self._troubled = False
        self._thread = threading.Thread(target=self._run, name="taint", daemon=True)

    def start(self) -> None:
        """Be ready to look."""
        self._thread.start()

    def look(self) -> None:
        """Kubelet has registered the driver: look at the node soon; returns at once."""
        self._wake.set()

    def close(self, grace: float) -> None:
        """Stop."""
        self._closing = True
        self._wake.set()
        self._thread.join(grace)

    def check(self) -> Found:
        """Look at the node once and do what is to be done.

        Raises:
            CsiModelError: the API server does not answer, or does not let us.
        """
        patch = removal(self._cluster.taints(self._node), startup_taint(self._driver))
        if not patch:
            return Found.OPEN
        if not self._cluster.has_driver(self._node, self._driver):
            return Found.NOT_LISTED
        try:
            self._cluster.patch_node(self._node, patch)
        except (ConflictError, InvalidRequestError):
            return Found.CHANGED
        return Found.REMOVED

    def _run(self) -> None:
        self._wake.wait()
        while not self._closing:
            self._wake.clear()
            self._wake.wait(self._pause())

    def _pause(self) -> float:
        """Look, and say how long the next look can wait."""
        try:
            found = self.check()
        except CsiModelError as error:
            if not self._troubled:
                log.warning("startup_taint_unknown", node=self._node, error=str(error))
            self._troubled = True
            return self._backoff.next()
        self._troubled = False
        if found is Found.REMOVED:
            log.info("startup_taint_removed", node=self._node, taint=startup_taint(self._driver))
        if found in {Found.NOT_LISTED, Found.CHANGED}:
            return self._backoff.next()
        self._backoff.reset()
        return _LOOK_EVERY
