"""deploy/kubernetes: the objects as they are applied without helm. They are files, so all of this runs anywhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import typer

from csi_model import __version__
from csi_model.cli.main import app
from csi_model.config.load import parse
from deploy.chart import MANIFESTS, manifests
from deploy.values import CHART
from tests.deploy.rendered import Objects, container, needs_helm, pod

if TYPE_CHECKING:
    from tests.deploy.rendered import Object

NODE = Objects.parse((MANIFESTS / "csi-model.yaml").read_text())
CONTROLLER = Objects.parse((MANIFESTS / "controller.yaml").read_text())
DAEMONSET = NODE.one("DaemonSet")
DEPLOYMENT = CONTROLLER.one("Deployment")


def _commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    found: dict[str, Any] = group.commands
    return found


def _mounts(one: Object) -> dict[str, Object]:
    return {mount["name"]: mount for mount in one["volumeMounts"]}


@needs_helm
def test_the_manifests_are_fresh() -> None:
    """They are what the chart gives today; `make manifests` writes them."""
    assert {path.name: path.read_text() for path in MANIFESTS.glob("*.yaml")} == manifests()


@pytest.mark.parametrize("version", ["1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36"])
def test_every_version_of_kubernetes_knows_the_objects(version: str) -> None:
    """Each object, and each field of it, is in the published schemas of that version, nothing misspelt."""
    for item in (*NODE.items, *CONTROLLER.items):
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize(("workload", "command"), [(DAEMONSET, "serve"), (DEPLOYMENT, "serve-controller")], ids=["node", "controller"])
def test_the_driver_understands_its_arguments(workload: Object, command: str) -> None:
    """Every argument is an option of that command, none is given twice, and what the command demands is there."""
    first, *options = container(workload, "driver")["args"]
    assert first == command
    given = [option.partition("=")[0] for option in options]
    known = {name: param for param in _commands()[command].params for name in param.opts}
    assert sorted(set(given)) == sorted(given)
    assert [name for name in given if name not in known] == []
    assert {name for name, param in known.items() if param.required} <= set(given)


def test_the_driver_understands_its_configuration() -> None:
    """The ConfigMap's file is a configuration, and says the same driver and kubelet root as the arguments."""
    config = parse(NODE.one("ConfigMap")["data"]["config.yaml"], where="the ConfigMap")
    endpoint = next(option for option in container(DAEMONSET, "driver")["args"] if option.startswith("--endpoint="))
    assert endpoint == f"--endpoint=unix://{config.csi.kubelet_root}/plugins/{config.csi.driver_name}/csi.sock"
    assert NODE.one("CSIDriver")["metadata"]["name"] == config.csi.driver_name


def test_paths_are_the_nodes_own() -> None:
    """Driver and kubelet tell each other paths: what is mounted from the node has the same path on both sides, but for the directory that is only made."""
    one = container(DAEMONSET, "driver")
    for volume in pod(DAEMONSET)["volumes"]:
        if "hostPath" in volume and volume["name"] != "plugin":
            assert _mounts(one)[volume["name"]]["mountPath"] == volume["hostPath"]["path"]
    options = dict(option.partition("=")[::2] for option in one["args"][1:])
    assert options["--state-dir"] == _mounts(one)["state"]["mountPath"]
    assert options["--registration-dir"].startswith(_mounts(one)["kubelet"]["mountPath"] + "/")


def test_mounts_outlive_the_container() -> None:
    """What the driver mounts for kubelet and in its state directory reaches the node, and nothing else does."""
    spreading = {name for name, mount in _mounts(container(DAEMONSET, "driver")).items() if "mountPropagation" in mount}
    assert spreading == {"kubelet", "state"}
    assert {mount["mountPropagation"] for mount in container(DAEMONSET, "driver")["volumeMounts"] if "mountPropagation" in mount} == {
        "Bidirectional"
    }


