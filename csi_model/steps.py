"""Named moments at which a test may have the process die, to prove what a crash leaves behind.

Code marks the moment just passed with ``step("commit.renamed")``. That costs one comparison and does nothing, unless the environment
variable ``CSI_MODEL_KILL_AT`` names the step when the process starts: then the process kills itself there, with SIGKILL, so that no
``finally`` and no buffer gets another chance. ``NAME:3`` dies the third time. This is no hook for anything else.
"""

from __future__ import annotations

import os
import signal
import threading

STEPS = (
    # A layer's unfinished file exists; then each of the moments in which it becomes content (store/ingest.py).
    "ingest.created",
    "commit.checked",
    "commit.sealed",
    "commit.synced",
    "commit.renamed",
    "commit.durable",
    "commit.done",
    # A small document becomes content (store/content.py).
    "add.written",
    "add.synced",
    "add.renamed",
    "add.durable",
    # A transaction of the state database is about to be committed; has been (store/database.py).
    "state.begun",
    "state.committed",
    # A pull: every layer is content, then the model is recorded (pull/, volumes/).
    "pull.layers",
    "pull.recorded",
    # A view: its image or its links are written, are in place, are mounted (mount/).
    "view.written",
    "view.renamed",
    "view.mounted",
    # A target: its directory exists, the view is attached, the publication is recorded (mount/, volumes/).
    "publish.created",
    "publish.attached",
    "publish.recorded",
    # The reverse.
    "unpublish.detached",
    "unpublish.removed",
    "unpublish.recorded",
)
"""Every step there is, in the order in which a publish passes them."""


class _Trigger:
    """Counts the armed step; shared by all threads."""

    def __init__(self, armed: str) -> None:
        self.name, _, nth = armed.partition(":")
        if self.name and self.name not in STEPS:
            msg = f"CSI_MODEL_KILL_AT names {self.name!r}, which is no step; csi_model/steps.py lists them"
            raise ValueError(msg)
        self._left = int(nth or 1)
        self._lock = threading.Lock()

    def reached(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()  # a kill of oneself is delivered soon, not at once


_TRIGGER = _Trigger(os.environ.get("CSI_MODEL_KILL_AT", ""))


def step(name: str) -> None:
    """Mark that the moment ``name``, one of ``STEPS``, has just passed."""
    if name == _TRIGGER.name:
        _TRIGGER.reached()
