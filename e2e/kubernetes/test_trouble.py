"""Scenario 10: a full disk, a node without loop devices, a state directory on a tmpfs, and each rung of the mount ladder by force."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from csi_model.linux.kernel import KernelVersion
from csi_model.mount.strategy import LADDER, Strategy, kernel_best
from e2e.kubernetes import manifests, models
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.kubernetes.figures import Record
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods
    from e2e.kubernetes.registries import NodeRegistry

_DEVICES = "null zero full random urandom tty console kmsg"


def forced(driver: Installation, strategy: str) -> dict[str, object]:
    """Configuration that forces a rung."""
    config = driver.values["config"]
    return {**config, "views": {**config["views"], "strategy": strategy}}


def must_work(strategy: Strategy) -> bool:
    """Whether this machine's kernel can mount by this rung, whatever the driver says."""
    if strategy is Strategy.MATERIALISE:
        return True
    version = KernelVersion.running()
    can = {
        Strategy.EROFS_DIRECT: kernel_best(version) is Strategy.EROFS_DIRECT,
        Strategy.EROFS_LOOP: kernel_best(version) is not Strategy.MATERIALISE,
        Strategy.EROFS_BUFFERED: (version.major, version.minor) >= (6, 12),
    }
    return "\terofs\n" in Path("/proc/filesystems").read_text() and can[strategy]


@pytest.fixture
def elsewhere(node: Node, driver: Installation) -> Iterator[str]:
    """A folder of the node where a test mounts what its state directory shall lie on; unmounted when no driver uses it any more."""
    path = "/var/lib/elsewhere"
    node.machine.run("mkdir", path)
    try:
        yield path
    finally:
        try:
            driver.uninstall()
        finally:
            node.machine.run("umount", "--recursive", path, check=False)
            node.machine.run("rmdir", path)


@pytest.fixture
def small_disk(node: Node, driver: Installation, elsewhere: str) -> str:
    """A disk of 128 MiB, on which the driver's state directory lies."""
    disk = node.machine.folder / "tmp" / "small-disk"
    node.machine.run("sh", "-c", f"rm -f {disk} && truncate -s 128M {disk} && mkfs.ext4 -q {disk} && mount -o loop {disk} {elsewhere}")
    config = driver.values["config"]
    driver.upgrade(stateDir=elsewhere, config={**config, "pull": {**config["pull"], "freeSpaceReserve": "16MiB"}})
    return elsewhere


def test_a_model_that_does_not_fit_is_named(
    node: Node, driver: Installation, registry: NodeRegistry, small_disk: str, pods: Pods, tmp_path: Path
) -> None:
    """A model larger than the disk is refused with the bytes that are missing, on pod and node; a smaller one still starts."""
    large = models.made_up(registry, "does-not-fit", tmp_path, mebibytes=160)
    small = models.made_up(registry, "fits", tmp_path, mebibytes=8)
    (refused,) = pods.start(manifests.pod("refused", {"model": manifests.inline(large.reference)}))
    refused.wait_event("FailedMount", "ResourceExhausted")
    refused.wait_event("NoSpace")
    until("the node's events say so", lambda: bool(node.told("NoSpace")), within=30)
    starts = pods.run(manifests.pod("starts", {"model": manifests.inline(small.reference)}))
    assert starts.checksums("/model") == small.files
    pods.end()


def test_a_driver_starts_on_a_full_disk(
    node: Node, driver: Installation, registry: NodeRegistry, small_disk: str, pods: Pods, tmp_path: Path
) -> None:
    """Killed when not a byte is free, the driver serves again: pods read and end, new ones are told why they wait, and start with room."""
    first = models.made_up_image(registry, "before-it-is-full", tmp_path, mebibytes=16)
    later = models.made_up(registry, "waits-for-room", tmp_path, mebibytes=8)
    volume = {"model": manifests.inline(first.reference, path="/models")}
    stays, ends = (pods.run(manifests.pod(name, volume)) for name in ("stays", "ends"))
    before, told = driver.process(), len(node.told("NoSpace"))
    # The last blocks in small pieces, until nothing can be written.
    filling = (
        f"cd {small_disk}; dd if=/dev/zero of=filled bs=1M; dd if=/dev/zero of=filled-too bs=512; ! dd if=/dev/zero of=more bs=512 count=1"
    )
    node.machine.run("sh", "-c", filling)
    driver.kill()
    until("the driver serves again", lambda: driver.runs_again(before), within=90)
    until("the node's admin is told", lambda: len(node.told("NoSpace")) > told, within=30)
    assert stays.checksums("/model") == first.files
    ends.delete()
    ends.wait_gone()
    (waits,) = pods.start(manifests.pod("waits", {"model": manifests.inline(later.reference)}))
    waits.wait_event("NoSpace", within=60)
    node.machine.run("sh", "-c", f"rm {small_disk}/filled {small_disk}/filled-too {small_disk}/more")
    waits.wait_ready(within=150)
    assert waits.checksums("/model") == later.files
    pods.end()


