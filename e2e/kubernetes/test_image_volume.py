"""Scenario 12: the same model through the native image volume and through csi-model, side by side on one node."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.kubernetes import manifests, models
from e2e.kubernetes.installation import STATE
from e2e.kubernetes.machine import ROOT
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.kubernetes.api import Object
    from e2e.kubernetes.figures import Record
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods
    from e2e.kubernetes.registries import NodeRegistry

_ROUNDS = 5
_MEBIBYTES = 256
_FIGURES = ROOT / "e2e" / "artifacts" / "image-volume.json"
# The time of both is the machine's: seconds since its start, to the hundredth.
_READ = (
    "cut -d' ' -f1 /proc/uptime; find /model -name '*.safetensors' -exec cat {} + > /dev/null; cut -d' ' -f1 /proc/uptime; sleep 2147483647"
)


@dataclass(frozen=True, slots=True)
class Figures:
    """One pod: seconds from `kubectl apply` until its container ran and until it had read all; what that cost the node.

    A container without a readiness probe is Ready when it runs. ``cpu`` is that of containerd and kubelet, ``driver`` the driver's, in seconds.
    """

    runs: float
    has_read: float
    cpu: float
    driver: float
    written: int
    disk: int

    @staticmethod
    def median(rounds: list[Figures]) -> Figures:
        """The median of each."""
        return Figures(
            statistics.median(one.runs for one in rounds),
            statistics.median(one.has_read for one in rounds),
            statistics.median(one.cpu for one in rounds),
            statistics.median(one.driver for one in rounds),
            int(statistics.median(one.written for one in rounds)),
            int(statistics.median(one.disk for one in rounds)),
        )

    def row(self, name: str) -> str:
        """A line of the table in docs/performance.md."""
        mebibyte = 1 << 20
        sizes = f"{self.written / mebibyte:.0f} MiB | {self.disk / mebibyte:.0f} MiB"
        return f"| {name} | {self.runs:.1f} s | {self.has_read:.1f} s | {self.cpu:.1f} s | {self.driver:.1f} s | {sizes} |"


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds of containerd and kubelet, and of the driver; what all three have written and what they keep, in bytes."""

    cpu: float
    driver: float
    written: int
    disk: int

    def since(self, before: Cost) -> tuple[float, float, int, int]:
        """What was added."""
        return self.cpu - before.cpu, self.driver - before.driver, self.written - before.written, self.disk - before.disk


def cost(node: Node, driver: Installation) -> Cost:
    """What containerd, kubelet and the driver have spent until now, and what containerd and the driver keep: the same for both ways."""
    cpu: list[float] = []
    written = 0
    for process in (_inside(node, "containerd"), _inside(node, "kubelet"), driver.process()):
        at = node.machine.path(f"/proc/{process}")
        fields = (at / "stat").read_text().rpartition(")")[2].split()
        cpu.append(sum(map(int, fields[11:15])) / 100)  # its children's too: containerd unpacks in processes of its own
        written += next(int(line.split()[1]) for line in (at / "io").read_text().splitlines() if line.startswith("write_bytes"))
    used = node.machine.run("du", "-xscB1", "/var/lib/containerd", STATE).splitlines()[-1]
    return Cost(cpu[0] + cpu[1], cpu[2], written, int(used.split()[0]))


def measure(node: Node, pods: Pods, name: str, volume: Object, looked_at: Callable[[], Cost]) -> Figures:
    """Start a pod that reads its model once, and say what it took."""
    before = looked_at()
    began = float(Path("/proc/uptime").read_text().split()[0])
    (pod,) = pods.start(manifests.pod(name, {"model": volume}, command=_READ))
    until(f"{name} has read all", lambda: "containerStatuses" in pod.status() and _lines(pod.logs) == 2, within=120)
    runs, has_read = map(float, pod.logs().split())
    figures = Figures(runs - began, has_read - began, *looked_at().since(before))
    pod.delete(grace=0)
    pod.wait_gone()
    return figures


def _lines(logs: Callable[[], str]) -> int:
    return len(logs().splitlines())


@pytest.mark.timeout(1500)
def test_beside_the_native_image_volume(
    node: Node, driver: Installation, registry: NodeRegistry, pods: Pods, tmp_path: Path, record_property: Record
) -> None:
    """Cold, csi-model's pod has read its model no later than the image volume's, with no more bytes written; warm they are alike."""
    cars = [models.made_up_image(registry, f"car-{number}", tmp_path, mebibytes=_MEBIBYTES) for number in range(_ROUNDS)]
    ways: dict[str, Callable[[Model], Object]] = {
        "image volume": lambda car: {"image": {"reference": car.reference, "pullPolicy": "IfNotPresent"}},
        "csi-model": lambda car: manifests.inline(car.reference, path="/models"),
    }
    rounds: dict[str, list[Figures]] = {f"{way}, {heat}": [] for way in ways for heat in ("cold", "warm")}
    for number, car in enumerate(cars):
        # In turn, and each as often first as it can be, so that what the machine does meanwhile is fair to both.
        for way in list(ways) if number % 2 else reversed(ways):
            for heat in ("cold", "warm"):
                name = f"{way.replace(' ', '-')}-{heat}-{number}"
                rounds[f"{way}, {heat}"].append(measure(node, pods, name, ways[way](car), lambda: cost(node, driver)))
                until(
                    "csi-model's idle views are gone, so that a warm pod finds layers and no mount", lambda: not driver.views(), within=30
                )
    medians = {name: Figures.median(figures) for name, figures in rounds.items()}
    record_property(
        f"medians of {_ROUNDS}, {_MEBIBYTES} MiB in one gzip layer",
        "| | container runs | has read all | CPU, containerd and kubelet | CPU, driver | written | disk |",
    )
    for name, figures in medians.items():
        record_property(name, figures.row(name))
    _FIGURES.parent.mkdir(exist_ok=True)
    _FIGURES.write_text(json.dumps({name: figures.row(name) for name, figures in medians.items()}, indent=2))
    native, ours = medians["image volume, cold"], medians["csi-model, cold"]
    assert ours.has_read <= native.has_read * 1.1
    assert ours.written <= native.written


def _inside(node: Node, service: str) -> int:
    """A service's process id as the node sees it."""
    status = Path(f"/proc/{node.services[service].pid}/status").read_text()
    return next(int(line.split()[-1]) for line in status.splitlines() if line.startswith("NSpid:"))
