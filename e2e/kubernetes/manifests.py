"""Objects that tests apply, as a user would write them, in a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from e2e.kubernetes.images import BUSYBOX
from e2e.kubernetes.node import DRIVER

if TYPE_CHECKING:
    from e2e.kubernetes.api import Object

_FOREVER = "trap exit TERM; sleep 2147483647 & wait"


def inline(reference: str, *, secret: str | None = None, read_only: bool | None = True, **attributes: str) -> Object:
    """A volume that names a model itself. ``read_only=None`` leaves the line out, as many people do."""
    source: Object = {"driver": DRIVER, "volumeAttributes": {"reference": reference, **attributes}}
    if read_only is not None:
        source["readOnly"] = read_only
    if secret is not None:
        source["nodePublishSecretRef"] = {"name": secret}
    return {"csi": source}


def claimed(claim: str) -> Object:
    """A volume of a claim."""
    return {"persistentVolumeClaim": {"claimName": claim}}


def container(name: str, mounts: dict[str, Any], *, command: str = _FOREVER, **more: Any) -> Object:
    """A container with a shell. ``mounts`` says what is mounted where: a path, or a whole volumeMount without its name."""
    volume_mounts = [{"name": volume, **({"mountPath": where} if isinstance(where, str) else where)} for volume, where in mounts.items()]
    return {
        "name": name,
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", command],
        "volumeMounts": volume_mounts,
        **more,
    }


def pod(name: str, volumes: dict[str, Object], *, command: str = _FOREVER, containers: list[Object] | None = None, **spec: Any) -> Object:
    """A pod that mounts each volume at ``/<its name>`` and lives until it is deleted, unless the test says otherwise."""
    alone = [container("main", {volume: f"/{volume}" for volume in volumes}, command=command)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": alone if containers is None else containers,
            "volumes": [{"name": volume, **source} for volume, source in volumes.items()],
            **spec,
        },
    }


def static_volume(name: str, reference: str, **attributes: str) -> tuple[Object, Object]:
    """A persistent volume made by an admin, and the claim in ``default`` that it is meant for."""
    capacity = {"storage": "1Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "capacity": capacity,
            "storageClassName": "",
            "claimRef": {"namespace": "default", "name": name},
            "csi": {"driver": DRIVER, "volumeHandle": name, "readOnly": True, "volumeAttributes": {"reference": reference, **attributes}},
        },
    }
    return volume, claim(name, storageClassName="", volumeName=name)


def claim(name: str, **spec: Any) -> Object:
    """A claim for a volume that many pods read."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}, **spec},
    }


def secret(name: str, host: str, username: str, password: str) -> Object:
    """What ``kubectl create secret docker-registry`` makes."""
    import base64
    import json

    login = {"username": username, "password": password, "auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps({"auths": {host: login}})},
    }
