"""Scenario 8: the registry is down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2e.kubernetes import manifests, models
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods
    from e2e.kubernetes.registries import NodeRegistry


def test_a_cached_model_needs_no_registry(driver: Installation, artifact: Model, cut: NodeRegistry, pods: Pods) -> None:
    """A pod whose model is on the node starts while the registry is down."""
    pods.run(manifests.pod("before", {"model": manifests.inline(artifact.reference)}))
    cut.stop()
    pod = pods.run(manifests.pod("after", {"model": manifests.inline(artifact.reference)}))
    assert pod.checksums("/model") == artifact.files


def test_a_new_model_waits_for_the_registry(node: Node, driver: Installation, cut: NodeRegistry, pods: Pods, tmp_path: Path) -> None:
    """Events name the registry, to the pod's owner also what failed and that it is tried again; when the registry is back the pod starts by itself."""
    model = models.made_up(cut, "new", tmp_path, mebibytes=4)
    cut.stop()
    (pod,) = pods.start(manifests.pod("new", {"model": manifests.inline(model.reference)}))
    event = pod.wait_event("FailedMount", cut.host, "refused", within=150)
    assert "again" in event.message
    until("the node's admin is told", lambda: any(cut.host in text for text in node.told("RegistryUnavailable")), within=30)
    cut.start()
    pod.wait_ready(within=150)
    assert pod.checksums("/model") == model.files
