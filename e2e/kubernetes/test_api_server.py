"""Scenario 11: the API server is away, and kubelet works from what it knows."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from e2e.kubernetes import manifests, models
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods
    from e2e.kubernetes.registries import NodeRegistry, SlowWire

_AWAY = 60


def test_pods_start_and_restart_without_the_api_server(
    node: Node, driver: Installation, registry: NodeRegistry, slow_wire: SlowWire, artifact: Model, pods: Pods, tmp_path: Path
) -> None:
    """In a minute without the API server a pull ends and its pod starts, a container that ends is started again, and all read right."""
    model = models.made_up(registry, "meanwhile", tmp_path, mebibytes=8)
    ends = manifests.container("ends", {"model": "/model"}, command="sha256sum /model/config.json; sleep 20")
    restarts = pods.run(manifests.pod("restarts", {"model": manifests.inline(artifact.reference)}, containers=[ends]))
    slow_wire.set_rate(16 * 1024)
    (starts,) = pods.start(manifests.pod("starts", {"model": manifests.inline(slow_wire.seen_here(model.reference))}))
    starts.wait_event("Pulling")
    before = restarts.restarts()
    gone = time.time()
    with node.without("apiserver"):
        slow_wire.set_rate(64 << 20)
        time.sleep(_AWAY)
        back = time.time()
    starts.wait_ready()
    (status,) = starts.status()["containerStatuses"]
    started = datetime.fromisoformat(status["state"]["running"]["startedAt"]).timestamp()
    assert gone - 1 <= started <= back, "it was started while the API server was away"
    until("kubelet has reported the restarts", lambda: restarts.restarts() > before)
    assert starts.checksums("/model") == model.files
    slow_wire.set_rate(0)
