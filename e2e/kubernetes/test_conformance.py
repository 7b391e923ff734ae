"""Scenario 13: csi-sanity against the driver in its pod, and the life of a claim that is deleted in the wrong order."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.kubernetes import manifests
from e2e.kubernetes.installation import SOCKETS, with_class
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from e2e.kubernetes.figures import Record
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods

_SUMMARY = re.compile(r"(\d+) Passed.*?(\d+) Failed")


def test_csi_sanity_passes_in_the_daemonset(node: Node, driver: Installation, artifact: Model, record_property: Record) -> None:
    """Through the socket that kubelet uses, with the real model as the volume's parameters, no spec fails."""
    beside = Path(sys.executable).parent / "csi-sanity"
    program = str(beside) if beside.exists() else shutil.which("csi-sanity")
    if program is None:
        pytest.fail("csi-sanity is missing; .ci/setup builds it where Go is")
    parameters = node.machine.folder / "tmp" / "sanity.yaml"
    parameters.write_text(f"reference: {artifact.reference}\n")
    folders = [f"--csi.{kind}dir=/var/lib/kubelet/pods/sanity-{kind}" for kind in ("mount", "staging")]
    printed = node.machine.run(
        *(program, f"--csi.endpoint={SOCKETS[0]}", *folders, f"--csi.testvolumeparameters={parameters}", "--ginkgo.no-color"),
        timeout=300,
        check=False,
    )
    (summary,) = _SUMMARY.findall(printed) or [None]
    assert summary is not None, printed[-4000:]
    passed, failed = map(int, summary)
    record_property("csi-sanity", f"{passed} passed, {failed} failed")
    assert failed == 0, printed[-8000:]
    assert passed >= 31


def test_a_volume_may_be_deleted_before_it_is_unpublished(node: Node, driver: Installation, artifact: Model, pods: Pods) -> None:
    """A pod deleted at once leaves the API before its volume is unmounted: DeleteVolume comes first, and NodeUnpublish works all the same."""
    driver.provide(with_class("minilm", artifact.reference))
    pods.need(manifests.claim("hasty", storageClassName="minilm"))
    # It ignores SIGTERM, so that kubelet has not come to its volume when the provisioner has dealt with the claim's.
    stays = "trap '' TERM; while :; do sleep 1; done"
    pod = pods.run(manifests.pod("hasty", {"model": manifests.claimed("hasty")}, command=stays, terminationGracePeriodSeconds=10))
    assert pod.checksums("/model") == artifact.files
    volume = node.volume_of("hasty")
    pod.delete(grace=0)
    node.kubectl("delete", "pvc/hasty", "--wait=false")
    until("the volume is deleted", lambda: node.api.find(volume) is None)
    assert len(pod.mounts()) == 1, "DeleteVolume came before NodeUnpublishVolume"
    pod.wait_gone()
