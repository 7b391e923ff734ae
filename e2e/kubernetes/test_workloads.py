"""The operators' examples at work: their objects are stored by the API server, and what their controllers would make of them runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from e2e.kubernetes import models
from e2e.kubernetes.applied import applied
from e2e.kubernetes.examples import example, parse
from e2e.kubernetes.images import BUSYBOX
from e2e.kubernetes.init import NAME
from e2e.kubernetes.node import until
from e2e.kubernetes.standins import group_of, job_of, served_by_a_shell, with_gpus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.kubernetes.api import Object
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node
    from e2e.kubernetes.registries import NodeRegistry

_GPUS = 4
_STORED = ("kserve-pvc", "kserve-runtime", "jobset", "leaderworkerset", "kueue", "inference-pool")


@pytest.fixture
def gpus(node: Node, gpu_node: None) -> Iterator[None]:
    """The node has GPUs, as a device plugin would tell."""
    path = "/status/capacity/nvidia.com~1gpu"

    def patch(*operations: dict[str, str]) -> None:
        node.kubectl("patch", "node", NAME, "--subresource=status", "--type=json", "--patch", json.dumps(operations))

    patch({"op": "add", "path": path, "value": str(_GPUS)})
    until("the node's GPUs can be had", lambda: node.describe()["status"]["allocatable"].get("nvidia.com/gpu") == str(_GPUS))
    yield
    patch({"op": "remove", "path": path})


@pytest.mark.parametrize("name", _STORED)
def test_operators_objects_are_stored_as_written(node: Node, operators: None, name: str) -> None:
    """Objects of the operators' kinds, really applied, are read back with every field that the example writes."""
    written = [document for document in example(name).documents if "k8s.io" in document["apiVersion"] or "kserve" in document["apiVersion"]]
    assert written
    text = yaml.safe_dump_all(written)
    node.kubectl("apply", "--validate=strict", "--filename", "-", text=text)
    try:
        for document in written:
            metadata = document["metadata"]
            stored = json.loads(
                node.kubectl("get", f"{document['kind']}.{document['apiVersion'].partition('/')[0]}", metadata["name"], "-o", "json")
            )
            assert _holds(stored["spec"], document["spec"])
    finally:
        node.kubectl("delete", "--ignore-not-found", "--timeout=60s", "--filename", "-", text=text)