def test_no_mount_lies_in_one_that_spreads() -> None:
    """A mount below a Bidirectional one would appear on the node, too, and stay there."""
    paths = {name: mount["mountPath"] for name, mount in _mounts(container(DAEMONSET, "driver")).items()}
    inside = [(a, b) for a in paths for b in ("kubelet", "state") if a != b and f"{paths[a]}/".startswith(f"{paths[b]}/")]
    assert inside == []


def test_directories_of_the_node_are_of_the_right_type() -> None:
    """A kubelet root that is not there is a mistake and not made; the state and socket directories are made."""
    types = {volume["name"]: volume["hostPath"]["type"] for volume in pod(DAEMONSET)["volumes"] if "hostPath" in volume}
    assert types == {"kubelet": "Directory", "state": "DirectoryOrCreate", "dev": "Directory", "plugin": "DirectoryOrCreate"}


def test_the_node_pod_has_what_it_needs_and_no_more() -> None:
    """Privileged, root, no writable root filesystem, none of the node's process, network or message namespaces; critical for the node."""
    spec = pod(DAEMONSET)
    assert container(DAEMONSET, "driver")["securityContext"] == {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True}
    assert {name for name in ("hostPID", "hostIPC", "hostNetwork", "shareProcessNamespace") if spec.get(name)} == set()
    assert spec["priorityClassName"] == "system-node-critical"
    assert len(spec["containers"]) == 1
    assert "initContainers" not in spec


def test_the_driver_gets_no_memory_limit_and_time_to_stop() -> None:
    """A limit would count the pulled model's pages against the driver; its own grace of 20 s fits into the pod's."""
    from csi_model.csi.serve import GRACE_SECONDS

    assert "limits" not in container(DAEMONSET, "driver")["resources"]
    assert pod(DAEMONSET)["terminationGracePeriodSeconds"] >= GRACE_SECONDS + 10


def test_probes_wait_longer_than_a_busy_node_takes() -> None:
    """Five minutes to start; later two minutes of silence before a restart; readiness restarts nothing and asks what kubelet knows."""
    one = container(DAEMONSET, "driver")
    start, alive, ready = one["startupProbe"], one["livenessProbe"], one["readinessProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 300
    assert alive["periodSeconds"] * alive["failureThreshold"] >= 120
    assert [probe["httpGet"]["path"] for probe in (start, alive, ready)] == ["/healthz", "/healthz", "/readyz"]
    (port,) = one["ports"]
    assert {probe["httpGet"]["port"] for probe in (start, alive, ready)} == {port["name"]}
    assert f"--metrics-address=:{port['containerPort']}" in one["args"]


def test_accelerators_and_the_start_up_taint_are_tolerated() -> None:
    """The driver comes to nodes whose taints keep others away: GPUs of every maker, and its own."""
    keys = {taint["key"] for taint in pod(DAEMONSET)["tolerations"]}
    assert {"csi-model.dev/agent-not-ready", "nvidia.com/gpu", "amd.com/gpu", "google.com/tpu"} <= keys
    assert all("effect" not in taint and taint["operator"] == "Exists" for taint in pod(DAEMONSET)["tolerations"])


def test_an_update_never_runs_two_drivers_on_a_node() -> None:
    """The state directory belongs to one process: the old pod goes before the new one comes."""
    assert DAEMONSET["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"] == 0


def test_the_csi_driver_object_says_what_was_decided() -> None:
    """Every field of CSIDriver, chosen on purpose; what is not listed is not there."""
    assert NODE.one("CSIDriver")["spec"] == {
        "attachRequired": False,
        "podInfoOnMount": True,
        "volumeLifecycleModes": ["Persistent", "Ephemeral"],
        "fsGroupPolicy": "None",
        "requiresRepublish": False,
        "storageCapacity": False,
        "seLinuxMount": False,
    }


def _rules(objects: Objects, kind: str = "ClusterRole") -> set[tuple[str, str]]:
    return {
        (resource, verb) for role in objects.of(kind) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }


def test_the_node_may_do_little() -> None:
    """Events, its Node's taint, and whether kubelet knows it: no Secrets, no Pods, nothing listed, nothing watched."""
    assert _rules(NODE) == {("events", "create"), ("events", "patch"), ("nodes", "get"), ("nodes", "patch"), ("csinodes", "get")}


def test_the_controller_may_do_little() -> None:
    """What the provisioner needs for a driver without topology, attachments and snapshots; Secrets are not among it."""
    assert {resource for resource, _ in _rules(CONTROLLER)} == {"persistentvolumes", "persistentvolumeclaims", "storageclasses", "events"}
    assert _rules(CONTROLLER, "Role") == {("leases", "get"), ("leases", "create"), ("leases", "update")}


def test_accounts_are_bound_to_their_roles() -> None:
    """Each binding names a role and an account that are there, and the pods run as those accounts."""
    for objects, workload in ((NODE, DAEMONSET), (CONTROLLER, DEPLOYMENT)):
        account = objects.one("ServiceAccount")["metadata"]
        assert pod(workload)["serviceAccountName"] == account["name"]
        for binding in (*objects.of("ClusterRoleBinding"), *objects.of("RoleBinding")):
            objects.one(binding["roleRef"]["kind"], binding["roleRef"]["name"])
            assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}]


