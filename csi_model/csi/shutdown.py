"""Why and when a server ends: a queue of reasons that signals, and kubelet's refusal, write to."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Shutdown:
    """Why the driver ends: asked for by a signal or by kubelet's refusal; the first reason counts.

    A queue, because its ``put`` may interrupt its ``get`` in the same thread, as a signal handler does; an Event would lock itself up.
    """

    def __init__(self) -> None:
        self._reasons: SimpleQueue[int] = SimpleQueue()

    def ask(self, *, exit_code: int) -> None:
        """End the driver with this exit code."""
        self._reasons.put(exit_code)

    def wait(self) -> int:
        """The exit code, once somebody has asked.

        Python runs signal handlers between its own instructions: a signal that arrives just before the thread goes to sleep is handled
        when it wakes, so it wakes every second.
        """
        while True:
            with suppress(Empty):
                return self._reasons.get(timeout=1)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT ask for an end with exit code 0 meanwhile; outside the main thread, where Python has no signals, nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kinds = (signal.SIGTERM, signal.SIGINT)
        before = {kind: signal.signal(kind, lambda _number, _frame: self.ask(exit_code=0)) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
