"""The chart before a real API server: every object as it would take it, `helm test`, and what the driver's account may not do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from deploy.chart import MANIFESTS, PAGE, SCHEMA, helm, manifests, page, schema_text, template
from deploy.values import CHART
from e2e.kubernetes.examples import CRDS
from e2e.kubernetes.init import NAME
from e2e.kubernetes.installation import CHART as INSTALLED
from e2e.kubernetes.installation import NAMESPACE
from e2e.kubernetes.machine import CommandError
from e2e.kubernetes.node import DRIVER, STARTUP_TAINT, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node

_EVERY_SWITCH = str(CHART / "ci" / "every-switch-values.yaml")
_ACCOUNT = f"system:serviceaccount:{NAMESPACE}:csi-model-node"
_OTHER = "another-node"


@pytest.fixture(scope="module")
def prometheus(node: Node) -> Iterator[None]:
    """The API server knows PodMonitors, by their reduced schema."""
    crd = ("--filename", str(CRDS / "podmonitor.yaml"))
    node.kubectl("apply", "--validate=strict", *crd)
    node.kubectl("wait", "--for=condition=Established", "--timeout=60s", *crd)
    yield
    node.kubectl("delete", "--timeout=60s", *crd)


@pytest.fixture
def namespace(node: Node) -> Iterator[str]:
    """A namespace with none of the chart's objects in it but the account without which no pod of `helm test` is taken."""
    name = "dry-run"
    node.kubectl("create", "namespace", name)
    node.kubectl("create", "serviceaccount", "csi-model-test", "--namespace", name)
    yield name
    node.kubectl("delete", "namespace", name, "--timeout=60s")


def test_what_is_made_from_the_chart_is_fresh() -> None:
    """With helm at hand: schema, table and plain manifests are what the chart gives today, and lint, strict, is content with all values."""
    assert CHART == INSTALLED
    assert SCHEMA.read_text() == schema_text()
    assert PAGE.read_text() == page(PAGE.read_text())
    assert {path.name: path.read_text() for path in MANIFESTS.glob("*.yaml")} == manifests()
    for values in ((), ("--values", _EVERY_SWITCH)):
        assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), *values)


@pytest.mark.parametrize("options", [(), ("--values", _EVERY_SWITCH)], ids=["defaults", "every-switch"])
def test_the_api_server_accepts_every_object(node: Node, prometheus: None, namespace: str, options: tuple[str, ...]) -> None:
    """A server-side dry run with strict field validation takes what `helm template` gives, with the defaults and with every switch on."""
    # A driver of its own, so that nothing is compared with the objects of one that is installed.
    text = template(*options, "--set", "driverName=dry-run.example", namespace=namespace)
    kinds = sum(line.startswith("kind: ") for line in text.splitlines())
    answers = node.kubectl("apply", "--dry-run=server", "--validate=strict", "--filename", "-", text=text).splitlines()
    assert len(answers) == kinds
    assert all(answer.endswith("(server dry run)") for answer in answers if not answer.startswith("Warning: "))


def test_helm_test_passes(node: Node, driver: Installation, artifact: Model) -> None:
    """`helm test` finds the driver registered, and with a reference reads the model through a pod of its own; nothing of it stays."""
    driver.upgrade(test={"reference": artifact.reference})
    told = node.helm("test", "csi-model", "--namespace", NAMESPACE, "--timeout", "90s")
    assert told.count("Phase:          Succeeded") >= 2
    component = "app.kubernetes.io/component=test"
    left = node.kubectl("get", "pods,serviceaccounts,roles,clusterroles", "--all-namespaces", "--selector", component, "--output", "name")
    assert left == ""
    until("the model is unmounted", lambda: not [path for path in node.mounts("/var/lib/kubelet/pods") if "/kubernetes.io~csi/" in path])


def test_helm_refuses_a_wrong_configuration(driver: Installation) -> None:
    """An upgrade with a key that the driver does not know ends before anything is changed, and names the key's path."""
    before = driver.pod()["metadata"]["uid"]
    values = driver.values
    with pytest.raises(CommandError, match=r"(?s)/config/pull.*activeBlob"):
        driver.upgrade(config={**values["config"], "pull": {"activeBlob": 3}})
    driver.values = values
    assert driver.pod()["metadata"]["uid"] == before


@pytest.fixture
def tainted(node: Node, driver: Installation) -> Iterator[None]:
    """Taints of another agent on the node, and a second Node object."""
    node.kubectl("taint", "node", NAME, "other.example/agent-not-ready=:PreferNoSchedule")
    node.kubectl("create", "--filename", "-", text=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": _OTHER}}))
    yield
    node.kubectl("taint", "node", NAME, "other.example/agent-not-ready-")
    node.kubectl("delete", "node", _OTHER)


def _as_driver(node: Node, target: str, patch: object) -> str:
    """A patch of a Node with the account of the driver's pod on ``NAME``."""
    who = (f"--as={_ACCOUNT}", f"--as-user-extra=authentication.kubernetes.io/node-name={NAME}")
    return node.kubectl(*who, "patch", "node", target, "--type=merge", "--dry-run=server", "--patch", json.dumps(patch))


def test_a_drivers_account_may_only_take_its_own_taint_off_its_own_node(node: Node, tainted: None) -> None:
    """Another Node, another's taint, a new taint, a label, a finalizer, a cordon and a machine's name are refused by the policy; its own taint is not."""
    taints = node.describe()["spec"].get("taints") or []
    more = {"key": "x.example/y", "effect": "NoSchedule"}
    refusals = {
        "may not change node another-node": (_OTHER, {"spec": {"taints": None}}),
        "labels and annotations": (NAME, {"metadata": {"labels": {"a": "b"}}}),
        "not add or change any": (NAME, {"spec": {"taints": [*taints, more]}}),
        "may take away no taint but its own": (NAME, {"spec": {"taints": []}}),
        "may not cordon": (NAME, {"spec": {"unschedulable": True}}),
        "owners and finalizers": (NAME, {"metadata": {"finalizers": ["x.example/y"]}}),
        "which machine and which addresses": (NAME, {"spec": {"providerID": "x://y"}}),
    }
    for text, (target, patch) in refusals.items():
        with pytest.raises(CommandError, match=text):
            _as_driver(node, target, patch)
    node.kubectl("taint", "node", NAME, f"{STARTUP_TAINT}=:PreferNoSchedule")
    with_own = node.describe()["spec"]["taints"]
    assert STARTUP_TAINT in [taint["key"] for taint in with_own]
    without = [taint for taint in with_own if taint["key"] != STARTUP_TAINT]
    assert "patched" in _as_driver(node, NAME, {"spec": {"taints": without}})
    node.kubectl("taint", "node", NAME, f"{STARTUP_TAINT}-")
    assert node.drivers() == [DRIVER]
