"""The schedule: which layers are pulled now, and which wait.

Each host has a number of slots of its own, so that a registry which falls silent holds up nobody but its own layers. A host's next
slot goes to the layer that comes first in its pull, whichever pull that is: a model of three layers does not wait for the three
hundred of another. A layer whose bytes have all arrived gives its slot up and is synced to disk while the next one is fetched.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING

from csi_model.errors import BusyError
from csi_model.pull.threads import begin

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[["Slot"], None]

_FINISHING = 8
"""Layers without a slot that are being synced; more would only queue up at the disk."""


class Slot:
    """The right to fetch one layer."""

    def __init__(self, schedule: Schedule, host: str) -> None:
        self._schedule = schedule
        self._host = host
        self.left = False

    def leave(self) -> None:
        """Let another layer of this host begin, unless too many are finishing already."""
        if not self.left:
            self.left = self._schedule.leave(self._host)


class Schedule:
    """Runs work in threads of its own, at most ``per_host`` at a time for each host. Threads live as long as there is work."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._lock = threading.Lock()
        self._waiting: defaultdict[str, list[tuple[int, int, Work]]] = defaultdict(list)
        self._running: Counter[str] = Counter()
        self._finishing = 0
        self._sequence = itertools.count()
        self._threads: set[threading.Thread] = set()

    def submit(self, host: str, position: int, work: Work) -> None:
        """Have ``work``, which raises nothing, done when its turn comes; lower positions come first.

        Raises:
            BusyError: there may be no more threads now, and none that runs would ever come to it.
        """
        with self._lock:
            heapq.heappush(self._waiting[host], (position, next(self._sequence), work))
            try:
                self._start(host)
            except BusyError:
                if self._running[host]:
                    return
                del self._waiting[host]  # this one only, or a thread would run
                raise

    def running(self) -> int:
        """How many layers hold a slot."""
        with self._lock:
            return sum(self._running.values())

    def leave(self, host: str) -> bool:
        """Free a slot of ``host`` while its work goes on; whether that was allowed."""
        with self._lock:
            if self._finishing >= _FINISHING:
                return False
            self._running[host] -= 1
            try:
                self._start(host)
            except BusyError:
                self._running[host] += 1
                return False
            self._finishing += 1
            return True

    def join(self, grace: float) -> bool:
        """Wait up to ``grace`` seconds until all threads have ended; whether they have."""
        deadline = time.monotonic() + grace
        while True:
            with self._lock:
                thread = next(iter(self._threads), None)
            if thread is None:
                return True
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return False

    def _start(self, host: str) -> None:
        if self._waiting[host] and self._running[host] < self._per_host:
            self._threads.add(begin(f"pull-{host}", partial(self._work, host)))
            self._running[host] += 1

    def _work(self, host: str) -> None:
        while (work := self._next(host)) is not None:
            slot = Slot(self, host)
            work(slot)
            if slot.left and not self._reenter(host):
                break
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _next(self, host: str) -> Work | None:
        with self._lock:
            if self._waiting[host]:
                return heapq.heappop(self._waiting[host])[2]
            self._running[host] -= 1
            if not self._running[host]:
                del self._running[host], self._waiting[host]
            return None

    def _reenter(self, host: str) -> bool:
        with self._lock:
            self._finishing -= 1
            if self._waiting[host] and self._running[host] < self._per_host:
                self._running[host] += 1
                return True
            return False
