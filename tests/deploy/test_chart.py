"""The chart, rendered by helm with different values, versions and releases."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from csi_model.config.load import parse
from deploy.chart import HelmError, helm, template
from deploy.values import CHART, VALUES
from tests.deploy.rendered import EVERY_SWITCH, SECOND_DRIVER, Objects, container, needs_helm, pod

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploy.rendered import Object

pytestmark = needs_helm

VERSIONS = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36")
FILES = (VALUES, EVERY_SWITCH, SECOND_DRIVER)


@pytest.fixture(scope="module")
def everything() -> Objects:
    return Objects.rendered("--values", str(EVERY_SWITCH))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_helm_finds_nothing_to_complain_about(path: Path) -> None:
    """Lint, strict, with the defaults and with every switch on."""
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--values", str(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_version_of_kubernetes_knows_the_objects(path: Path) -> None:
    """Each object, tests' pods included, passes the published schemas; the one kind that is not Kubernetes' own is the PodMonitor."""
    for item in Objects.rendered("--values", str(path)).items:
        if item["kind"] == "PodMonitor":
            assert item["apiVersion"] == "monitoring.coreos.com/v1"
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(item, version, strict=True)


def _immutable(item: Object) -> Any:
    """The fields of an object that an API server lets nobody change; None for kinds that have none."""
    spec = item.get("spec", {})
    match item["kind"]:
        case "DaemonSet" | "Deployment":
            return spec["selector"]
        case "CSIDriver":
            return spec
        case "StorageClass":
            return {name: item.get(name) for name in ("provisioner", "parameters", "reclaimPolicy", "volumeBindingMode")}
        case "ClusterRoleBinding" | "RoleBinding":
            return item["roleRef"]
        case "Service":
            return spec["clusterIP"]
    return None


def _next(folder: Path) -> Path:
    """The chart as its next version would be, with another driver in it."""
    copy = folder / "csi-model"
    shutil.copytree(CHART, copy)
    chart = yaml.safe_load((copy / "Chart.yaml").read_text())
    (copy / "Chart.yaml").write_text(yaml.safe_dump({**chart, "version": "9.0.0", "appVersion": "9.1.0"}))
    return copy


CHANGES = (
    "image.repository=registry.example/moved/csi-model",
    "config.logLevel=warning",
    "node.hostNetwork=false",
    "node.podLabels.team=other",
    "node.nodeSelector.zone=a",
    "controller.replicas=3",
    "metrics.port=9999",
    "csiDriver.labels.team=other",
    "stateDir=/srv/other",
)


def test_an_upgrade_changes_no_immutable_field(everything: Objects, tmp_path: Path) -> None:
    """Another version of the chart and of the driver, with nearly every value changed, has the same objects with the same selectors and specs."""
    options = ["--values", str(EVERY_SWITCH), *(word for change in CHANGES for word in ("--set", change))]
    after = Objects.parse(template(*options, chart=_next(tmp_path)))
    assert after.keys() == everything.keys()
    for item in everything.items:
        assert _immutable(after.one(item["kind"], item["metadata"]["name"])) == _immutable(item)
    assert after.one("DaemonSet")["metadata"]["labels"]["app.kubernetes.io/version"] == "9.1.0"


def test_a_chart_that_changes_nothing_else_rolls_nothing(everything: Objects, tmp_path: Path) -> None:
    """The pods of two chart versions with one driver version are the same to the letter."""
    copy = _next(tmp_path)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (copy / "Chart.yaml").write_text(yaml.safe_dump({**chart, "version": "9.0.0"}))
    after = Objects.parse(template("--values", str(EVERY_SWITCH), chart=copy))
    for kind in ("DaemonSet", "Deployment"):
        assert after.one(kind)["spec"] == everything.one(kind)["spec"]


def test_another_configuration_rolls_the_pods() -> None:
    """The driver reads its file at the start: with another one the pods' template differs, and with the same it does not."""
    before, same, other = (
        Objects.rendered("--set", f"config.logLevel={level}").one("DaemonSet")["spec"]["template"] for level in ("info", "info", "debug")
    )
    assert before == same != other


