"""The process that owns a node's namespaces, and takes everything away when the test run ends, however it ends.

Started by ``machine.py`` as ``python -m e2e.kubernetes.keeper FOLDER``. It reads lines from its standard input: ``boot`` answers with the
process id of the node's first process, ``halt`` with ``halted``. When the input ends, because the run is over, was interrupted or was
killed with SIGKILL, it halts the node, removes the node's cgroups and the folder, and exits. Should it be killed itself, the kernel ends
the node's processes and with them its mounts; the next run removes the folder and the cgroups (``sweep``).

``FOLDER/lock`` is held as long as the keeper lives: by a descriptor that it inherits, so that there is no moment without.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from csi_model.linux.mountinfo import read_mounts

PREFIX = "csi-model-e2e."
_PATIENCE = 20.0


def main(folder: Path) -> None:
    """Serve one folder until the input ends."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    node: subprocess.Popen[str] | None = None
    try:
        while order := sys.stdin.readline().strip():
            if order == "boot":
                node = _boot(folder)
                _answer(str(_first_process(node)))
            elif order == "halt":
                _halt(node)
                _answer("halted")
    finally:
        _halt(node)
        remove(folder)


def lock(folder: Path) -> int:
    """Make a new folder's lock, held from its first moment on by the descriptor that is returned."""
    made = os.open(folder / "unlocked", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(made, fcntl.LOCK_EX)
    (folder / "unlocked").rename(folder / "lock")
    return made


def sweep(parent: Path) -> None:
    """Remove what keepers that were killed have left below ``parent``; a folder without a lock is one that another run is just making."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError), (folder / "lock").open("r+") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            remove(folder)


def cgroups(name: str) -> list[Path]:
    """Where a cgroup of this name lies in each hierarchy of this machine, cgroup v1 and v2 alike."""
    return [Path(mount.target) / name for mount in read_mounts() if mount.filesystem in {"cgroup", "cgroup2"}]


def remove(folder: Path) -> None:
    """Remove a halted node's cgroups and folder. Refuses while anything is mounted below it."""
    for top in cgroups(folder.name):
        _remove_cgroup(top)
    mounted = [mount.target for mount in read_mounts() if mount.target.startswith(f"{folder}/")]
    if mounted:
        msg = f"{folder} is not removed: still mounted are {', '.join(mounted)}"
        raise RuntimeError(msg)
    shutil.rmtree(folder)


def _boot(folder: Path) -> subprocess.Popen[str]:
    for top in cgroups(folder.name):
        top.mkdir(exist_ok=True)
    # Each of the two ends with its parent, so that the node cannot outlive the keeper.
    own = ["setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child=KILL", "--mount", "--pid", "--net", "--uts", "--ipc"]
    command = [*own, "--propagation", "private", "--mount-proc", sys.executable, "-m", "e2e.kubernetes.init", str(folder)]
    with (folder / "log" / "init.log").open("a") as log:
        node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
    assert node.stdout is not None
    if node.stdout.readline() != "up\n":
        node.wait(_PATIENCE)
        msg = f"the node's first process failed:\n{(folder / 'log' / 'init.log').read_text()}"
        raise RuntimeError(msg)
    return node


def _first_process(node: subprocess.Popen[str]) -> int:
    return int(Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()[0])


def _halt(node: subprocess.Popen[str] | None) -> None:
    """End pid 1 of the node; the kernel ends every other process of its namespace first."""
    if node is None or node.poll() is not None:
        return
    os.kill(_first_process(node), signal.SIGKILL)
    node.wait(_PATIENCE)
    assert node.stdout is not None
    node.stdout.close()


def _remove_cgroup(top: Path) -> None:
    """Remove a tree of cgroups. The kernel may need a moment to see that the last process of one is gone."""
    deadline = time.monotonic() + _PATIENCE
    while top.exists():
        for path, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(path).rmdir()
        if time.monotonic() > deadline:
            msg = f"the cgroup {top} is not empty"
            raise RuntimeError(msg)
        time.sleep(0.02)


def _answer(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(text, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
