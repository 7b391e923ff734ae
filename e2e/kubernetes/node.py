"""A whole Kubernetes of one node: its services, started and stopped one by one, and what a user does to it."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from csi_model.linux.mountinfo import read_mounts
from e2e.kubernetes import build, images, services
from e2e.kubernetes.api import Api, ApiError
from e2e.kubernetes.credentials import make_credentials
from e2e.kubernetes.init import ADDRESS, API_SERVICE, NAME
from e2e.kubernetes.machine import Machine, Service, machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.kubernetes.api import Object

DRIVER = "csi-model.dev"
STARTUP_TAINT = f"{DRIVER}/agent-not-ready"
# kubelet ends when its runtime does not answer, so it comes after containerd; and after the API server, to register at its first try.
_FIRST = ("containerd", "etcd", "apiserver", "proxy")
_SETTLED = 10.0
_THEN = ("controller-manager", "scheduler", "kubelet")


@dataclass(slots=True)
class Node:
    """The node. ``services`` holds those that were started, by name; the API server answers ``api``."""

    machine: Machine
    commands: dict[str, tuple[str, ...]]
    api: Api
    services: dict[str, Service] = field(default_factory=dict)

    def start(self, *names: str) -> None:
        """Start services by name, in this order; returns at once."""
        for name in names:
            assert name not in self.services or not self.services[name].running, f"{name} runs already"
            self.services[name] = self.machine.spawn(name, *self.commands[name])

    def stop(self, *names: str) -> None:
        """SIGTERM, and wait."""
        for name in names:
            self.services[name].end()

    def kill(self, *names: str) -> None:
        """SIGKILL, and wait."""
        for name in names:
            self.services[name].end(signal.SIGKILL)

    def restart(self, *names: str) -> None:
        """Stop and start."""
        self.stop(*names)
        self.start(*names)

    @contextmanager
    def without(self, name: str, number: signal.Signals = signal.SIGKILL) -> Iterator[None]:
        """A service is ended by a signal, and back at the end of the block."""
        self.services[name].end(number)
        try:
            yield
        finally:
            self.start(name)
            if name == "apiserver":
                self._until("the API server is ready", self._api_ready)
                self._settle()
            if name == "containerd":
                self._until("containerd answers", self._runtime_answers)

    def boot(self) -> None:
        """Start a halted machine and all of Kubernetes on it; returns when the node is Ready."""
        self.machine.boot()
        (self.machine.folder / "api.sock").unlink(missing_ok=True)  # kubectl proxy leaves it behind when it is killed
        self.start(*_FIRST)
        self._until("containerd answers", self._runtime_answers)
        self._until("the API server is ready", self._api_ready)
        self.start(*_THEN)
        self.wait_ready()

    @contextmanager
    def rebooted(self) -> Iterator[None]:
        """Power failure and start: processes and mounts are gone, the disk is kept.

        Services that are not Kubernetes' own, such as registries, stay away until the end of the block.
        """
        others = [name for name, service in self.services.items() if service.running and name not in {*_FIRST, *_THEN}]
        self.services.clear()
        self.machine.halt()
        self.boot()
        try:
            yield
        finally:
            self.start(*others)

    def wait_ready(self) -> None:
        """Wait until the node is Ready and its pods can have service accounts."""
        self._until("the node is Ready", self._ready)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._until("pods have a service account", lambda: self.api.find(account) is not None)

    def _settle(self) -> None:
        """Wait until the node controller has got over a silence: it taints the node when it looks again, and takes that back later."""
        since = time.monotonic()

        def settled() -> bool:
            nonlocal since
            if not self._ready() or any(key.startswith("node.kubernetes.io/") for key in self.taints()):
                since = time.monotonic()
            return time.monotonic() - since > _SETTLED

        self._until("the node has been Ready and without taints for a while", settled)

    def load_image(self, archive: Path) -> None:
        """Give the node a container image from an OCI archive."""
        self.machine.run("ctr", "--namespace", "k8s.io", "images", "import", "--local", str(archive))

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """Run kubectl as the cluster's admin."""
        return self.machine.run("kubectl", *arguments, text=text, check=check)

    def apply(self, *objects: Object) -> None:
        """``kubectl apply`` objects."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", text=yaml.safe_dump_all(objects))

    def helm(self, *arguments: str, text: str | None = None) -> str:
        """Run helm as the cluster's admin."""
        return self.machine.run("helm", *arguments, text=text, timeout=180)

    def describe(self) -> Object:
        """The Node object."""
        return self.api.get(f"/api/v1/nodes/{NAME}")

    def taints(self) -> list[str]:
        """The keys of the node's taints."""
        return [taint["key"] for taint in self.describe()["spec"].get("taints") or ()]

    def drivers(self) -> list[str]:
        """The CSI drivers that kubelet has registered."""
        found = self.api.find(f"/apis/storage.k8s.io/v1/csinodes/{NAME}")
        return [driver["name"] for driver in ((found or {}).get("spec") or {}).get("drivers") or ()]

    def events(self, **selector: str) -> list[Object]:
        """Events, oldest first; ``selector`` is of fields, such as ``{"involvedObject.name": "pod"}``."""
        query = ",".join(f"{name}={value}" for name, value in selector.items())
        found = self.api.items(f"/api/v1/events?fieldSelector={query}" if query else "/api/v1/events")
        return sorted(found, key=lambda event: event["metadata"]["creationTimestamp"])

    def volume_of(self, claim: str) -> str:
        """The path in the API of the persistent volume that a claim in ``default`` is bound to."""
        found = self.api.get(f"/api/v1/namespaces/default/persistentvolumeclaims/{claim}")
        return f"/api/v1/persistentvolumes/{found['spec']['volumeName']}"

    def told(self, reason: str) -> list[str]:
        """What events of this reason on the Node object say."""
        found = self.events(**{"involvedObject.kind": "Node", "involvedObject.name": NAME, "reason": reason})
        return [event["message"] for event in found]

    def mounts(self, below: str) -> list[str]:
        """What is mounted below a path of the node, in the order of the kernel."""
        table = read_mounts(Path(f"/proc/{self.machine.pid}/mountinfo"))
        return [mount.target for mount in table if mount.target.startswith(f"{below.rstrip('/')}/")]

    def _api_ready(self) -> bool:
        return self.api.text("/readyz") == "ok"

    def _runtime_answers(self) -> bool:
        return "Server:" in self.machine.run("ctr", "version", check=False)

    def _ready(self) -> bool:
        found = self.api.find(f"/api/v1/nodes/{NAME}")
        conditions: list[dict[str, Any]] = ((found or {}).get("status") or {}).get("conditions") or []
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def _until(self, what: str, condition: Callable[[], bool], within: float = 90) -> None:
        until(what, condition, within=within, also=self._nothing_ended)

    def _nothing_ended(self) -> None:
        for name, service in self.services.items():
            if not service.running:
                tail = "\n".join(self.machine.log(name).read_text(errors="replace").splitlines()[-15:])
                msg = f"{name} ended with {service.entered.returncode}:\n{tail}"
                raise RuntimeError(msg)


