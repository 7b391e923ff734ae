"""Scenario 6: driver, kubelet and containerd end and come back, while pods read, start and end."""

from __future__ import annotations

import json
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from e2e import image
from e2e.kubernetes import manifests
from e2e.kubernetes.installation import NAMESPACE
from e2e.kubernetes.node import DRIVER, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from e2e.kubernetes.api import Object
    from e2e.kubernetes.figures import Record
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pod, Pods

_ABSENT = 120
_DAEMONSET = ("daemonset/csi-model-node", "--namespace", NAMESPACE)
# Checksums all files again and again, opens them anew each time, and counts what it read and what went wrong.
_READER = """
cd /; reads=0; bad=0
while :; do
  if sha256sum -c -s /tmp/sums; then reads=$((reads+1)); else bad=$((bad+1)); fi
  echo "$reads $bad" > /tmp/now; mv /tmp/now /tmp/count
  usleep 200000
done
"""


@dataclass(frozen=True, slots=True)
class Reader:
    """A pod that reads all the time: ``artifact``, whose view is a folder of raw layers, and ``car``, whose view is an EROFS image."""

    pod: Pod
    artifact: Model
    car: Model

    def volumes(self) -> dict[str, Object]:
        """The volumes of a pod that shows the same."""
        return volumes(self.artifact, self.car)

    def counts(self) -> tuple[int, int]:
        """Rounds that read right, and rounds that did not."""
        right, wrong = self.pod.run("cat /tmp/count 2>/dev/null || echo 0 0").split()
        return int(right), int(wrong)


def volumes(artifact: Model, car: Model) -> dict[str, Object]:
    """One of each kind of view."""
    return {"artifact": manifests.inline(artifact.reference), "car": manifests.inline(car.reference, path="/models")}


def inode(pod: Pod) -> str:
    """Filesystem and inode of a file of the car: where these are the same, its pages are in memory once."""
    return pod.run("stat -c '%d:%i' /car/config.json").strip()


@pytest.fixture
def reader(driver: Installation, artifact: Model, car: Model, pods: Pods) -> Reader:
    """A pod whose container checksums both models in a loop."""
    sums = "\n".join(
        f"{digest}  {of}/{name}" for of, model in (("artifact", artifact), ("car", car)) for name, digest in model.files.items()
    )
    command = f"cat > /tmp/sums <<'END'\n{sums}\nEND\n{_READER}"
    made = Reader(pods.run(manifests.pod("reader", volumes(artifact, car), command=command)), artifact, car)
    until("it reads", lambda: made.counts()[0] > 0)
    return made


@contextmanager
def _undisturbed(reader: Reader, what: str, record: Record) -> Iterator[None]:
    """The reader reads on while the block runs, in the same container, without an error."""
    before, restarts = reader.counts(), reader.pod.restarts()
    yield
    after = before
    deadline = time.monotonic() + 60
    while after[0] <= before[0] and time.monotonic() < deadline:
        after = reader.counts()
    record(f"{what}, read meanwhile", f"both models {after[0] - before[0]} times, {after[1]} errors")
    assert after[0] > before[0]
    assert after[1] == 0
    assert reader.pod.restarts() == restarts


def _start_and_end(
    pods: Pods,
    reader: Reader,
    name: str,
    outage: AbstractContextManager[None],
    meanwhile: Callable[[Pod, Pod], None] = lambda _starting, _ending: None,
    *,
    within: float = 150,
) -> None:
    """In the outage one pod is deleted and one made; afterwards the one is gone, and the other reads the very files that the reader does."""
    ending = pods.run(manifests.pod(f"{name}-ends", reader.volumes()))
    with outage:
        ending.delete()
        (starting,) = pods.start(manifests.pod(f"{name}-starts", reader.volumes()))
        meanwhile(starting, ending)
    starting.wait_ready(within)
    assert starting.checksums("/artifact") == reader.artifact.files
    assert starting.checksums("/car") == reader.car.files
    assert inode(starting) == inode(reader.pod), "the view is the one that was there before, and its pages are in memory once"
    ending.wait_gone(within)
    starting.delete(grace=0)
    starting.wait_gone(within)


def _both_wait(starting: Pod, ending: Pod) -> None:
    """What an outage that lasts does to a pod that starts and to one that ends."""
    assert not starting.ready()
    assert len(ending.mounts()) == 2


