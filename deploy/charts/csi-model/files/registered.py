"""Ask the API server whether kubelet knows the driver on every node that should have it; waits three minutes for that."""

import json
import os
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

DRIVER, NAMESPACE, DAEMONSET = sys.argv[1:]
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# The address, as clients in pods have it: a cluster's DNS is not what is tested.
HOST, PORT = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
SERVER = f"https://{f'[{HOST}]' if ':' in HOST else HOST}:{PORT}"
TRUST = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))


def get(path: str) -> Any:
    """An object or a list of the API server."""
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"}
    request = urllib.request.Request(f"{SERVER}/{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=10, context=TRUST) as answer:  # noqa: S310 - the scheme is written above
        return json.load(answer)


def state() -> tuple[int, list[str]]:
    """How many nodes should have the driver, and the names of those that do."""
    wanted = get(f"apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{DAEMONSET}")["status"]["desiredNumberScheduled"]
    nodes = get("apis/storage.k8s.io/v1/csinodes")["items"]
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
