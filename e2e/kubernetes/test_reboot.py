"""Scenario 7: the node loses power, and its registry stays away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2e.kubernetes import manifests
from e2e.kubernetes.conftest import PASSWORD, USER
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods
    from e2e.kubernetes.registries import NodeRegistry


def test_pods_come_back_from_the_cache(
    node: Node, driver: Installation, private: NodeRegistry, artifact: Model, car: Model, pods: Pods
) -> None:
    """All processes killed, all mounts gone, the disk kept, no registry: the same pods run again and read the same bytes."""
    pods.need(manifests.secret("reboot-login", private.host, USER, PASSWORD))
    volumes = {
        "open": manifests.inline(artifact.reference),
        "car": manifests.inline(car.reference, path="/models"),
        "secret": manifests.inline(artifact.through(private.host), secret="reboot-login"),
    }
    pod = pods.run(manifests.pod("comes-back", volumes))
    with node.rebooted():
        until("the driver is back", driver.ready, within=120)
        until("the pod's container was started again", lambda: pod.restarts() > 0, within=120)
        pod.wait_ready(within=120)
        assert pod.checksums("/open") == pod.checksums("/secret") == artifact.files
        assert pod.checksums("/car") == car.files
        pods.end()
    until("no view is left", lambda: not driver.views(), within=30)
