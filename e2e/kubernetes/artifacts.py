"""What is kept of a test that failed: the logs of all services and pods, events, objects and mounts, in ``e2e/artifacts/<test>``."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from e2e.kubernetes.api import ApiError
from e2e.kubernetes.machine import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.kubernetes.node import Node

_FOLDER = Path(__file__).resolve().parents[1] / "artifacts"
_KINDS = "nodes,csinodes,csidrivers,pods,daemonsets,deployments,persistentvolumes,persistentvolumeclaims,storageclasses,configmaps"


def keep(node: Node, test: str) -> Path:
    """Write them, replacing those of the test's last failure. What cannot be had is noted and does not hide the failure."""
    folder = _FOLDER / re.sub(r"[^A-Za-z0-9_.-]+", "-", test)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with _noted(folder / "logs-of-services.txt"):
        shutil.copytree(node.machine.folder / "log", folder, dirs_exist_ok=True)
    if not node.machine.pid:
        return folder
    with _noted(folder / "mountinfo.txt"):
        shutil.copy(f"/proc/{node.machine.pid}/mountinfo", folder / "mountinfo.txt")
    _write(folder / "processes.txt", lambda: node.machine.run("ps", "axfww", "-o", "pid,ppid,etime,time,rss,args"))
    _write(folder / "events.txt", lambda: node.kubectl("get", "events", "--all-namespaces", "--sort-by", ".metadata.creationTimestamp"))
    _write(folder / "objects.yaml", lambda: node.kubectl("get", _KINDS, "--all-namespaces", "--output", "yaml"))
    _write(folder / "pods.txt", lambda: node.kubectl("describe", "pods", "--all-namespaces"))
    pods = node.machine.path("/var/log/pods")
    if pods.exists():
        # Of a node that runs: what is there when the folder is listed may be gone when it is copied.
        with _noted(folder / "logs-of-pods.txt"):
            shutil.copytree(pods, folder / "pods", symlinks=True)
    return folder


def _write(path: Path, text: Callable[[], str]) -> None:
    with _noted(path):
        path.write_text(text())


@contextmanager
def _noted(path: Path) -> Iterator[None]:
    """What goes wrong is written to ``path`` instead."""
    try:
        yield
    except (ApiError, CommandError, OSError, subprocess.TimeoutExpired) as error:
        path.write_text(f"could not be had, or not all of it: {error}\n")
