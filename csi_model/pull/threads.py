"""Threads that may fail to start: a process, its container or the node can be at the limit of what it may have."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import TYPE_CHECKING

from csi_model.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable


def begin(name: str, work: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread that does ``work`` in a copy of this thread's context, so that it logs as whoever began it.

    Raises:
        BusyError: there may be no more threads now.
    """
    thread = threading.Thread(target=copy_context().run, args=(work,), name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        msg = "the driver may start no more threads now; it goes on when pulls have ended, or raise the limit of processes (pids) of its pod and node"
        raise BusyError(msg) from error
    return thread
