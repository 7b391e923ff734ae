"""Scenario 2: every way in which a pod can have a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.kubernetes import manifests, models
from e2e.kubernetes.installation import with_class
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.pods import Pods
    from e2e.kubernetes.registries import NodeRegistry

pytestmark = pytest.mark.gate


def test_a_modelcar_shows_its_models_folder(driver: Installation, car: Model, pods: Pods) -> None:
    """With `path: /models` an image's files lie where the volume is mounted."""
    pod = pods.run(manifests.pod("car", {"model": manifests.inline(car.reference, path="/models")}))
    assert pod.checksums("/model") == car.files


def test_a_static_volume_serves_many_pods(node: Node, driver: Installation, artifact: Model, pods: Pods) -> None:
    """Two pods read one persistent volume through one claim."""
    pods.need(*manifests.static_volume("static", artifact.reference))
    for pod in pods.start(*(manifests.pod(name, {"model": manifests.claimed("static")}) for name in ("first", "second"))):
        pod.wait_ready()
        assert pod.checksums("/model") == artifact.files


def test_a_claim_becomes_a_volume(node: Node, driver: Installation, artifact: Model, pods: Pods) -> None:
    """A claim of a StorageClass that names a model is bound by the controller, read by a pod, and its volume deleted with it."""
    driver.provide(with_class("minilm", artifact.reference))
    pods.need(manifests.claim("dynamic", storageClassName="minilm"))
    pod = pods.run(manifests.pod("dynamic", {"model": manifests.claimed("dynamic")}))
    assert pod.checksums("/model") == artifact.files
    volume = node.volume_of("dynamic")
    pods.end()
    until("the volume is deleted", lambda: node.api.find(volume) is None)


def test_sub_paths_init_containers_and_two_containers(driver: Installation, artifact: Model, pods: Pods) -> None:
    """An init container reads first, one container the whole model, another a single file of it."""
    config = artifact.files["config.json"]
    init = manifests.container("init", {"model": "/model"}, command="sha256sum /model/config.json")
    whole = manifests.container("whole", {"model": "/model"})
    part = manifests.container("part", {"model": {"mountPath": "/part/config.json", "subPath": "config.json"}})
    pod = pods.run(manifests.pod("parts", {"model": manifests.inline(artifact.reference)}, containers=[whole, part], initContainers=[init]))
    assert pod.logs("init").split()[0] == config
    assert pod.checksums("/model", container="whole") == artifact.files
    assert pod.checksums("/part", container="part") == {"config.json": config}


def test_two_pods_share_a_download_and_its_pages(driver: Installation, registry: NodeRegistry, pods: Pods, tmp_path: Path) -> None:
    """Pods that start together on one artifact and one image cost one download of each, and one set of pages of the image's view."""
    artifact = models.made_up(registry, "shared", tmp_path, mebibytes=64)
    car = models.made_up_image(registry, "shared-car", tmp_path, mebibytes=32)
    volumes = {"artifact": manifests.inline(artifact.reference), "car": manifests.inline(car.reference, path="/models")}
    before = registry.served()
    started = pods.start(*(manifests.pod(name, volumes) for name in ("one", "two")))
    for pod in started:
        pod.wait_ready()
        assert pod.checksums("/artifact") == artifact.files
        assert pod.checksums("/car") == car.files
    sent = registry.served() - before
    assert {f"sha256:{digest}" for digest in artifact.files.values()} < set(sent)
    assert sum(sent.values()) > artifact.size + car.size
    assert dict(sent) == {digest: registry.size(digest) for digest in sent}, "every blob came once"
    # The artifact's view is a folder of raw layers, whose inodes are the disk's; the image's is a filesystem, which need not be one for both.
    inodes = {pod.run("stat -c '%d:%i' /car/model-0.safetensors").strip() for pod in started}
    assert len(inodes) == 1, "one inode of one filesystem has one set of pages"


def test_a_pod_may_have_six_models(
    node: Node, driver: Installation, artifact: Model, car: Model, registry: NodeRegistry, pods: Pods, tmp_path: Path
) -> None:
    """Inline volumes of several models, and parts of one, stand side by side in one pod."""
    small = models.made_up(registry, "small", tmp_path, mebibytes=4)
    volumes = {
        "artifact": manifests.inline(artifact.reference),
        "car": manifests.inline(car.reference, path="/models"),
        "whole-car": manifests.inline(car.reference),
        "small": manifests.inline(small.reference),
        "config": manifests.inline(small.reference, include="config.json"),
        "weights": manifests.inline(small.reference, exclude="*.json"),
    }
    pod = pods.run(manifests.pod("six", volumes))
    assert pod.checksums("/artifact") == artifact.files
    assert pod.checksums("/car") == pod.checksums("/whole-car/models") == car.files
    assert pod.checksums("/small") == {**pod.checksums("/config"), **pod.checksums("/weights")} == small.files
    assert len(pod.mounts()) == 6


def test_whoever_runs_as_nobody_reads(driver: Installation, artifact: Model, pods: Pods) -> None:
    """A pod without root, with an fsGroup, reads the model, whose owners and modes nobody has changed."""
    security = {"runAsNonRoot": True, "runAsUser": 65534, "runAsGroup": 65534, "fsGroup": 2000}
    pod = pods.run(manifests.pod("nobody", {"model": manifests.inline(artifact.reference)}, securityContext=security))
    assert pod.checksums("/model") == artifact.files
    assert pod.run("stat -c %g /model/config.json").strip() == "0"


@pytest.mark.parametrize("read_only", [None, False])
def test_a_volume_is_read_only_unasked(driver: Installation, artifact: Model, pods: Pods, *, read_only: bool | None) -> None:
    """Without `readOnly: true` the pod starts all the same, and cannot write."""
    pod = pods.run(manifests.pod("unasked", {"model": manifests.inline(artifact.reference, read_only=read_only)}))
    assert pod.checksums("/model") == artifact.files
    assert "Read-only file system" in pod.refused("touch /model/x")
