"""Scenario 9: 110 pods on one node at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from e2e.kubernetes import manifests, models
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.kubernetes.figures import Record
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods
    from e2e.kubernetes.registries import NodeRegistry

_PODS = 110


@pytest.mark.timeout(1500)
def test_a_hundred_and_ten_pods_at_once(
    node: Node, driver: Installation, registry: NodeRegistry, pods: Pods, tmp_path: Path, record_property: Record
) -> None:
    """All become Ready on three models, each byte of which was served once; deleted at once, they leave no mount."""
    shared = [models.made_up(registry, f"crowd-{number}", tmp_path, mebibytes=32) for number in range(3)]
    used = driver.cpu_seconds()
    began = time.monotonic()
    started = pods.start(
        *(manifests.pod(f"crowd-{number}", {"model": manifests.inline(shared[number % 3].reference)}) for number in range(_PODS))
    )
    highest = 0

    def all_ready() -> bool:
        nonlocal highest
        highest = max(highest, driver.resident())
        listed = node.api.items("/api/v1/namespaces/default/pods")
        return sum(_is_ready(pod) for pod in listed if pod["metadata"]["name"].startswith("crowd-")) == _PODS

    until(f"{_PODS} pods are Ready", all_ready, within=900)
    ready = time.monotonic() - began
    for model in shared:
        assert sum(registry.served()[f"sha256:{digest}"] for digest in model.files.values()) == model.size
    for number in range(0, _PODS, 10):
        assert started[number].checksums("/model") == shared[number % 3].files
    began = time.monotonic()
    node.kubectl("delete", "pods", "--all", "--wait=false", "--grace-period=1")
    until("no pod's folder or mount is left", lambda: all(pod.left_nothing() for pod in started), within=600)
    gone = time.monotonic() - began
    until("no view is left after the idle time", lambda: not driver.views(), within=30)
    spent = driver.cpu_seconds() - used
    record_property(f"{_PODS} pods Ready", f"{ready:.0f} s")
    record_property(f"{_PODS} pods gone", f"{gone:.0f} s")
    record_property("driver's memory at most", f"{highest / 2**20:.0f} MiB")
    record_property("driver's CPU time", f"{spent:.1f} s")


def _is_ready(pod: dict[str, dict[str, list[dict[str, str]]]]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions") or ())
