"""csi-model as its admin has it: installed, changed and removed with helm, looked at through kubectl, and killed."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from csi_model import __version__
from e2e.kubernetes.images import PROVISIONER
from e2e.kubernetes.machine import CommandError
from e2e.kubernetes.node import DRIVER, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from e2e.kubernetes.api import Object
    from e2e.kubernetes.node import Node

CHART = Path(__file__).resolve().parents[2] / "deploy" / "charts" / "csi-model"
NAMESPACE = "csi-model"
STATE = "/var/lib/csi-model"
SOCKETS = (f"/var/lib/kubelet/plugins/{DRIVER}/csi.sock", f"/var/lib/kubelet/plugins_registry/{DRIVER}-reg.sock")
_RELEASE = "csi-model"
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_DAEMONSET = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/csi-model-node"


@dataclass(slots=True)
class Installation:
    """The one release on a node. ``values`` are those of the last install or upgrade."""

    node: Node
    values: dict[str, Any] = field(default_factory=dict)

    def release(self, values: Mapping[str, Any] | None = None) -> None:
        """``helm install`` or ``upgrade`` with these values, or the same as before; returns at once."""
        if values is not None:
            self.values = dict(values)
        where = ("--namespace", NAMESPACE, "--create-namespace", "--values", "-")
        self.node.helm("upgrade", "--install", _RELEASE, str(CHART), *where, text=yaml.safe_dump(self.values))

    def install(self, values: Mapping[str, Any] | None = None, *, within: float = 120) -> float:
        """``release``, and wait until the driver serves; returns the seconds that this took."""
        self.release(values)
        return until("the driver is registered and Ready", self.ready, within=within)

    def upgrade(self, **changes: Any) -> float:
        """Install with some top-level values changed."""
        return self.install({**self.values, **changes})

    def provide(self, controller: Mapping[str, Any]) -> None:
        """Have the chart's controller, with these values, at work."""
        self.upgrade(controller=dict(controller))
        self.node.kubectl("rollout", "status", "deployment/csi-model-controller", "--namespace", NAMESPACE, "--timeout=60s")

    def differs(self, values: Mapping[str, Any]) -> bool:
        """Whether the cluster has anything else than a release with these values, whose driver may run on every node and is Ready."""
        try:
            given = json.loads(self.node.helm("get", "values", _RELEASE, "--namespace", NAMESPACE, "--output", "json"))
        except CommandError:
            return True
        selector = self.node.api.get(_DAEMONSET)["spec"]["template"]["spec"].get("nodeSelector")
        chosen = given.get("node", {}).get("nodeSelector")
        return given != values or (selector or {}) != (chosen or {}) or not self.ready()

    def uninstall(self) -> None:
        """``helm uninstall``, and wait until its pods are gone."""
        self.node.helm("uninstall", _RELEASE, "--namespace", NAMESPACE)
        until("the driver's pods are gone", lambda: not self.node.api.items(_PODS))

    def ready(self) -> bool:
        """Whether the pods of the present generation are Ready and kubelet has registered the driver."""
        status = self.node.api.get(_DAEMONSET)
        at, told = status["metadata"]["generation"], status["status"]
        rolled = told.get("observedGeneration") == at and told.get("updatedNumberScheduled") == told.get("numberReady") == 1
        return rolled and DRIVER in self.node.drivers()

    def pod(self) -> Object:
        """The driver's pod on the node."""
        (found,) = [pod for pod in self.pods() if "deletionTimestamp" not in pod["metadata"]]
        return found

    def pods(self) -> list[Object]:
        """The driver's pods on the node, ending ones too."""
        return self.node.api.items(f"{_PODS}?labelSelector=app.kubernetes.io/component=node")

    def csi_model(self, *arguments: str) -> str:
        """``kubectl exec`` of the command line in the driver's pod."""
        name = self.pod()["metadata"]["name"]
        return self.node.kubectl("exec", "--namespace", NAMESPACE, name, "--container", "driver", "--", "csi-model", *arguments)

    def doctor(self) -> dict[str, tuple[str, str]]:
        """What `csi-model doctor` finds in the driver's pod: status and detail of each check, by its name."""
        name = self.pod()["metadata"]["name"]
        where = ("--namespace", NAMESPACE, name, "--container", "driver")
        # It ends with 1 where anything fails, a registry that is down for one.
        printed = self.node.kubectl("exec", *where, "--", "csi-model", "doctor", "--json", check=False)
        return {check["name"]: (check["status"], check["detail"]) for check in json.loads(printed)["checks"]}

    def rung(self) -> str:
        """The rung of the mount ladder that its metrics page names; ``none`` where no rung works."""
        (name,) = [name for name in self.metrics() if name.startswith("csi_model_mount_rung_info")]
        return name.partition('rung="')[2].partition('"')[0]

    def logs(self) -> list[dict[str, Any]]:
        """The lines of the driver's log, of its containers before as well, as kubelet keeps them on the node: no API server is asked."""
        files = self.node.machine.path("/var/log/pods").glob(f"{NAMESPACE}_csi-model-node-*/driver/*.log")
        # Time, stream and a mark stand before what was printed.
        printed = (line.split(" ", 3)[3] for file in sorted(files) for line in file.read_text().splitlines())
        return [json.loads(text) for text in printed if text.startswith("{")]

    def calls(self, method: str, pod: str) -> list[dict[str, Any]]:
        """The lines of the calls that have ended for the pod of this uid."""
        return [line for line in self.logs() if line.get("event") == "call" and line["method"] == method and line.get("pod_uid") == pod]

    def process(self) -> int:
        """The driver's process id as the node sees it; ``ProcessLookupError`` while kubelet names a container that has ended."""
        (status,) = [one for one in self.pod()["status"]["containerStatuses"] if one["name"] == "driver"]
        identity = str(status["containerID"]).removeprefix("containerd://")
        tasks = self.node.machine.run("ctr", "--namespace", "k8s.io", "tasks", "list").splitlines()
        for line in tasks:
            if line.startswith(identity):
                return int(line.split()[1])
        raise ProcessLookupError(identity)

    def runs_again(self, former: int) -> bool:
        """Whether it is Ready in another process than the former one."""
        with suppress(ProcessLookupError):
            return self.ready() and self.process() != former
        return False

    def kill(self) -> None:
        """SIGKILL of the driver's process; kubelet starts the container again."""
        self.node.machine.run("kill", "-KILL", str(self.process()))

    def metrics(self) -> dict[str, float]:
        """What its metrics page says now, by name and labels."""
        address = self.pod()["status"]["podIP"]
        text = self.node.machine.run("curl", "-sf", f"http://{address}:9808/metrics")
        pairs = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def resident(self) -> int:
        """Bytes of memory that the driver's process holds."""
        status = self.node.machine.path(f"/proc/{self.process()}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    def cpu_seconds(self) -> float:
        """CPU time that the driver's process has used since its start."""
        fields = self._stat()
        return (int(fields[11]) + int(fields[12])) / 100

    def started(self) -> float:
        """When the driver's process was made, in seconds since the machine's boot."""
        return int(self._stat()[19]) / 100

    def _stat(self) -> list[str]:
        """Of proc(5)'s ``stat`` what stands behind the name: the third field and those after it."""
        return self.node.machine.path(f"/proc/{self.process()}/stat").read_text().rpartition(")")[2].split()

    def views(self) -> list[str]:
        """What is mounted below the state directory."""
        return self.node.mounts(STATE)

    def sockets(self) -> list[str]:
        """The driver's sockets that are there."""
        return [path for path in SOCKETS if self.node.machine.path(path).exists()]


def with_class(name: str, reference: str) -> dict[str, Any]:
    """Values of ``controller`` for claims of one StorageClass, whose volumes all show ``reference``."""
    repository, _, tag = PROVISIONER.rpartition(":")
    image = {"repository": repository, "tag": tag, "pullPolicy": "Never"}
    return {"enabled": True, "provisioner": {"image": image}, "storageClasses": [{"name": name, "parameters": {"reference": reference}}]}


def default_values(hosts: list[str]) -> dict[str, Any]:
    """Values for a node of tests: the image that was imported, registries without TLS, and little patience."""
    return {
        "image": {"repository": "localhost/csi-model", "tag": __version__, "pullPolicy": "Never"},
        "config": {
            "logLevel": "debug",
            "registries": {host: {"plainHttp": True} for host in hosts},
            "pull": {"linger": "5s", "freeSpaceReserve": "64MiB"},
            "views": {"idle": "5s"},
        },
    }