def _paths(item: Object) -> set[str]:
    """The node's directories that belong to a driver alone."""
    return {volume["hostPath"]["path"] for volume in pod(item)["volumes"] if volume["name"] in {"state", "plugin"}}


def test_two_drivers_share_a_node() -> None:
    """A second release has other names everywhere, a state and socket directory of its own, and the same kubelet root."""
    first = Objects.rendered("--values", str(EVERY_SWITCH), "--set", "kubeletRoot=/var/lib/kubelet")
    second = Objects.rendered("--values", str(SECOND_DRIVER), release="other", namespace="csi-model")
    assert first.keys() & second.keys() == set()
    a, b = first.one("DaemonSet"), second.one("DaemonSet")
    assert _paths(a) & _paths(b) == set()
    assert a["spec"]["selector"] != b["spec"]["selector"]
    roots = [[volume for volume in pod(item)["volumes"] if volume["name"] == "kubelet"] for item in (a, b)]
    assert roots[0] == roots[1]


def test_one_release_name_in_two_namespaces_still_gives_two_drivers() -> None:
    """What has no namespace is named by the driver, so that even equal release names do not meet."""
    first = Objects.rendered(namespace="one")
    second = Objects.rendered("--values", str(SECOND_DRIVER), namespace="two")
    assert first.keys() & second.keys() == set()


def test_the_configuration_arrives_as_it_was_written(everything: Objects) -> None:
    """Numbers beyond what floating point prints plainly, durations and hosts with ports come through helm unchanged, and the driver reads them."""
    config = parse(everything.one("ConfigMap", "csi-model")["data"]["config.yaml"], where="the ConfigMap")
    assert config.pull.free_space_reserve == 21474836480
    assert config.pull.stall_timeout == 45
    assert str(config.registries["registry.example:5000"].ca_file) == "/etc/registry/ca.crt"
    assert str(config.csi.kubelet_root) == "/var/lib/k0s/kubelet"


def test_a_wrong_configuration_stops_helm_and_names_the_key() -> None:
    """A key that the driver does not know, below `config`, ends `helm template` with its path, and nothing is installed."""
    with pytest.raises(HelmError, match=r"(?s)config.pull.*activeBlob"):
        template("--set", "config.pull.activeBlob=3")


def test_what_the_chart_decides_wins() -> None:
    """The driver's name and kubelet's root come from the chart's own values alone, also where they are set to say the same."""
    with pytest.raises(HelmError, match="driverName"):
        template("--set", "config.csi.driverName=csi-model.dev")
    objects = Objects.rendered("--set", "driverName=models.example", "--set", "config.csi.workers=64")
    config = parse(objects.one("ConfigMap")["data"]["config.yaml"], where="the ConfigMap")
    assert (config.csi.driver_name, config.csi.workers) == ("models.example", 64)


def test_without_the_api_server_there_is_no_account_for_it() -> None:
    """With events and start-up taint off the driver gets no flag, no token, no role and no policy."""
    objects = Objects.rendered("--values", str(SECOND_DRIVER))
    assert "--kubernetes" not in container(objects.one("DaemonSet"), "driver")["args"]
    assert pod(objects.one("DaemonSet"))["automountServiceAccountToken"] is False
    assert [item for item in objects.of("ClusterRole") if item["metadata"]["name"].endswith("-node")] == []
    assert list(objects.of("ValidatingAdmissionPolicy")) == []


def test_each_half_of_the_api_can_be_off_alone() -> None:
    """Without the start-up taint no Node may be read or changed; without events no event may be written."""
    verbs = {}
    for key in ("events", "startupTaint"):
        rules = Objects.rendered("--set", f"config.kubernetes.{key}=false").one("ClusterRole", "csi-model.dev-node")["rules"]
        verbs[key] = {resource for rule in rules for resource in rule["resources"]}
    assert verbs == {"events": {"nodes", "csinodes"}, "startupTaint": {"events"}}


