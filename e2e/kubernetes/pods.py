"""A pod as its user sees it: whether it runs, what its events say, what it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from e2e.kubernetes.machine import CommandError
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from e2e.kubernetes.api import Object
    from e2e.kubernetes.node import Node


@dataclass(frozen=True, slots=True)
class Event:
    """What ``kubectl describe pod`` lists."""

    type: str
    reason: str
    message: str
    count: int
    source: str


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod; ``uid`` tells it from its namesakes."""

    node: Node
    name: str
    uid: str
    namespace: str = "default"

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def volumes(self) -> str:
        """Where kubelet keeps its volumes on the node."""
        return f"/var/lib/kubelet/pods/{self.uid}"

    def status(self) -> Object:
        """Its status; empty when it is gone."""
        found = self.node.api.find(self.path)
        return found["status"] if found is not None and found["metadata"]["uid"] == self.uid else {}

    def ready(self) -> bool:
        """Whether it is Ready."""
        conditions = self.status().get("conditions") or []
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def restarts(self) -> int:
        """How often its containers were started again."""
        return sum(container["restartCount"] for container in self.status().get("containerStatuses") or ())

    def wait_ready(self, within: float = 60) -> float:
        """Wait until it is Ready; returns the seconds it took."""
        try:
            return until(f"pod {self.name} is Ready", self.ready, within=within)
        except AssertionError as error:
            told = "\n".join(f"  {event.reason}: {event.message}" for event in self.events())
            msg = f"{error}; its status is {self.status().get('containerStatuses')}; its events:\n{told}"
            raise AssertionError(msg) from None

    def wait_succeeded(self, within: float = 60) -> str:
        """Wait until it has run to its end; returns its log."""
        until(f"pod {self.name} is through", lambda: self.status().get("phase") in {"Succeeded", "Failed"}, within=within)
        assert self.status()["phase"] == "Succeeded", self.logs()
        return self.logs()

    def logs(self, container: str | None = None) -> str:
        """What it printed."""
        return self.node.api.text(f"{self.path}/log{f'?container={container}' if container else ''}")

    def run(self, command: str, *, container: str | None = None) -> str:
        """Run a shell command in it, by ``kubectl exec``."""
        where = ["--container", container] if container else []
        return self.node.kubectl("exec", "--namespace", self.namespace, self.name, *where, "--", "sh", "-c", command)

    def refused(self, command: str) -> str:
        """What a shell command says that must fail."""
        try:
            printed = self.run(command)
        except CommandError as error:
            return error.output
        msg = f"{command} succeeded:\n{printed}"
        raise AssertionError(msg)

    def checksums(self, folder: str, *, container: str | None = None) -> dict[str, str]:
        """SHA-256 of every file below a folder, by relative name, read by the pod."""
        lines = self.run(f"cd {folder} && find . -type f -exec sha256sum {{}} +", container=container).splitlines()
        return {name.removeprefix("./"): digest for digest, _, name in (line.partition("  ") for line in lines)}

    def events(self) -> list[Event]:
        """Its events, oldest first."""
        found = self.node.events(**{"involvedObject.uid": self.uid})
        return [
            Event(
                event["type"],
                event["reason"],
                event.get("message") or "",
                event.get("count") or (event.get("series") or {}).get("count") or 1,
                (event.get("source") or {}).get("component") or event.get("reportingComponent") or "",
            )
            for event in found
        ]

    def wait_event(self, reason: str, *words: str, within: float = 30) -> Event:
        """Wait for an event whose message holds all the words."""

        def find() -> list[Event]:
            return [event for event in self.events() if event.reason == reason and all(word in event.message for word in words)]

        try:
            until(f"pod {self.name} has an event {reason} with {words}", lambda: bool(find()), within=within)
        except AssertionError as error:
            told = "\n".join(f"  {event.reason}: {event.message}" for event in self.events())
            msg = f"{error}; there are:\n{told}"
            raise AssertionError(msg) from None
        return find()[-1]

    def delete(self, *, grace: int | None = None) -> None:
        """Ask for its end; returns at once."""
        self.node.api.delete(self.path, grace=grace)

    def mounts(self) -> list[str]:
        """What is mounted for it on the node."""
        return self.node.mounts(self.volumes)

    def left_nothing(self) -> bool:
        """Whether the API has forgotten it and kubelet has removed its folder."""
        return not self.status() and not self.node.machine.path(self.volumes).exists() and not self.mounts()

    def wait_gone(self, within: float = 60) -> float:
        """Wait until nothing of it is left."""
        return until(f"pod {self.name} has left nothing", self.left_nothing, within=within)


@dataclass(slots=True)
class Pods:
    """The pods of one test, and what they need beside the driver."""

    node: Node
    made: list[Pod] = field(default_factory=list)
    needed: list[Object] = field(default_factory=list)

    def need(self, *objects: Object) -> None:
        """Apply objects such as claims and secrets; they are deleted when the pods are gone."""
        self.needed += objects
        self.node.apply(*objects)

    def start(self, *manifests: Object) -> list[Pod]:
        """Apply pods; returns at once."""
        self.node.apply(*manifests)
        started = []
        for manifest in manifests:
            name = manifest["metadata"]["name"]
            namespace = manifest["metadata"].get("namespace", "default")
            found = self.node.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
            started.append(Pod(self.node, name, found["metadata"]["uid"], namespace))
        self.made += started
        return started

    def run(self, manifest: Object, *, within: float = 60) -> Pod:
        """Apply a pod and wait until it is Ready."""
        (pod,) = self.start(manifest)
        pod.wait_ready(within)
        return pod

    def end(self) -> None:
        """Delete those that are left, and what they needed; nothing of them may stay."""
        try:
            for pod in self.made:
                pod.delete(grace=0)
            for pod in self.made:
                pod.wait_gone()
        finally:
            if self.needed:
                # A pod that stays would keep its claim, and this process waiting for it.
                text = yaml.safe_dump_all(self.needed)
                self.node.kubectl("delete", "--ignore-not-found", "--timeout=60s", "--filename", "-", text=text)
                self.needed.clear()