def until(what: str, condition: Callable[[], bool], *, within: float = 60, also: Callable[[], None] = lambda: None) -> float:
    """Wait until a condition holds and return the seconds it took. An API server that does not answer is a condition that does not hold."""
    began = time.monotonic()
    refused = ""
    while True:
        try:
            if condition():
                return time.monotonic() - began
        except ApiError as error:
            refused = f" ({error})"
        also()
        if time.monotonic() - began > within:
            msg = f"not within {within:g} s: {what}{refused}"
            raise AssertionError(msg)
        time.sleep(0.1)


@contextmanager
def running_node() -> Iterator[Node]:
    """A node that is Ready and has the images of tests; at the end nothing of it is left."""
    build.programs()
    with machine() as made:
        folder = made.folder
        conf = folder / "conf"
        credentials = make_credentials(folder / "credentials", node=NAME, addresses=(ADDRESS, API_SERVICE))
        (conf / "cni").mkdir()
        (conf / "cni" / "10-pods.conflist").write_text(services.network_config())
        (conf / "containerd.toml").write_text(services.containerd_config(conf))
        (conf / "kubelet.yaml").write_text(services.kubelet_config(credentials, cgroup=folder.name, taint=STARTUP_TAINT))
        node = Node(made, services.commands(conf, credentials), Api(folder / "api.sock"))
        node.boot()
        for name, image in (("pause", images.pause()), ("busybox", images.busybox())):
            node.load_image(image.write(folder / f"{name}.tar"))
        yield node
