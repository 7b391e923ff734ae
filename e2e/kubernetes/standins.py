"""Examples made runnable on a small node: a shell in place of a model server, less CPU and memory, and the rest as it is written."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import yaml

from e2e.kubernetes.examples import Example, parse, pod_specs, sources
from e2e.kubernetes.images import BUSYBOX
from e2e.kubernetes.node import DRIVER

if TYPE_CHECKING:
    from e2e.kubernetes.api import Object

_PORT = 8000
# Answers /health as vLLM does, and serves the model's files below /model.
_SERVE = 'mkdir /tmp/www && ln -s "$1" /tmp/www/model && echo ok > /tmp/www/health && exec httpd -f -p 8000 -h /tmp/www'
_NOT_COUNTED = ("cpu", "memory")


def served_by_a_shell(given: Example, reference: str) -> Example:
    """The example with ``reference`` for a model and, for each container, a shell that serves the model's mount over HTTP."""
    documents = copy.deepcopy(given.documents)
    for spec in pod_specs(list(documents)):
        spec["terminationGracePeriodSeconds"] = 0
        for container in spec["containers"]:
            (model,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "model"]
            container |= {"image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", _SERVE, "server", model]}
            container.pop("args", None)
            resources = container.get("resources", {})
            for counted in resources.values():
                for name in _NOT_COUNTED:
                    counted.pop(name, None)
    for source in sources(list(documents), DRIVER):
        source["volumeAttributes"]["reference"] = reference
    return parse(given.name, yaml.safe_dump_all(documents))


def with_gpus(given: Example, count: int) -> Example:
    """The example with so many GPUs for each container that wants any."""
    documents = copy.deepcopy(given.documents)
    for spec in pod_specs(list(documents)):
        for container in spec["containers"]:
            limits = container.get("resources", {}).get("limits", {})
            if "nvidia.com/gpu" in limits:
                limits["nvidia.com/gpu"] = str(count)
    return parse(given.name, yaml.safe_dump_all(documents))


def job_of(jobset: Object) -> Object:
    """The Job that JobSet's controller makes of its first replicated job."""
    replicated = jobset["spec"]["replicatedJobs"][0]
    name = f"{jobset['metadata']['name']}-{replicated['name']}-0"
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": replicated["template"]["spec"]}


def group_of(leader_worker_set: Object) -> list[Object]:
    """The pods that LeaderWorkerSet's controller makes of one group, the leader first."""
    template = leader_worker_set["spec"]["leaderWorkerTemplate"]
    name = leader_worker_set["metadata"]["name"]
    kinds = [("0", template["leaderTemplate"])] + [(f"0-{number}", template["workerTemplate"]) for number in range(1, template["size"])]
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**kind["metadata"], "name": f"{name}-{suffix}"}, "spec": kind["spec"]}
        for suffix, kind in kinds
    ]