def test_the_policy_is_about_the_nodes_account() -> None:
    """The admission policy names the account that the DaemonSet runs as, and its binding names the policy."""
    policy = NODE.one("ValidatingAdmissionPolicy")
    (condition,) = policy["spec"]["matchConditions"]
    account = NODE.one("ServiceAccount")["metadata"]
    assert f'"system:serviceaccount:{account["namespace"]}:{account["name"]}"' in condition["expression"]
    assert NODE.one("ValidatingAdmissionPolicyBinding")["spec"]["policyName"] == policy["metadata"]["name"]


def test_every_field_of_the_driver_object_was_decided() -> None:
    """Whatever the newest API server knows of a CSIDriver is set, or the template's comment says why it is left out."""
    schemas = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.37.0-local-strict"
    fields = json.loads((schemas / "csidriverspec-storage-v1.json").read_text())["properties"]
    assert "attachRequired" in fields
    comments = "\n".join(re.findall(r"^ *#.*", (CHART / "templates" / "csidriver.yaml").read_text(), re.MULTILINE))
    assert [name for name in fields if name not in NODE.one("CSIDriver")["spec"] and name not in comments] == []


def test_the_policy_looks_at_all_of_a_node() -> None:
    """Whatever of a Node its account could change, the policy has a rule for: the API server itself minds the rest of the metadata."""
    expressions = " ".join(rule["expression"] for rule in NODE.one("ValidatingAdmissionPolicy")["spec"]["validations"])
    compared = set(re.findall(r"\bobject\.((?:spec|metadata)\.\??\w+)", expressions))
    spec = {"configSource", "externalID", "podCIDR", "podCIDRs", "providerID", "taints", "unschedulable"}
    metadata = {"name", "labels", "annotations", "ownerReferences", "finalizers"}
    assert {name.replace("?", "") for name in compared} == {f"spec.{name}" for name in spec} | {f"metadata.{name}" for name in metadata}


def test_the_controller_runs_as_nobody() -> None:
    """No root, no capabilities, no writable root filesystem, no node paths; both containers share one user for the socket between them."""
    spec = pod(DEPLOYMENT)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]
    for one in spec["containers"]:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_namespace_admits_the_pods() -> None:
    """Its Pod Security level is the only one that admits privileged pods."""
    assert NODE.one("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


def test_nothing_of_helm_is_left() -> None:
    """Labels and comments that helm makes for itself are not in files that are applied without it."""
    text = "".join(path.read_text() for path in MANIFESTS.glob("*.yaml"))
    assert not re.search(r"helm\.sh|: Helm|# Source:", text)
    assert f"csi-model:{__version__}\n" in text
