"""The first process of a node: makes its mounts and network, says ``up``, and buries the node's orphans until it is killed.

The node sees the machine's files, except for what a node changes: ``/var/lib`` and ``/var/log`` are folders of the run, and ``/run`` is
a tmpfs, so that a reboot empties it. Its network leads nowhere.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

NAME = "node1"
ADDRESS = "10.99.0.1"
API_SERVICE = "10.96.0.1"
# kubelet sets these for the whole machine; what it sees instead are files with the values that it wants.
_TUNABLES = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def main(folder: Path) -> None:
    """Make the node out of namespaces that are new and private."""
    _mount(folder)
    _network()
    signal.signal(signal.SIGCHLD, _bury)
    print("up", flush=True)
    while True:
        signal.pause()


def _mount(folder: Path) -> None:
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    Path("/run/lock").mkdir()
    for source, target in ((folder / "disk" / "lib", "/var/lib"), (folder / "disk" / "log", "/var/log")):
        _run("mount", "--bind", str(source), target)
    # A mount of its own, as on many nodes.
    _run("mount", "--bind", "/var/lib/kubelet", "/var/lib/kubelet")
    for name, value in _TUNABLES.items():
        shown = folder / "sysctl" / name.replace("/", "-")
        shown.parent.mkdir(exist_ok=True)
        shown.write_text(f"{value}\n")
        _run("mount", "--bind", str(shown), f"/proc/sys/{name}")
    # Now, and not before: a mount that is shared on its own account gets a peer group of its own. Were /var/lib a peer of the
    # filesystem that holds the run's folder, every volume would appear, writable, below that folder too.
    _run("mount", "--make-rshared", "/")


def _network() -> None:
    _run("hostname", NAME)
    for command in (
        "link set lo up",
        # The service address of the API server, so that there need be no kube-proxy.
        f"address add {API_SERVICE}/32 dev lo",
        "link add node0 type veth peer name nowhere0",
        f"address add {ADDRESS}/24 dev node0",
        "link set node0 up",
        "link set nowhere0 up",
        # Leads nowhere; some programs want one to exist.
        "route add default via 10.99.0.254 dev node0",
    ):
        _run("ip", *command.split())


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        msg = f"{' '.join(command)}: {done.stderr.strip()}"
        raise RuntimeError(msg)


def _bury(_number: int, _frame: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
