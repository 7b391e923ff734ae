"""Scenario 11: the API server is away, and kubelet works from what it knows."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from e2e.kubernetes import manifests, models
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.kubernetes.figures import Record
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pod, Pods
    from e2e.kubernetes.registries import NodeRegistry


def containers(node: Node, pod: Pod) -> int:
    """How many containers kubelet has started for a pod until now, which needs no API server to be told: each has a log of its own."""
    return len(list(node.machine.path("/var/log/pods").glob(f"{pod.namespace}_{pod.name}_{pod.uid}/*/*.log")))


def test_pods_start_and_restart_without_the_api_server(
    node: Node, driver: Installation, cut: NodeRegistry, artifact: Model, pods: Pods, tmp_path: Path, record_property: Record
) -> None:
    """Without the API server kubelet publishes a volume, which is pulled then, starts its pod, and starts a container again that ended."""
    model = models.made_up(cut, "meanwhile", tmp_path, mebibytes=8)
    ends = manifests.container("ends", {"model": "/model"}, command="sha256sum /model/config.json; sleep 20")
    restarts = pods.run(manifests.pod("restarts", {"model": manifests.inline(artifact.reference)}, containers=[ends]))
    cut.stop()
    (starts,) = pods.start(manifests.pod("starts", {"model": manifests.inline(model.reference)}))
    starts.wait_event("FailedMount", cut.host, within=60)
    with node.without("apiserver"):
        gone = time.time()
        before, asked = containers(node, restarts), len(driver.calls("NodePublishVolume", starts.uid))
        # A call that began before fails; the next one finds a registry.
        until("a call has failed", lambda: len(driver.calls("NodePublishVolume", starts.uid)) > asked, within=90)
        cut.start()
        until("the volume is mounted", lambda: len(starts.mounts()) == 1, within=90)
        until("its pod's container runs", lambda: containers(node, starts) == 1)
        until("the other pod's container was started again", lambda: containers(node, restarts) > before, within=90)
        back = time.time()
    record_property("without the API server", f"{back - gone:.0f} s")
    starts.wait_ready()
    assert starts.checksums("/model") == model.files
    last = driver.calls("NodePublishVolume", starts.uid)[-1]
    ended = datetime.fromisoformat(last["timestamp"]).timestamp()
    assert last["code"] == "OK"
    assert gone < ended - last["seconds"] < ended < back, "kubelet's call began and ended while the API server was away"
