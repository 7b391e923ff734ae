"""Ask the API server whether kubelet knows the driver on every node that should have it; waits three minutes for that."""

import contextlib
import http
import http.client
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

DRIVER, NAMESPACE, DAEMONSET = sys.argv[1:]
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# By address, as clients in pods do it: the cluster's DNS is not what is tested.
HOST, PORT = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
TRUST = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))


def get(path: str) -> Any:
    """An object or a list of the API server."""
    connection = http.client.HTTPSConnection(HOST, PORT, timeout=10, context=TRUST)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"})
        answer = connection.getresponse()
        text = answer.read().decode()
    if answer.status != http.HTTPStatus.OK:
        sys.exit(f"the API server answers {answer.status} to {path}: {text}")
    return json.loads(text)


def state() -> tuple[int, list[str]]:
    """How many nodes should have the driver, and the names of those that do."""
    wanted = get(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{DAEMONSET}")["status"]["desiredNumberScheduled"]
    nodes = get("/apis/storage.k8s.io/v1/csinodes")["items"]
    return wanted, [
        node["metadata"]["name"] for node in nodes if any(driver["name"] == DRIVER for driver in node["spec"].get("drivers") or ())
    ]


end = time.monotonic() + 180
while True:
    wanted, names = state()
    if 0 < wanted <= len(names):
        print(f"{DRIVER} is registered on {len(names)} nodes: {', '.join(names)}")
        sys.exit(0)
    if time.monotonic() > end:
        print(f"{DRIVER} is registered on {len(names)} of {wanted} nodes: {', '.join(names) or 'none'}", file=sys.stderr)
        sys.exit(1)
    time.sleep(2)
