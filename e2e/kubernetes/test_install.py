"""Scenario 1: an admin installs the driver with helm, a user reads a model, and the driver is removed again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from e2e.kubernetes import manifests
from e2e.kubernetes.installation import STATE
from e2e.kubernetes.node import DRIVER, STARTUP_TAINT, until

if TYPE_CHECKING:
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods

pytestmark = pytest.mark.gate


def test_helm_install_makes_the_node_usable(node: Node, driver: Installation) -> None:
    """After `helm install` the driver's pod is Ready, CSINode lists it, and the node's startup taint goes."""
    assert driver.ready()
    assert node.drivers() == [DRIVER]
    until("the startup taint is gone", lambda: STARTUP_TAINT not in node.taints(), within=30)


def test_an_inline_pod_reads_the_real_model(driver: Installation, artifact: Model, pods: Pods) -> None:
    """A pod that names a model in a CSI volume reads every file of it, byte for byte, and cannot write."""
    pod = pods.run(manifests.pod("reader", {"model": manifests.inline(artifact.reference)}))
    assert pod.checksums("/model") == artifact.files
    assert "Read-only file system" in pod.refused("touch /model/x")


def test_the_log_says_for_whom_a_volume_was_published(node: Node, driver: Installation, artifact: Model, pods: Pods) -> None:
    """The driver's line of a publish has the pod, its namespace and uid, the volume that kubelet means, the reference and the outcome."""
    pod = pods.run(manifests.pod("logged", {"model": manifests.inline(artifact.reference)}))
    known = json.loads(node.machine.path(f"{pod.volumes}/volumes/kubernetes.io~csi/model/vol_data.json").read_text())
    until("the line is written", lambda: len(driver.calls("NodePublishVolume", pod.uid)) == 1, within=5)
    (line,) = driver.calls("NodePublishVolume", pod.uid)
    who = {"pod": "logged", "namespace": "default", "volume_id": known["volumeHandle"], "reference": artifact.reference}
    assert {name: line.get(name) for name in (*who, "code")} == {**who, "code": "OK"}


def test_pods_read_on_without_the_driver(node: Node, driver: Installation, artifact: Model, pods: Pods) -> None:
    """`helm uninstall` takes nothing from a pod that runs; a driver that is installed again clears up after one that ended meanwhile."""
    stays = pods.run(manifests.pod("stays", {"model": manifests.inline(artifact.reference)}))
    ends = pods.run(manifests.pod("ends", {"model": manifests.inline(artifact.reference)}))
    driver.uninstall()
    assert driver.sockets() == []
    until("kubelet knows the driver no more", lambda: node.drivers() == [])
    assert stays.checksums("/model") == artifact.files
    ends.delete(grace=0)
    until("the pod has left the API", lambda: not ends.status())
    driver.install()
    ends.wait_gone()
    assert stays.checksums("/model") == artifact.files


def test_nothing_is_left_after_the_last_pod(node: Node, driver: Installation, artifact: Model, pods: Pods) -> None:
    """Once the pods are gone, `helm uninstall` leaves no mount and no socket on the node."""
    pod = pods.run(manifests.pod("last", {"model": manifests.inline(artifact.reference)}))
    pod.delete()
    pod.wait_gone()
    driver.uninstall()
    assert driver.sockets() == []
    assert node.mounts(STATE) == []
    until("kubelet has unmounted all", lambda: not node.mounts("/var/lib/kubelet/pods"), within=20)