@pytest.fixture
def no_loops(node: Node, driver: Installation) -> Iterator[None]:
    """The node's /dev has no loop devices, and the driver runs there."""
    kept = f"{node.machine.folder}/tmp/dev"
    node.machine.run("sh", "-c", f"mkdir {kept} && cd /dev && cp -a {_DEVICES} {kept} && mount -t tmpfs -o mode=755 tmpfs /dev")
    try:
        node.machine.run(
            "sh", "-c", f"cp -a {kept}/. /dev && mkdir /dev/pts /dev/shm && ln -s pts/ptmx /dev/ptmx && ln -s /proc/self/fd /dev/fd"
        )
        node.machine.run("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", "/dev/pts")
        driver.uninstall()
        driver.install()
        yield
    finally:
        try:
            driver.uninstall()
        finally:
            # Lazily, for whatever was started meanwhile has /dev/null open.
            node.machine.run("umount", "--recursive", "--lazy", "/dev")
            node.machine.run("rm", "-r", kept)


def test_a_node_without_loop_devices(node: Node, driver: Installation, artifact: Model, car: Model, no_loops: None, pods: Pods) -> None:
    """Without /dev/loop* another rung serves; the loop rung by force is refused with the reason, and `doctor` says the same."""
    assert not node.machine.path("/dev/loop-control").exists()
    volumes = {"artifact": manifests.inline(artifact.reference), "car": manifests.inline(car.reference, path="/models")}
    pod = pods.run(manifests.pod("no-loop", volumes))
    assert pod.checksums("/artifact") == artifact.files
    assert pod.checksums("/car") == car.files
    assert driver.rung() != "erofs-loop"
    assert driver.doctor()["mounting"][1].startswith(driver.rung())
    pods.end()
    driver.upgrade(config=forced(driver, "erofs-loop"))
    (refused,) = pods.start(manifests.pod("no-loop-forced", volumes))
    event = refused.wait_event("FailedMount", "FailedPrecondition", "erofs-loop: ", "/dev/loop-control")
    status, detail = driver.doctor()["mounting"]
    assert status == "fail"
    assert detail in event.message, "the same reason"
    pods.end()


def test_a_state_directory_in_memory(
    node: Node, driver: Installation, artifact: Model, car: Model, elsewhere: str, pods: Pods, record_property: Record
) -> None:
    """On a tmpfs the driver takes a rung that works there, and `doctor` names it."""
    node.machine.run("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", elsewhere)
    driver.upgrade(stateDir=elsewhere)
    volumes = {"artifact": manifests.inline(artifact.reference), "car": manifests.inline(car.reference, path="/models")}
    pod = pods.run(manifests.pod("in-memory", volumes))
    assert pod.checksums("/artifact") == artifact.files
    assert pod.checksums("/car") == car.files
    status, detail = driver.doctor()["mounting"]
    assert status in {"ok", "warn"}
    assert detail.split()[0].rstrip(",:") == driver.rung()
    record_property("state directory on a tmpfs", driver.rung())
    pods.end()


@pytest.mark.parametrize("strategy", LADDER, ids=lambda strategy: strategy.value)
def test_a_rung_by_force(
    driver: Installation, artifact: Model, car: Model, pods: Pods, record_property: Record, *, strategy: Strategy
) -> None:
    """Each rung that this kernel can do shows the same files; of one that it cannot do, the pod's event says why."""
    driver.upgrade(config=forced(driver, strategy.value))
    works = driver.rung() == strategy.value
    assert works or not must_work(strategy)
    volumes = {"artifact": manifests.inline(artifact.reference), "car": manifests.inline(car.reference, path="/models")}
    (pod,) = pods.start(manifests.pod("forced", volumes))
    if works:
        pod.wait_ready()
        assert pod.checksums("/artifact") == artifact.files
        assert pod.checksums("/car") == car.files
        assert "Read-only file system" in pod.refused("touch /artifact/x")
    else:
        pod.wait_event("FailedMount", "FailedPrecondition", strategy.value)
    record_property(f"rung {strategy.value}", "works" if works else "refused")
    pods.end()
