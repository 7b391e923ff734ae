"""The driver's word to Kubernetes, put together: what happens to publishes becomes events, and the startup taint goes in time."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from csi_model.kube import trouble
from csi_model.kube.api import ApiServer
from csi_model.kube.gate import Gate
from csi_model.kube.narrate import Narrator
from csi_model.kube.notes import Subject
from csi_model.kube.posting import Poster
from csi_model.linux.kernel import KernelVersion
from csi_model.volumes.observer import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from csi_model.config.model import Config
    from csi_model.kube.api import Cluster
    from csi_model.kube.notes import Note
    from csi_model.mount.strategy import Ladder
    from csi_model.volumes.observer import Happening, PublishCall

_GRACE = 2.0


class Agent:
    """Hears of publishes and of registrations, from any thread, and returns at once."""

    def __init__(self, *, node: str, poster: Poster | None, gate: Gate | None) -> None:
        """Without ``poster`` nothing is said, without ``gate`` no taint is looked after."""
        self._node = Subject.node(node)
        self._poster = poster
        self._gate = gate
        self._narrator = Narrator()
        self._lock = threading.Lock()

    def observe(self, call: PublishCall, happening: Happening) -> None:
        """Tell the pod, and the node where its admin should know."""
        if self._poster is None:
            return
        with self._lock:
            note = self._narrator.hear(call, happening, time.monotonic())
        if note is not None:
            self._poster.add(note)
        if isinstance(happening, Refused):
            concern = trouble.of_refusal(self._node, call, happening.error)
            if concern is not None:
                self._poster.add(concern)

    def registered(self) -> None:
        """Kubelet has registered the driver."""
        if self._gate is not None:
            self._gate.look()

    def introduce(self, ladder: Ladder, version: KernelVersion) -> None:
        """Say of the node how volumes are mounted on it, where that could be better."""
        self._tell(trouble.of_ladder(self._node, ladder, version))

    def weigh(self, free: int, reserve: int) -> None:
        """Say of the node when its disk holds no more models; both are bytes."""
        self._tell(trouble.of_space(self._node, free, reserve))

    def _tell(self, note: Note | None) -> None:
        if note is not None and self._poster is not None:
            self._poster.add(note)


@contextmanager
def open_agent(config: Config, node: str, ladder: Ladder, *, free: int, cluster: Cluster | None = None) -> Iterator[Agent]:
    """An agent for the body; at its end what is still to be said has two seconds.

    ``free`` is how many bytes the state directory's disk has left; ``cluster`` stands in for that of this pod.

    Raises:
        InvalidRequestError: this process has no service account.
    """
    driver, settings = config.csi.driver_name, config.kubernetes
    with ExitStack() as stack:
        if cluster is None:
            cluster = server = ApiServer.of_pod(component=driver, node=node)
            stack.callback(server.close)
        poster = Poster(cluster) if settings.events else None
        gate = Gate(cluster, driver=driver, node=node) if settings.startup_taint else None
        for part in (poster, gate):
            if part is not None:
                part.start()
                stack.callback(part.close, _GRACE)
        agent = Agent(node=node, poster=poster, gate=gate)
        agent.introduce(ladder, KernelVersion.running())
        agent.weigh(free, config.pull.free_space_reserve)
        yield agent