def test_networks_and_names_resolve_on_the_nodes_network(everything: Objects) -> None:
    """With hostNetwork cluster names still resolve, unless an admin says how else."""
    assert pod(everything.one("DaemonSet"))["dnsPolicy"] == "ClusterFirstWithHostNet"
    chosen = Objects.rendered("--set", "node.hostNetwork=true,node.dnsPolicy=Default")
    assert pod(chosen.one("DaemonSet"))["dnsPolicy"] == "Default"


def test_the_policy_lets_in_scrapes_alone(everything: Objects) -> None:
    """The driver's pods accept the metrics port from whom the admin names, the controller's nobody; what goes out is free."""
    node, controller = (everything.one("NetworkPolicy", f"csi-model-{part}")["spec"] for part in ("node", "controller"))
    (rule,) = node["ingress"]
    assert rule["ports"] == [{"port": "metrics", "protocol": "TCP"}]
    assert rule["from"]
    assert controller["ingress"] == []
    assert node["policyTypes"] == controller["policyTypes"] == ["Ingress"]


def test_scrapers_find_the_pods(everything: Objects) -> None:
    """Service, PodMonitor and NetworkPolicy select the labels that the DaemonSet's pods have, and name a port that they have."""
    template_ = everything.one("DaemonSet")["spec"]["template"]
    labels = template_["metadata"]["labels"].items()
    selectors = (
        everything.one("Service")["spec"]["selector"],
        everything.one("PodMonitor")["spec"]["selector"]["matchLabels"],
        everything.one("NetworkPolicy", "csi-model-node")["spec"]["podSelector"]["matchLabels"],
    )
    assert all(selector.items() <= labels for selector in selectors)
    (endpoint,) = everything.one("PodMonitor")["spec"]["podMetricsEndpoints"]
    (port,) = template_["spec"]["containers"][0]["ports"]
    assert endpoint["port"] == everything.one("Service")["spec"]["ports"][0]["targetPort"] == port["name"]


def test_storage_classes_are_the_drivers(everything: Objects) -> None:
    """Each class names the driver as its provisioner, and the parameters that it was given."""
    tiny = everything.one("StorageClass", "tiny-model")
    assert tiny["provisioner"] == everything.one("CSIDriver")["metadata"]["name"]
    assert tiny["parameters"]["reference"] == "registry.example/llm/tiny:v1"
    assert (tiny["reclaimPolicy"], tiny["volumeBindingMode"]) == ("Delete", "Immediate")


def test_without_the_switch_there_is_no_controller() -> None:
    """The default install has the driver and nothing that serves claims, metrics operators or dashboards."""
    kinds = {item["kind"] for item in Objects.rendered("--skip-tests").items}
    assert kinds == {
        "ServiceAccount",
        "ConfigMap",
        "ClusterRole",
        "ClusterRoleBinding",
        "Service",
        "DaemonSet",
        "CSIDriver",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }


def test_a_digest_wins_over_the_tag(everything: Objects) -> None:
    """An image that is pinned by digest is asked for by it alone; otherwise the tag is the driver's version."""
    image = container(everything.one("DaemonSet"), "driver")["image"]
    assert image.startswith("registry.example/tools/csi-model@sha256:")
    assert container(everything.one("Deployment"), "driver")["image"] == image


def test_the_tests_are_hooks_and_clean_up() -> None:
    """Everything for `helm test` is made for it and removed after it; nothing of it is installed."""
    objects = Objects.rendered("--set", "test.reference=registry.example/llm/tiny:v1,test.secretName=registry")
    hooks = [item for item in objects.items if "helm.sh/hook" in item["metadata"].get("annotations", {})]
    assert {item["metadata"]["annotations"]["helm.sh/hook"] for item in hooks} == {"test"}
    assert all("hook-succeeded" in item["metadata"]["annotations"]["helm.sh/hook-delete-policy"] for item in hooks)
    reads = objects.one("Pod", "csi-model-test-reads")
    (volume,) = reads["spec"]["volumes"]
    assert volume["csi"]["nodePublishSecretRef"] == {"name": "registry"}
    assert volume["csi"]["readOnly"] is True
    assert [item for item in objects.items if item["kind"] == "Pod" and item not in hooks] == []
