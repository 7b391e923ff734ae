"""Scenario 6: driver, kubelet and containerd end and come back, while pods read, start and end."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from e2e import image
from e2e.kubernetes import manifests
from e2e.kubernetes.node import DRIVER, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pod, Pods

_ABSENT = 120
# Checksums all files again and again, opens them anew each time, and counts what it read and what went wrong.
_READER = """
cd /model; reads=0; bad=0
while :; do
  if sha256sum -c -s /tmp/sums; then reads=$((reads+1)); else bad=$((bad+1)); fi
  echo "$reads $bad" > /tmp/now; mv /tmp/now /tmp/count
  usleep 200000
done
"""


@dataclass(frozen=True, slots=True)
class Reader:
    """A pod that reads all the time."""

    pod: Pod

    def counts(self) -> tuple[int, int]:
        """Rounds that read right, and rounds that did not."""
        right, wrong = self.pod.run("cat /tmp/count 2>/dev/null || echo 0 0").split()
        return int(right), int(wrong)

    def inode(self) -> str:
        """Filesystem and inode of a file: as long as these are the same, its pages are in memory once."""
        return self.pod.run("stat -c '%d:%i' /model/config.json").strip()


@pytest.fixture
def reader(driver: Installation, artifact: Model, pods: Pods) -> Reader:
    """A pod whose container checksums the real model in a loop."""
    sums = "\n".join(f"{digest}  {name}" for name, digest in artifact.files.items())
    command = f"cat > /tmp/sums <<'END'\n{sums}\nEND\n{_READER}"
    made = Reader(pods.run(manifests.pod("reader", {"model": manifests.inline(artifact.reference)}, command=command)))
    until("it reads", lambda: made.counts()[0] > 0)
    return made


@contextmanager
def _undisturbed(reader: Reader, what: str) -> Iterator[None]:
    """The reader reads on while the block runs, in the same container, the same file, without an error."""
    before, inode, restarts = reader.counts(), reader.inode(), reader.pod.restarts()
    yield
    after = before
    deadline = time.monotonic() + 60
    while after[0] <= before[0] and time.monotonic() < deadline:
        after = reader.counts()
    print(f"{what}: {after[0] - before[0]} rounds of reading the whole model, {after[1]} errors")
    assert after[0] > before[0]
    assert after[1] == 0
    assert reader.inode() == inode, "the pages are in memory once"
    assert reader.pod.restarts() == restarts


def _start_and_end(pods: Pods, model: Model, name: str, meanwhile: Callable[[], object], *, within: float = 150) -> None:
    """A pod that starts and one that ends while something happens: both get there."""
    ending = pods.run(manifests.pod(f"{name}-ends", {"model": manifests.inline(model.reference)}))
    meanwhile()
    ending.delete()
    (starting,) = pods.start(manifests.pod(f"{name}-starts", {"model": manifests.inline(model.reference)}))
    starting.wait_ready(within)
    assert starting.checksums("/model") == model.files
    ending.wait_gone(within)
    starting.delete(grace=0)
    starting.wait_gone(within)


def test_the_driver_is_killed(driver: Installation, artifact: Model, reader: Reader, pods: Pods) -> None:
    """SIGKILL: kubelet starts the container again, and nobody who reads notices."""
    with _undisturbed(reader, "driver killed"):
        _start_and_end(pods, artifact, "killed", driver.kill)


def test_the_driver_is_restarted(node: Node, driver: Installation, artifact: Model, reader: Reader, pods: Pods) -> None:
    """`kubectl rollout restart` of the DaemonSet."""
    restart = ("rollout", "restart", "daemonset/csi-model-node", "--namespace", "csi-model")
    with _undisturbed(reader, "driver rolled"):
        _start_and_end(pods, artifact, "rolled", lambda: node.kubectl(*restart))


def test_the_driver_is_upgraded_and_rolled_back(node: Node, driver: Installation, artifact: Model, reader: Reader, pods: Pods) -> None:
    """Another version by `helm upgrade`, and the one before by `helm rollback`."""
    node.load_image(image.build_image(tag="localhost/csi-model:next"))
    with _undisturbed(reader, "driver upgraded"):
        _start_and_end(pods, artifact, "upgraded", lambda: driver.upgrade(image={**driver.values["image"], "tag": "next"}))
        assert driver.pod()["spec"]["containers"][0]["image"].endswith(":next")
    with _undisturbed(reader, "driver rolled back"):
        _start_and_end(pods, artifact, "rolled-back", lambda: node.helm("rollback", "csi-model", "--namespace", "csi-model"))
        until("the version before is back", driver.ready)
        assert not driver.pod()["spec"]["containers"][0]["image"].endswith(":next")


def test_the_driver_is_absent(node: Node, driver: Installation, artifact: Model, reader: Reader, pods: Pods) -> None:
    """Two minutes without a driver: pods read, those that start and end wait, and all is made good when it is back."""

    def select(nowhere: str | None) -> None:
        patch = {"spec": {"template": {"spec": {"nodeSelector": {"nowhere": nowhere}}}}}
        node.kubectl("patch", "daemonset/csi-model-node", "--namespace", "csi-model", "--patch", json.dumps(patch))

    def absent() -> None:
        select("true")
        until("the driver has gone", lambda: DRIVER not in node.drivers() and not driver.pods())
        (waits,) = pods.start(manifests.pod("waits", {"model": manifests.inline(artifact.reference)}))
        waits.wait_event("FailedMount", "not found in the list of registered CSI drivers", within=60)
        time.sleep(_ABSENT)
        select(None)
        waits.wait_ready(150)
        assert waits.checksums("/model") == artifact.files

    with _undisturbed(reader, "driver absent for two minutes"):
        _start_and_end(pods, artifact, "absent", absent)


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("service", ["kubelet", "containerd"])
def test_services_of_the_node_end(
    node: Node, driver: Installation, artifact: Model, reader: Reader, pods: Pods, *, service: str, how: str
) -> None:
    """Kubelet and containerd, stopped or killed, and started again."""

    def again() -> None:
        if how == "stop":
            node.stop(service)
            time.sleep(2)
            node.start(service)
        else:
            with node.without(service):
                time.sleep(2)
        node.wait_ready()

    with _undisturbed(reader, f"{service}: {how}"):
        _start_and_end(pods, artifact, f"{service}-{how}", again)
