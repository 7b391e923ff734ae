"""The examples on a real API server: all of them checked by it, and those that need no operator and no GPU run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from e2e.kubernetes.applied import applied
from e2e.kubernetes.examples import FOLDER, example, examples
from e2e.kubernetes.images import BUSYBOX
from e2e.kubernetes.installation import with_class
from e2e.kubernetes.machine import CommandError
from e2e.kubernetes.node import until

if TYPE_CHECKING:
    from e2e.kubernetes.examples import Example
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node

_SHELL = {"busybox:1.37": BUSYBOX}
_STRICT = ("apply", "--dry-run=server", "--validate=strict", "--filename")


@pytest.mark.parametrize("name", [found.name for found in examples()])
def test_the_api_server_accepts_every_example(node: Node, operators: None, name: str) -> None:
    """A server-side dry run with strict field validation takes each file as it is."""
    answers = node.kubectl(*_STRICT, str(FOLDER / f"{name}.yaml")).splitlines()
    assert len(answers) == len(example(name).documents)
    assert all(answer.endswith("(server dry run)") for answer in answers)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("kserve-pvc", "storageUri:", "storageURI:"),
        ("kserve-runtime", "supportedModelFormats:", "modelFormats:"),
        ("jobset", "replicatedJobs:", "jobs:"),
        ("leaderworkerset", "startupPolicy:", "startPolicy:"),
        ("kueue", "nominalQuota:", "quota:"),
        ("inference-pool", "endpointPickerRef:", "extensionRef:"),
        ("inference-pool", "backendRefs:", "backends:"),
    ],
)
def test_the_api_server_refuses_a_misspelt_field(node: Node, operators: None, name: str, old: str, new: str) -> None:
    """The reduced schemas are strict: with one field misspelt the same dry run fails and names the field."""
    text = example(name).with_text({old: new}).text
    with pytest.raises(CommandError, match=f"unknown field .*{new.rstrip(':')}"):
        node.kubectl(*_STRICT, "-", text=text)


@pytest.mark.parametrize("name", ["pod", "static-volume"])
def test_a_pod_lists_the_model(node: Node, driver: Installation, artifact: Model, name: str) -> None:
    """The plain pod, and the one with a claimed volume, list every file of the model."""
    given = example(name).with_text({**_SHELL, "registry.example/llm/tiny:v1": artifact.reference})
    with applied(node, given):
        _lists(node, given, artifact)


def test_a_pod_lists_a_modelcar(node: Node, driver: Installation, car: Model) -> None:
    """The Modelcar pod lists the model's files and nothing else of the image."""
    given = example("modelcar").with_text({**_SHELL, "registry.example/llm/tiny-modelcar:v1": car.reference})
    with applied(node, given):
        _lists(node, given, car)


def test_a_claim_of_a_class_is_bound_and_read(node: Node, driver: Installation, artifact: Model) -> None:
    """With the chart's controller, a claim of the example's class becomes a volume that its pod lists; deleting it deletes the volume."""
    driver.provide(with_class("unused", artifact.reference) | {"storageClasses": []})
    given = example("dynamic-volume").with_text({**_SHELL, "registry.example/llm/tiny:v1": artifact.reference})
    with applied(node, given):
        _lists(node, given, artifact)
        (claim,) = [document["metadata"]["name"] for document in given.documents if document["kind"] == "PersistentVolumeClaim"]
        volume = node.volume_of(claim)
    until("the volume is deleted", lambda: node.api.find(volume) is None)


def test_replicas_serve_the_model(node: Node, driver: Installation, artifact: Model) -> None:
    """Both replicas of the Deployment become Ready and serve the model's bytes."""
    given = example("deployment").with_text({**_SHELL, "registry.example/llm/tiny:v1": artifact.reference})
    name, size = max(((name, len(name)) for name in artifact.files if name.endswith(".json")), key=lambda pair: pair[1])
    with applied(node, given):
        node.kubectl("rollout", "status", "deployment/model-server", "--timeout=60s")
        found = json.loads(node.kubectl("get", "pods", "--selector", "app.kubernetes.io/name=model-server", "--output", "json"))["items"]
        assert len(found) == 2
        for pod in found:
            url = f"http://{pod['status']['podIP']}:8080/{name}"
            served = node.machine.run("sh", "-c", f"curl -sf {url} | sha256sum")
            assert served.split()[0] == artifact.files[name], size


def test_a_daemonset_keeps_a_model_mounted(node: Node, driver: Installation, artifact: Model, gpu_node: None) -> None:
    """The prewarming DaemonSet runs on a tainted GPU node, and while it does the model is mounted there."""
    given = example("prewarm-daemonset").with_text({**_SHELL, "registry.example/llm/llama:v1": artifact.reference})
    with applied(node, given):
        node.kubectl("rollout", "status", "daemonset/prewarm-llama", "--timeout=60s")
        (image,) = [image for image in json.loads(driver.csi_model("images", "--json")) if image["reference"] == artifact.reference]
        assert len(image["targets"]) == 1


def test_a_job_prewarms_a_model(node: Node, driver: Installation, artifact: Model, gpu_node: None) -> None:
    """The prewarming Job completes on a tainted GPU node, and the model is there afterwards."""
    changes = {"registry.example/llm/llama:v2": artifact.reference, "completions: 8": "completions: 1", "parallelism: 8": "parallelism: 1"}
    with applied(node, example("prewarm-job").with_text({**_SHELL, **changes})):
        node.kubectl("wait", "--for=condition=Complete", "job/prewarm-llama-v2", "--timeout=60s")
    assert artifact.reference in [image["reference"] for image in json.loads(driver.csi_model("images", "--json"))]


def _lists(node: Node, given: Example, model: Model) -> None:
    """The example's pod runs to its end, and what it printed has the name of every file of the model and of no other."""
    (name,) = [document["metadata"]["name"] for document in given.documents if document["kind"] == "Pod"]
    node.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=60s")
    lines = node.kubectl("logs", f"pod/{name}").splitlines()
    listed = [line.split()[-1] for line in lines if line.startswith("-")]
    assert sorted(listed) == sorted(path.rpartition("/")[2] for path in model.files)