def test_a_model_server_has_a_gpu_and_serves_the_model(node: Node, driver: Installation, artifact: Model, gpus: None) -> None:
    """The Deployment of vLLM, with a shell in its place, is given its GPU, passes its probes, and serves the model's bytes."""
    with applied(node, served_by_a_shell(example("vllm"), artifact.reference)):
        (pod,) = _ready(node, "app.kubernetes.io/name=vllm", 1)
        assert pod["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
        assert _served(node, pod, artifact)


def test_every_member_of_a_pool_serves_the_model(node: Node, driver: Installation, operators: None, artifact: Model, gpus: None) -> None:
    """The pods that the stored InferencePool selects are three, each with a GPU, and each serves the model's bytes on the pool's port."""
    given = served_by_a_shell(example("inference-pool"), artifact.reference)
    with applied(node, given):
        pool = json.loads(node.kubectl("get", "inferencepools", "llama-pool", "--output", "json"))["spec"]
        labels = ",".join(f"{key}={value}" for key, value in pool["selector"]["matchLabels"].items())
        for pod in _ready(node, labels, 3):
            assert _served(node, pod, artifact, port=pool["targetPorts"][0]["number"])


def test_workers_that_start_together_share_one_pull(node: Node, driver: Installation, registry: NodeRegistry, tmp_path: Path) -> None:
    """JobSet's four workers checksum the whole model between them, and the registry has sent each byte once."""
    model = models.made_up(registry, "workers", tmp_path, mebibytes=16)
    replaced = {"busybox:1.37": BUSYBOX, "registry.example/llm/tiny:v1": model.reference, "ttlSecondsAfterFinished: 3600": "suspend: false"}
    job = job_of(example("jobset").with_text(replaced).documents[0])
    with applied(node, parse("job", yaml.safe_dump(job))):
        node.kubectl("wait", "--for=condition=Complete", f"job/{job['metadata']['name']}", "--timeout=90s")
        lines = node.kubectl("logs", "--selector", f"job-name={job['metadata']['name']}", "--tail=-1").splitlines()
    found = {name.removeprefix("/models/"): digest for digest, _, name in (line.partition("  ") for line in lines)}
    assert found == model.files
    _sent_once(registry, model)


def test_leader_and_workers_share_one_pull(node: Node, driver: Installation, registry: NodeRegistry, gpus: None, tmp_path: Path) -> None:
    """The pods of a LeaderWorkerSet's group start together on one node, serve the same bytes, and cost one pull."""
    model = models.made_up(registry, "group", tmp_path, mebibytes=16)
    written = with_gpus(served_by_a_shell(example("leaderworkerset"), model.reference), 1)
    with applied(node, parse("group", yaml.safe_dump_all(group_of(written.documents[0])))):
        for pod in _ready(node, "app.kubernetes.io/name=vllm", 2):
            assert _served(node, pod, model)
    _sent_once(registry, model)


def test_a_job_that_waits_for_quota_pulls_nothing(
    node: Node, driver: Installation, registry: NodeRegistry, gpus: None, tmp_path: Path
) -> None:
    """Kueue's job has no pod while it is suspended, and nothing of its model is asked for; admitted, its pods serve it."""
    model = models.made_up(registry, "queued", tmp_path, mebibytes=16)
    documents = {document["kind"]: document for document in served_by_a_shell(example("kueue"), model.reference).documents}
    job, flavor = documents["Job"], documents["ResourceFlavor"]["spec"]
    spec = job["spec"]["template"]["spec"]
    spec["volumes"] = [volume if volume["name"] != "data" else {"name": "data", "emptyDir": {}} for volume in spec["volumes"]]
    with applied(node, parse("job", yaml.safe_dump(job))):
        until("the job is suspended", lambda: _condition(node, job, "Suspended"))
        assert not _pods(node, "job-name=batch-inference")
        assert not registry.requests("/queued/")
        # As Kueue admits it: to nodes of the flavor, with its tolerations.
        placed = {"spec": {"nodeSelector": flavor["nodeLabels"], "tolerations": flavor["tolerations"]}}
        patch = {"spec": {"suspend": False, "template": placed}}
        node.kubectl("patch", "job/batch-inference", "--type=strategic", "--patch", json.dumps(patch))
        for pod in _ready(node, "job-name=batch-inference", 2):
            assert _served(node, pod, model)
    _sent_once(registry, model)


def _holds(stored: object, written: object) -> bool:
    """Whether everything that was written is there; the API server may have added defaults."""
    if isinstance(written, dict):
        return isinstance(stored, dict) and all(key in stored and _holds(stored[key], value) for key, value in written.items())
    if isinstance(written, list):
        return isinstance(stored, list) and len(stored) == len(written) and all(map(_holds, stored, written))
    return stored == written


def _condition(node: Node, job: Object, kind: str) -> bool:
    status = node.api.get(f"/apis/batch/v1/namespaces/default/jobs/{job['metadata']['name']}")["status"]
    return any(found["type"] == kind and found["status"] == "True" for found in status.get("conditions") or ())


def _pods(node: Node, labels: str) -> list[Object]:
    found: list[Object] = json.loads(node.kubectl("get", "pods", "--selector", labels, "--output", "json"))["items"]
    return found


def _ready(node: Node, labels: str, count: int) -> list[Object]:
    until(f"there are {count} pods with {labels}", lambda: len(_pods(node, labels)) == count)
    node.kubectl("wait", "--for=condition=Ready", "pod", "--selector", labels, "--timeout=90s")
    return _pods(node, labels)


def _served(node: Node, pod: Object, model: Model, *, port: int = 8000) -> bool:
    """Whether a server's files are the model's, by their checksums."""
    sums = {
        name: node.machine.run("sh", "-c", f"curl -sf http://{pod['status']['podIP']}:{port}/model/{name} | sha256sum").split()[0]
        for name in model.files
    }
    return sums == model.files


def _sent_once(registry: NodeRegistry, model: Model) -> None:
    sent = registry.served()
    assert sum(sent[f"sha256:{digest}"] for digest in model.files.values()) == model.size