@contextmanager
def _killed(driver: Installation) -> Iterator[None]:
    """The driver's process is killed before the block; after it another one serves."""
    before = driver.process()
    driver.kill()
    yield
    until("kubelet has started the driver's container again", lambda: driver.runs_again(before))


@contextmanager
def _replaced(driver: Installation, change: Callable[[], object]) -> Iterator[None]:
    """A change of the DaemonSet has begun to end the driver's pod before the block; after it another pod serves."""
    before = driver.pod()["metadata"]["uid"]
    change()
    until("the driver's pod ends", lambda: all(_ends(pod) for pod in driver.pods() if pod["metadata"]["uid"] == before))
    yield
    driver.node.kubectl("rollout", "status", *_DAEMONSET, "--timeout=120s")
    until("the new driver is registered", driver.ready)
    assert driver.pod()["metadata"]["uid"] != before


def _ends(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def test_the_driver_is_killed(driver: Installation, reader: Reader, pods: Pods, record_property: Record) -> None:
    """After SIGKILL kubelet starts the container again; pods that start and end meanwhile get there, and nobody who reads notices."""
    with _undisturbed(reader, "driver killed", record_property):
        _start_and_end(pods, reader, "killed", _killed(driver))


def test_the_driver_is_restarted(node: Node, driver: Installation, reader: Reader, pods: Pods, record_property: Record) -> None:
    """`kubectl rollout restart` puts a new driver in the old one's place, and nobody who reads, starts or ends is lost meanwhile."""
    with _undisturbed(reader, "driver rolled", record_property):
        _start_and_end(pods, reader, "rolled", _replaced(driver, lambda: node.kubectl("rollout", "restart", *_DAEMONSET)))


def test_the_driver_is_upgraded_and_rolled_back(
    node: Node, driver: Installation, reader: Reader, pods: Pods, record_property: Record
) -> None:
    """Another version by `helm upgrade`, and the one before by `helm rollback`, take over what the other has mounted."""
    node.load_image(image.build_image(tag="localhost/csi-model:next"))
    newer = {**driver.values, "image": {**driver.values["image"], "tag": "next"}}
    with _undisturbed(reader, "driver upgraded", record_property):
        _start_and_end(pods, reader, "upgraded", _replaced(driver, lambda: driver.release(newer)))
        assert driver.pod()["spec"]["containers"][0]["image"].endswith(":next")
    with _undisturbed(reader, "driver rolled back", record_property):
        back = _replaced(driver, lambda: node.helm("rollback", "csi-model", "--namespace", NAMESPACE))
        _start_and_end(pods, reader, "rolled-back", back)
        assert not driver.pod()["spec"]["containers"][0]["image"].endswith(":next")


def test_the_driver_is_absent(node: Node, driver: Installation, reader: Reader, pods: Pods, record_property: Record) -> None:
    """Two minutes without a driver: pods read, those that start and end wait, and all is made good when it is back."""

    def select(nowhere: str | None) -> None:
        patch = {"spec": {"template": {"spec": {"nodeSelector": {"nowhere": nowhere}}}}}
        node.kubectl("patch", *_DAEMONSET, "--patch", json.dumps(patch))

    @contextmanager
    def absent() -> Iterator[None]:
        select("true")
        try:
            until("the driver has gone", lambda: DRIVER not in node.drivers() and not driver.pods())
            yield
        finally:
            select(None)
        until("the driver is back", driver.ready)

    def meanwhile(starting: Pod, ending: Pod) -> None:
        starting.wait_event("FailedMount", "not found in the list of registered CSI drivers", within=60)
        time.sleep(_ABSENT)
        _both_wait(starting, ending)

    with _undisturbed(reader, "driver absent for two minutes", record_property):
        _start_and_end(pods, reader, "absent", absent(), meanwhile)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
@pytest.mark.parametrize("service", ["kubelet", "containerd"])
def test_services_of_the_node_end(
    node: Node, driver: Installation, reader: Reader, pods: Pods, record_property: Record, *, service: str, how: signal.Signals
) -> None:
    """Kubelet and containerd are stopped or killed and started again: pods that start and end meanwhile get there, and all read on."""

    @contextmanager
    def away() -> Iterator[None]:
        with node.without(service, how):
            yield
        node.wait_ready()

    def meanwhile(starting: Pod, ending: Pod) -> None:
        time.sleep(2)
        _both_wait(starting, ending)

    with _undisturbed(reader, f"{service}, {how.name}", record_property):
        _start_and_end(pods, reader, f"{service}-{how.name.lower()}", away(), meanwhile)
