"""Scenario 10: a full disk, a node without loop devices, a state directory on a tmpfs, and each rung of the mount ladder by force."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from e2e.kubernetes import manifests, models
from e2e.kubernetes.init import NAME
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods
    from e2e.kubernetes.registries import NodeRegistry

_RUNGS = ("erofs-direct", "erofs-loop", "erofs-buffered", "materialise")


def told(node: Node, reason: str) -> list[str]:
    """What events on the Node object say."""
    events = node.events(**{"involvedObject.kind": "Node", "involvedObject.name": NAME})
    return [event["message"] for event in events if event["reason"] == reason]


def forced(driver: Installation, strategy: str) -> dict[str, object]:
    """Configuration that forces a rung."""
    config = driver.values["config"]
    return {**config, "views": {**config["views"], "strategy": strategy}}


@pytest.fixture
def mounted(node: Node, driver: Installation) -> Iterator[str]:
    """A folder of the node where a test mounts what its state directory shall lie on; unmounted when no driver uses it any more."""
    path = "/var/lib/elsewhere"
    node.machine.run("mkdir", path)
    yield path
    driver.uninstall()
    node.machine.run("umount", "--recursive", path, check=False)
    node.machine.run("rmdir", path)


def test_a_full_disk_is_named(node: Node, driver: Installation, registry: NodeRegistry, mounted: str, pods: Pods, tmp_path: Path) -> None:
    """A model that does not fit is refused with the bytes that are missing, on the pod and on the node; a smaller one still starts."""
    disk = node.machine.folder / "tmp" / "small-disk"
    node.machine.run("sh", "-c", f"truncate -s 128M {disk} && mkfs.ext4 -q {disk} && mount -o loop {disk} {mounted}")
    config = driver.values["config"]
    driver.upgrade(stateDir=mounted, config={**config, "pull": {**config["pull"], "freeSpaceReserve": "16MiB"}})
    large = models.made_up(registry, "does-not-fit", tmp_path, mebibytes=160)
    small = models.made_up(registry, "fits", tmp_path, mebibytes=8)
    (refused,) = pods.start(manifests.pod("refused", {"model": manifests.inline(large.reference)}))
    refused.wait_event("FailedMount", "ResourceExhausted")
    refused.wait_event("NoSpace")
    until("the node's events say so", lambda: bool(told(node, "NoSpace")), within=30)
    starts = pods.run(manifests.pod("starts", {"model": manifests.inline(small.reference)}))
    assert starts.checksums("/model") == small.files
    pods.end()


def test_a_node_without_loop_devices(node: Node, driver: Installation, artifact: Model, pods: Pods) -> None:
    """Without /dev/loop* another rung serves; the loop rung by force is refused with the reason, and `doctor` says the same."""
    kept = f"{node.machine.folder}/tmp/dev"
    some = "null zero full random urandom tty console kmsg"
    node.machine.run(
        "sh", "-c", f"mkdir {kept} && cd /dev && cp -a {some} {kept} && mount -t tmpfs -o mode=755 tmpfs /dev && cp -a {kept}/. /dev"
    )
    node.machine.run("sh", "-c", "mkdir /dev/pts /dev/shm && mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts")
    node.machine.run("sh", "-c", "ln -s pts/ptmx /dev/ptmx && ln -s /proc/self/fd /dev/fd")
    try:
        driver.uninstall()
        driver.install()
        assert not node.machine.path("/dev/loop-control").exists()
        pod = pods.run(manifests.pod("no-loop", {"model": manifests.inline(artifact.reference)}))
        assert pod.checksums("/model") == artifact.files
        pods.end()
        driver.upgrade(config=forced(driver, "erofs-loop"))
        (refused,) = pods.start(manifests.pod("no-loop-forced", {"model": manifests.inline(artifact.reference)}))
        refused.wait_event("FailedMount", "FailedPrecondition", "erofs-loop", "loop")
        pods.end()
    finally:
        driver.uninstall()
        # Lazily, for whatever was started meanwhile has /dev/null open.
        node.machine.run("umount", "--recursive", "--lazy", "/dev")


def test_a_state_directory_in_memory(
    node: Node, driver: Installation, registry: NodeRegistry, artifact: Model, mounted: str, pods: Pods
) -> None:
    """On a tmpfs the driver takes a rung that works there, and `doctor` names it."""
    node.machine.run("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", mounted)
    # Of the registries only that which runs, for `doctor` would find fault with the others.
    driver.upgrade(stateDir=mounted, config={**driver.values["config"], "registries": {registry.host: {"plainHttp": True}}})
    pod = pods.run(manifests.pod("in-memory", {"model": manifests.inline(artifact.reference)}))
    assert pod.checksums("/model") == artifact.files
    printed = driver.csi_model("doctor")
    assert "mounting" in printed
    print("state directory on a tmpfs:", " ".join(line for line in printed.splitlines() if "erofs" in line or "materialise" in line))
    pods.end()


@pytest.mark.parametrize("strategy", _RUNGS)
def test_a_rung_by_force(node: Node, driver: Installation, artifact: Model, car: Model, pods: Pods, *, strategy: str) -> None:
    """Each rung that this kernel can do shows the same files; of one that it cannot do, the pod's event says why."""
    driver.upgrade(config=forced(driver, strategy))
    works = driver.metrics().get(f'csi_model_mount_rung_info{{forced="true",rung="{strategy}"}}') == 1
    volumes = {"artifact": manifests.inline(artifact.reference), "car": manifests.inline(car.reference, path="/models")}
    (pod,) = pods.start(manifests.pod("forced", volumes))
    if works:
        pod.wait_ready()
        assert pod.checksums("/artifact") == artifact.files
        assert pod.checksums("/car") == car.files
        assert "Read-only file system" in pod.refused("touch /artifact/x")
    else:
        pod.wait_event("FailedMount", "FailedPrecondition", strategy)
    print(f"rung {strategy}: {'works' if works else 'refused'}; {shlex.quote(' '.join(driver.views()[:1]))}")
    pods.end()
