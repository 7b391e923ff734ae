"""Two releases with names of their own on one node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from e2e.kubernetes import manifests
from e2e.kubernetes.installation import CHART
from e2e.kubernetes.node import DRIVER, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods

_TRIAL = "trial.csi-model.dev"
_STATE = f"/var/lib/{_TRIAL}"


@pytest.fixture
def trial(node: Node, driver: Installation) -> Iterator[str]:
    """A second release, in a namespace of its own, as docs/install.md has it."""
    where = ("--namespace", "trial")
    node.kubectl("create", "namespace", "trial")
    node.kubectl("label", "namespace", "trial", "pod-security.kubernetes.io/enforce=privileged")
    try:
        node.helm("install", "trial", str(CHART), *where, "--values", "-", text=yaml.safe_dump({**driver.values, "driverName": _TRIAL}))
        until("kubelet knows both drivers", lambda: sorted(node.drivers()) == sorted([DRIVER, _TRIAL]), within=90)
        yield _TRIAL
        node.helm("uninstall", "trial", *where)
        until("its pods are gone", lambda: not node.api.items("/api/v1/namespaces/trial/pods"), within=90)
        assert node.mounts(_STATE) == []
    finally:
        node.kubectl("delete", "namespace", "trial", "--timeout=60s")


def test_two_drivers_on_one_node(node: Node, driver: Installation, trial: str, artifact: Model, pods: Pods) -> None:
    """A pod of each driver reads the same model, each from a store of its own, and the other's end disturbs neither."""
    volume = manifests.inline(artifact.reference)
    other = {"csi": {**volume["csi"], "driver": trial}}
    first = pods.run(manifests.pod("first", {"model": volume}))
    second = pods.run(manifests.pod("second", {"model": other}))
    assert first.checksums("/model") == second.checksums("/model") == artifact.files
    assert node.mounts(_STATE)
    assert driver.views()
    second.delete(grace=0)
    second.wait_gone()
    assert first.checksums("/model") == artifact.files
