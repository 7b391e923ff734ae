"""csi-model as its admin has it: installed, changed and removed with helm, looked at through kubectl, and killed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from csi_model import __version__
from e2e.kubernetes.images import PROVISIONER
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


@dataclass(slots=True)
class Installation:
    """The one release on a node. ``values`` are those of the last install or upgrade."""

    node: Node
    values: dict[str, Any] = field(default_factory=dict)

    def install(self, values: Mapping[str, Any] | None = None, *, within: float = 60) -> float:
        """``helm install`` or ``upgrade`` with these values, or the same as before; returns the seconds until the driver serves."""
        if values is not None:
            self.values = dict(values)
        where = ("--namespace", NAMESPACE, "--create-namespace", "--values", "-")
        self.node.helm("upgrade", "--install", _RELEASE, str(CHART), *where, text=yaml.safe_dump(self.values))
        return until("the driver is registered and Ready", self.ready, within=within)

    def upgrade(self, **changes: Any) -> float:
        """Install with some top-level values changed."""
        return self.install({**self.values, **changes})

    def installed(self) -> bool:
        """Whether helm knows the release."""
        return _RELEASE in self.node.helm("list", "--namespace", NAMESPACE, "--short")

    def uninstall(self) -> None:
        """``helm uninstall``, and wait until its pods are gone."""
        self.node.helm("uninstall", _RELEASE, "--namespace", NAMESPACE)
        until("the driver's pods are gone", lambda: not self.node.api.items(_PODS))

    def ready(self) -> bool:
        """Whether the pods of the present generation are Ready and kubelet has registered the driver."""
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/csi-model-node"
        status = self.node.api.get(path)
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

    def logs(self) -> list[dict[str, Any]]:
        """The lines of the driver's log."""
        name = self.pod()["metadata"]["name"]
        text = self.node.api.text(f"{_PODS}/{name}/log?container=driver")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def process(self) -> int:
        """The driver's process id as the node sees it."""
        (status,) = [one for one in self.pod()["status"]["containerStatuses"] if one["name"] == "driver"]
        identity = str(status["containerID"]).removeprefix("containerd://")
        tasks = self.node.machine.run("ctr", "--namespace", "k8s.io", "tasks", "list").splitlines()
        return next(int(line.split()[1]) for line in tasks if line.startswith(identity))

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
        fields = self.node.machine.path(f"/proc/{self.process()}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

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
