"""The README's five minutes, followed word by word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from csi_model import __version__
from e2e.kubernetes.examples import ROOT
from e2e.kubernetes.images import BUSYBOX
from e2e.kubernetes.installation import NAMESPACE, STATE
from e2e.kubernetes.node import DRIVER, until
from e2e.kubernetes.readme import blocks, script

if TYPE_CHECKING:
    from e2e.kubernetes.installation import Installation
    from e2e.kubernetes.models import Model
    from e2e.kubernetes.node import Node


def test_five_minutes(node: Node, driver: Installation, artifact: Model) -> None:
    """Who runs the section's blocks as they are installs the driver, reads the model in a pod, and has removed it all at the end."""
    driver.uninstall()
    mine = (f"IMAGE=localhost/csi-model:{__version__}", f"SHELL_IMAGE={BUSYBOX}", f"MODEL={artifact.reference}", "PLAIN_HTTP=true")
    try:
        printed = node.machine.run("env", "--chdir", str(ROOT), *mine, "bash", "-c", script(), timeout=300)
    finally:
        # For a script that has not come to its end; the driver, with other values, is put right by its fixture.
        node.kubectl("delete", "pod", "first-model", "--ignore-not-found", "--timeout=60s")
    said = dict(zip(range(1, len(blocks()) + 1), re.split(r"^## block \d+\n", printed, flags=re.MULTILINE)[1:], strict=True))
    assert re.search(rf"^\S+ +{re.escape(DRIVER)}$", said[2], re.MULTILINE)
    assert {"Pulled", "Mounted", "Started"} <= set(re.findall(r"\b[A-Z][a-z]+\b", said[3]))
    read = {name.removeprefix("/models/"): digest for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", said[4], re.MULTILINE)}
    assert read == artifact.files
    assert artifact.reference in said[4].replace("\n", "")
    assert node.api.find(f"/api/v1/namespaces/{NAMESPACE}") is None
    until("no volume is mounted", lambda: node.mounts("/var/lib/kubelet/pods") == [])
    assert node.mounts(STATE) == []
    assert driver.sockets() == []
