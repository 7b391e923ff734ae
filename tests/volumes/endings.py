"""Drivers that end in other ways than an orderly stop, and nodes that come back from a reboot."""

from __future__ import annotations

import os
import signal
import subprocess
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from csi_model import steps
from csi_model.linux.mountinfo import read_mounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.volumes.conftest import Node


def killed(node: Node, work: Callable[[], object], *, step: str = "") -> None:
    """Have a driver in a process of its own do the work, and die at the step or, without one, right after."""
    child = os.fork()
    if not child:
        try:
            steps._TRIGGER = steps._Trigger(step)  # the environment is only read when a process starts
            with node.running():
                work()
                os.kill(os.getpid(), signal.SIGKILL)
        except BaseException:  # noqa: BLE001 - shown, and the parent sees that this was no kill
            traceback.print_exc()
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def reboot(node: Node) -> None:
    """What a reboot does to mounts."""
    below = [mount.target for mount in read_mounts() if Path(mount.target).is_relative_to(node.folder) and mount.target != str(node.folder)]
    for target in reversed(below):
        subprocess.run(["umount", target], check=True)


def left(node: Node) -> list[str]:
    """Everything that is left of views: files, records, places and mounts."""
    assert node.engine is not None
    store = node.engine.store
    names = [str(path.relative_to(store.root)) for folder in (store.views, store.mounts) for path in folder.iterdir()]
    return [*names, *(record.view_id for record in store.state.views()), *(m.target for m in read_mounts() if str(node.folder) in m.target)]
